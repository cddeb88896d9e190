"""Names that are unique over all instances of one store, also while several passes run at once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from palette_sync.core.naming import assign_names

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from palette_sync.core.model import Cluster
    from palette_sync.store.redis import Store


class NameBook:
    """Gives names to new clusters, one instance at a time. Remembers given names that may not be published yet."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._given: dict[str, frozenset[str]] = {}

    async def assign(
        self,
        store: Store,
        *,
        instance: str,
        prefix: str,
        clusters: Collection[Cluster],
        published: Mapping[str, str],
    ) -> dict[str, str]:
        """Return every cluster's name by uid. Other instances are read only if a new name is needed."""
        if all(cluster.uid in published for cluster in clusters):
            self._given.pop(instance, None)  # given names are published now; once dropped they are free again
            return {cluster.uid: published[cluster.uid] for cluster in clusters}
        async with self._turn:
            taken = set(await store.names(except_instance=instance))
            taken.update(name for other, names in self._given.items() if other != instance for name in names)
            names = assign_names(clusters, published=published, taken=taken, prefix=prefix)
            self._given[instance] = frozenset(names.values())
            return names

"""Names that are unique over all instances of one store, also while several passes and processes give them at once."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from palette_sync.core.naming import assign_names
from palette_sync.store.redis import StoreError, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping

    from palette_sync.core.model import Cluster, InstanceState
    from palette_sync.store.redis import Store

ROUNDS = 10  # others may claim the same names meanwhile
LOOK_AGAIN = 0.5  # seconds


async def _nothing_lost(_instance: str) -> bool:
    return False


class NameBook:
    """Gives names to new clusters, one instance at a time, and claims them before they are published.

    `remembered` returns the last snapshots that this process knows, by instance. Their names stay taken while Redis has
    lost them. `others_lost` looks whether Redis holds less of another instance than a living process remembers; for at
    most `patience` seconds no new name is given while that is so, because names may be among what was lost.
    """

    def __init__(self) -> None:
        self.remembered: Callable[[], Mapping[str, InstanceState]] = dict
        self.others_lost: Callable[[str], Awaitable[bool]] = _nothing_lost
        self.patience = 0.0
        self._turn = asyncio.Lock()

    async def assign(
        self,
        store: Store,
        *,
        instance: str,
        prefix: str,
        clusters: Collection[Cluster],
        published: Mapping[str, str],
        write: bool = True,
    ) -> dict[str, str]:
        """Return every cluster's name by uid. Without `write` no name is claimed. Raises StoreError.

        Other instances are read only if a new name is needed.
        """
        if all(cluster.uid in published for cluster in clusters):
            if write:
                await _claim_again(store, instance, published)
            return {cluster.uid: published[cluster.uid] for cluster in clusters}
        claims, sealer = store.claims, store.sealer
        if write:
            await self._wait_for_others(instance)
        async with self._turn:
            taken = set(await store.names(except_instance=instance)) | self._remembered_names(instance)
            for _ in range(ROUNDS):
                names = assign_names(clusters, published=published, taken=taken, prefix=prefix)
                new = {uid: name for uid, name in names.items() if uid not in published}
                if write:
                    # A published name stays, even if another record has it too.
                    await claims.claim(sealer, instance, published)
                    refused = await claims.claim(sealer, instance, new)
                else:
                    refused = await claims.taken(sealer, instance, new.values())
                if not refused:
                    return names
                taken |= refused
        raise StoreError(f"no free names were found for the new clusters of {instance}")

    async def _wait_for_others(self, instance: str) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self.patience):
                while await self.others_lost(instance):  # noqa: ASYNC110 - Redis says when that ends, not an event
                    await asyncio.sleep(LOOK_AGAIN)

    def _remembered_names(self, except_instance: str) -> set[str]:
        others = (state for name, state in self.remembered().items() if name != except_instance)
        return {record.name for state in others for record in state.records.values()}


async def _claim_again(store: Store, instance: str, published: Mapping[str, str]) -> None:
    """Make sure that published names are claimed. In a Redis Cluster the server of the claims may be away."""
    try:
        await store.claims.claim(store.sealer, instance, published)
        await store.claims.sweep(store.sealer, instance, published)
    except StoreUnavailable:
        if not store.link.clustered:
            raise

"""Stable, unique cluster names for Backstage entities to refer to. Pure.

A name is `<prefix>-<cluster>`. It never changes while its record exists. Uniqueness ignores case, as Backstage does
when it compares entity references.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from palette_sync.core.model import Cluster

LONGEST = 63  # the limit of Backstage and of Kubernetes labels
SUFFIX = 6
_FORBIDDEN = re.compile(r"[^a-zA-Z0-9\-_.]+")
_UNDATED = datetime.max.replace(tzinfo=UTC)


def assign_names(
    clusters: Iterable[Cluster],
    *,
    published: Mapping[str, str],
    taken: Iterable[str],
    prefix: str,
) -> dict[str, str]:
    """Return the name of every cluster by uid: the published name, else a new, unique one.

    `published` maps uid to name for all records of this instance, also for those not in `clusters`; `taken` are the
    names of other instances. Of two new clusters of the same name, the older one gets the plain name.
    """
    used = {name.casefold() for name in taken} | {name.casefold() for name in published.values()}
    names: dict[str, str] = {}
    for cluster in sorted(clusters, key=lambda one: (one.created_at or _UNDATED, one.uid)):
        name = published.get(cluster.uid)
        if name is None:
            name = next(option for option in _candidates(cluster, prefix) if option.casefold() not in used)
            used.add(name.casefold())
        names[cluster.uid] = name
    return names


def _candidates(cluster: Cluster, prefix: str) -> Iterable[str]:
    plain = _join(prefix, cluster.name)
    project = cluster.project.name if cluster.project else cluster.scope.value
    by_project = _join(prefix, project, cluster.name)
    for candidate in (plain, by_project):
        if len(candidate) <= LONGEST:
            yield candidate
    # The end of a uid differs most: its start is the second of creation.
    tail = _join(cluster.uid)
    for length in range(SUFFIX, max(SUFFIX, len(tail)) + 1):
        yield _ending_in(by_project, tail[-length:])
    number = 2
    while True:  # two instances may hold the same uid
        yield _ending_in(by_project, f"{tail[-SUFFIX:]}-{number}")
        number += 1


def _ending_in(name: str, suffix: str) -> str:
    suffix = suffix[-(LONGEST - 2) :]
    return f"{name[: LONGEST - 1 - len(suffix)].rstrip('-_.')}-{suffix}"


def _join(*parts: str) -> str:
    cleaned = (_FORBIDDEN.sub("-", part).strip("-_.") for part in parts)
    return "-".join(part for part in cleaned if part) or "cluster"

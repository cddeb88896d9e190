"""What a publisher sends, cut into pieces of bounded size: versions, and the memory beside them. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import orjson

from palette_sync.core.documents import encode_document
from palette_sync.core.memory_codec import encode_issuer, encode_memory, encode_scope

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from palette_sync.core.model import ClusterMemory, IssuerMetadata, ScopeStatus

MOST_CHANGES = 500  # per version: put, drop and rotated together; 4 to 6 ms at the server

Edits = dict[str, bytes | None]  # None deletes the field


@dataclass(frozen=True, slots=True)
class Batch:
    """What one version changes. None in `rotated` and in the edits removes."""

    put: dict[str, bytes] = field(default_factory=dict)
    drop: tuple[str, ...] = ()
    rotated: dict[str, bytes | None] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class InstanceMemory:
    """What the daemon remembers, encoded; an empty `status` leaves the one that is there."""

    clusters: Edits = field(default_factory=dict)
    scopes: Edits = field(default_factory=dict)
    issuers: Edits = field(default_factory=dict)
    status: bytes = b""


def memory_of(
    clusters: Mapping[str, ClusterMemory | None],
    scopes: Mapping[str, ScopeStatus | None],
    issuers: Mapping[str, IssuerMetadata | None],
    status: Mapping[str, object],
) -> InstanceMemory:
    return InstanceMemory(
        clusters={uid: encode_memory(one) if one else None for uid, one in clusters.items()},
        scopes={uid: encode_scope(one) if one else None for uid, one in scopes.items()},
        issuers={url: encode_issuer(one) if one else None for url, one in issuers.items()},
        status=encode_document("status", status) if status else b"",
    )


def split(wanted: Batch) -> Iterator[Batch]:
    """Cut into versions; a cluster's record and credential stay together, drops stand at the end."""
    put: dict[str, bytes] = {}
    drop: list[str] = []
    rotated: dict[str, bytes | None] = {}
    dropped = set(wanted.drop)
    changed = dict.fromkeys((*wanted.put, *wanted.rotated))
    for uid in (*(uid for uid in changed if uid not in dropped), *wanted.drop):
        weight = 1 if uid in dropped else (uid in wanted.put) + (uid in wanted.rotated)
        if len(put) + len(drop) + len(rotated) + weight > MOST_CHANGES:
            yield Batch(put, tuple(drop), rotated)
            put, drop, rotated = {}, [], {}
        if uid in dropped:
            drop.append(uid)
            continue
        if uid in wanted.put:
            put[uid] = wanted.put[uid]
        if uid in wanted.rotated:
            rotated[uid] = wanted.rotated[uid]
    if put or drop or rotated:
        yield Batch(put, tuple(drop), rotated)


def in_parts(memory: InstanceMemory) -> list[InstanceMemory]:
    """Cut a large memory so that no single write holds up the server; the last part carries the status."""
    parts = []
    clusters = dict(memory.clusters)
    while len(clusters) > MOST_CHANGES:
        parts.append(InstanceMemory(clusters={uid: clusters.pop(uid) for uid in list(clusters)[:MOST_CHANGES]}))
    return [*parts, replace(memory, clusters=clusters)]


def memory_arguments(memory: InstanceMemory, *, dropped: Collection[str] = ()) -> list[Any]:
    clusters = {**dict.fromkeys(dropped), **memory.clusters}
    return [*edits_of(clusters), *edits_of(memory.scopes), *edits_of(memory.issuers), memory.status]


def edits_of(edits: Mapping[str, bytes | None]) -> list[Any]:
    given = [(name, value) for name, value in edits.items() if value is not None]
    gone = [name for name, value in edits.items() if value is None]
    return [len(given), *(part for pair in given for part in pair), len(gone), *gone]


def uid_list(uids: Collection[str]) -> bytes:
    return orjson.dumps(sorted(uids))

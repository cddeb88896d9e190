"""What a publisher sends, cut into parts of bounded size: versions, and the documents without a version. No I/O."""

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
    """What one version changes. None in `rotated` removes the credential."""

    put: dict[str, bytes] = field(default_factory=dict)
    drop: tuple[str, ...] = ()
    rotated: Edits = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class UnversionedEdits:
    """What changes in the documents that have no version, encoded; an empty `status` keeps the present one.

    `memory` is by cluster uid (the key `work`), `scopes` by scope, `issuers` by URL.
    """

    memory: Edits = field(default_factory=dict)
    scopes: Edits = field(default_factory=dict)
    issuers: Edits = field(default_factory=dict)
    status: bytes = b""


def encode_unversioned(
    memory: Mapping[str, ClusterMemory | None],
    scopes: Mapping[str, ScopeStatus | None],
    issuers: Mapping[str, IssuerMetadata | None],
    status: Mapping[str, object],
) -> UnversionedEdits:
    """Raises DocumentError."""
    return UnversionedEdits(
        memory={uid: encode_memory(one) if one else None for uid, one in memory.items()},
        scopes={uid: encode_scope(one) if one else None for uid, one in scopes.items()},
        issuers={url: encode_issuer(one) if one else None for url, one in issuers.items()},
        status=encode_document("status", status) if status else b"",
    )


def split(wanted: Batch) -> Iterator[Batch]:
    """Cut a batch into versions. A cluster's record and credential stay in one version; drops come last."""
    put: dict[str, bytes] = {}
    drop: list[str] = []
    rotated: Edits = {}
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


def in_parts(edits: UnversionedEdits) -> list[UnversionedEdits]:
    """Cut large edits, so that no single write blocks the server for long; the last part carries the status."""
    parts = []
    memory = dict(edits.memory)
    while len(memory) > MOST_CHANGES:
        parts.append(UnversionedEdits(memory={uid: memory.pop(uid) for uid in list(memory)[:MOST_CHANGES]}))
    return [*parts, replace(edits, memory=memory)]


def unversioned_arguments(edits: UnversionedEdits, *, dropped: Collection[str] = ()) -> list[Any]:
    """Return the script's arguments for these edits; the memory of `dropped` clusters is deleted."""
    memory = {**dict.fromkeys(dropped), **edits.memory}
    return [*edit_arguments(memory), *edit_arguments(edits.scopes), *edit_arguments(edits.issuers), edits.status]


def edit_arguments(edits: Mapping[str, bytes | None]) -> list[Any]:
    """Return the script's arguments for the edits of one hash."""
    given = [(name, value) for name, value in edits.items() if value is not None]
    gone = [name for name, value in edits.items() if value is None]
    return [len(given), *(part for pair in given for part in pair), len(gone), *gone]


def uid_list(uids: Collection[str]) -> bytes:
    return orjson.dumps(sorted(uids))

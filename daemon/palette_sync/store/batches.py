"""What a publisher sends, cut into parts of bounded size: versions, and the documents without a version. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

import orjson

from palette_sync.core.documents import encode_document
from palette_sync.core.memory_codec import encode_issuer, encode_memory, encode_scope
from palette_sync.core.model import UID
from palette_sync.store.bounds import BOUNDS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from palette_sync.core.model import ClusterMemory, IssuerMetadata, ScopeStatus
    from palette_sync.store.signed_value import ValueSigner

T = TypeVar("T")

LARGEST_DOCUMENT = BOUNDS.document - 128  # bytes of JSON; leaves room for the mac
MOST_CHANGES = 500  # per version: put, drop and rotated together; 4 to 6 ms at the server

Edits = dict[str, bytes | None]  # None deletes the field


@dataclass(frozen=True, slots=True)
class Batch:
    """What one version changes. None in `rotated` removes the credential.

    `unseen` are the uids that stay unconfirmed although they are written: they come from memory, not from Palette.
    """

    put: dict[str, bytes] = field(default_factory=dict)
    drop: tuple[str, ...] = ()
    rotated: Edits = field(default_factory=dict, repr=False)
    unseen: frozenset[str] = frozenset()

    @property
    def confirmed(self) -> set[str]:
        """The uids that are confirmed by being written."""
        return (self.put.keys() | self.rotated.keys()) - self.unseen


@dataclass(frozen=True, slots=True)
class UnversionedEdits:
    """What changes in the documents that have no version, signed; an empty `status` keeps the present one.

    `memory` is by cluster uid (the key `work`), `scopes` by scope, `issuers` by URL.
    """

    memory: Edits = field(default_factory=dict)
    scopes: Edits = field(default_factory=dict)
    issuers: Edits = field(default_factory=dict)
    status: bytes = b""


def encode_unversioned(
    signer: ValueSigner,
    *,
    memory: Mapping[str, ClusterMemory | None] | None,
    scopes: Mapping[str, ScopeStatus | None] | None,
    issuers: Mapping[str, IssuerMetadata | None] | None,
    status: Mapping[str, object] | None,
) -> UnversionedEdits:
    """Encode and sign. A document that nobody would read, because it is too large, is removed instead.

    Raises DocumentError.
    """

    def edits(kind: str, documents: Mapping[str, T | None] | None, encode: Callable[[T], bytes]) -> Edits:
        found: Edits = {}
        for name, one in (documents or {}).items():
            content = None if one is None else encode(one)
            small = content is not None and len(content) <= LARGEST_DOCUMENT
            found[name] = signer.sign(kind, name, content) if content is not None and small else None
        return found

    text = signer.sign("status", "", encode_document("status", status)) if status else None
    return UnversionedEdits(
        memory=edits("work", memory, encode_memory),
        scopes=edits("scope", scopes, encode_scope),
        issuers=edits("issuer", issuers, encode_issuer),
        status=text or b"",
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
            yield Batch(put, tuple(drop), rotated, wanted.unseen)
            put, drop, rotated = {}, [], {}
        if uid in dropped:
            drop.append(uid)
            continue
        if uid in wanted.put:
            put[uid] = wanted.put[uid]
        if uid in wanted.rotated:
            rotated[uid] = wanted.rotated[uid]
    if put or drop or rotated:
        yield Batch(put, tuple(drop), rotated, wanted.unseen)


def in_parts(edits: UnversionedEdits) -> list[UnversionedEdits]:
    """Cut large edits, so that no single write blocks the server for long; the last part carries the status.

    With a version, a part stays below 4,000 arguments: Amazon ElastiCache Serverless refuses a command with more
    (docs.aws.amazon.com/AmazonElastiCache/latest/dg/RedisConfiguration.html).
    """
    parts = []
    memory, scopes = dict(edits.memory), dict(edits.scopes)
    while len(memory) > MOST_CHANGES:
        parts.append(UnversionedEdits(memory={uid: memory.pop(uid) for uid in list(memory)[:MOST_CHANGES]}))
    while len(scopes) > MOST_CHANGES:
        parts.append(UnversionedEdits(scopes={name: scopes.pop(name) for name in list(scopes)[:MOST_CHANGES]}))
    return [*parts, replace(edits, memory=memory, scopes=scopes)]


def unversioned_arguments(edits: UnversionedEdits, *, dropped: Collection[str] = ()) -> list[Any]:
    """Return the script's arguments for these edits; the memory of `dropped` clusters is deleted."""
    memory = {**dict.fromkeys(dropped), **edits.memory}
    return [*edit_arguments(memory), *edit_arguments(edits.scopes), *edit_arguments(edits.issuers), edits.status]


def edit_arguments(edits: Mapping[Any, bytes | None]) -> list[Any]:
    """Return the script's arguments for the edits of one hash."""
    given = [(name, value) for name, value in edits.items() if value is not None]
    gone = [name for name, value in edits.items() if value is None]
    return [len(given), *(part for pair in given for part in pair), len(gone), *gone]


def uid_list(uids: Collection[str]) -> bytes:
    """Return a list of the stream `changes`. A name that is no uid is left out: no reader ever accepted it."""
    return orjson.dumps(sorted(uid for uid in uids if UID.fullmatch(uid)))

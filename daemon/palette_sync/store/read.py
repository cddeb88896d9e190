"""Decodes what Redis holds, and decides whether a snapshot may be trusted.

A snapshot is trusted if its digest matches its records, its mac matches the head, and the head counts as many records
as there are. A single document that cannot be decoded is reported as a problem, by name; the others stay usable.

An instance is read whole before each listing, when almost nothing in it has changed. A document whose bytes hash as
they did last time is not decoded again: it stays the same object. Whether the snapshot is trusted is decided anew each
time. The event loop is released after every few hundred documents (`in_turns`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from palette_sync.core.documents import DocumentError, decode_object, encode_document
from palette_sync.core.memory_codec import decode_issuer, decode_memory, decode_scope
from palette_sync.core.model import InstanceState
from palette_sync.core.snapshot_codec import (
    UnknownSchemaError,
    decode_credential,
    decode_record,
    digest,
    head_from_fields,
    record_hash,
)
from palette_sync.events import in_turns
from palette_sync.store.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from palette_sync.core.model import ClusterRecord, Head
    from palette_sync.store.seal import Sealer

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Stored:
    """An instance's keys as Redis returned them in one transaction, named as the keys are."""

    head: Mapping[bytes, bytes] = field(default_factory=dict)
    clusters: Mapping[bytes, bytes] = field(default_factory=dict)
    credentials: Mapping[bytes, bytes] = field(default_factory=dict)
    work: Mapping[bytes, bytes] = field(default_factory=dict)
    scopes: Mapping[bytes, bytes] = field(default_factory=dict)
    issuers: Mapping[bytes, bytes] = field(default_factory=dict)
    status: bytes | None = None


@dataclass(frozen=True, slots=True)
class Loaded:
    """A decoded instance, and what a writer continues from.

    `version` is the head's text ("" = nothing is published). The hashes are of each document's bytes, by cluster uid.
    `unreadable` are the uids of records that cannot be decoded.
    """

    state: InstanceState
    version: str = ""
    record_hashes: Mapping[str, str] = field(default_factory=dict)
    unreadable: frozenset[str] = frozenset()
    credential_hashes: Mapping[str, str] = field(default_factory=dict)
    memory_hashes: Mapping[str, str] = field(default_factory=dict)


NOTHING = Loaded(InstanceState())


async def read(instance: str, stored: Stored, sealer: Sealer, *, last: Loaded = NOTHING) -> Loaded:
    """Decode and verify. `last` is the result of the previous read of this instance.

    Raises StoreError for a schema that this version does not know, or for fields that are not UTF-8.
    """
    try:
        return await _read(instance, stored, sealer, last)
    except UnknownSchemaError as error:
        raise StoreError(
            f"{instance} was published by another version of palette-sync ({error}); upgrade this one"
        ) from None
    except UnicodeDecodeError:
        raise StoreError(f"{instance} holds fields in Redis that are not UTF-8; another program wrote them") from None


async def _read(instance: str, stored: Stored, sealer: Sealer, last: Loaded) -> Loaded:
    problems: list[str] = []
    memory, memory_hashes = await _each(
        "work", stored.work, decode_memory, problems, last.state.memory, last.memory_hashes
    )
    scopes, _ = await _each("scope", stored.scopes, decode_scope, problems)
    issuers, _ = await _each("issuer", stored.issuers, decode_issuer, problems)
    status = _status(stored.status, problems)
    fields = _texts(stored.head)
    version = fields.get("version", "")
    if not version:
        # Records without a head are an incomplete write or remain after the head was evicted: the next version deletes
        # them.
        unpublished = InstanceState(
            memory=memory, scopes=scopes, issuers=issuers, status=status, problems=tuple(problems)
        )
        return Loaded(unpublished, memory_hashes=memory_hashes)
    raw = {uid.decode(): value for uid, value in stored.clusters.items()}
    hashes = {uid: record_hash(value) async for uid, value in in_turns(raw.items())}
    head, doubts = _head(instance, fields, hashes, sealer)
    records: dict[str, ClusterRecord] = {}
    async for uid, value in in_turns(raw.items()):
        known = last.state.records.get(uid)
        if known is not None and last.record_hashes.get(uid) == hashes[uid]:
            records[uid] = known
            continue
        try:
            records[uid] = decode_own(instance, uid, value)
        except DocumentError as error:
            problems.append(f"{uid}: {error}")
    credentials, credential_hashes = await _each(
        "credential", stored.credentials, decode_credential, problems, last.state.credentials, last.credential_hashes
    )
    state = InstanceState(
        head=head,
        trusted=not doubts,
        records=records,
        credentials=credentials,
        memory=memory,
        scopes=scopes,
        issuers=issuers,
        status=status,
        problems=(*doubts, *problems),
    )
    unreadable = frozenset(raw.keys() - records.keys())
    return Loaded(state, version, hashes, unreadable, credential_hashes, memory_hashes)


def _head(
    instance: str, fields: Mapping[str, str], hashes: Mapping[str, str], sealer: Sealer
) -> tuple[Head | None, list[str]]:
    try:
        head = head_from_fields(fields)
    except UnknownSchemaError:
        raise
    except DocumentError as error:
        return None, [str(error)]
    doubts = []
    if head.clusters != len(hashes):
        doubts.append(
            f"the head counts {head.clusters} clusters, but {len(hashes)} are there: evicted or tampered with"
        )
    if head.digest != digest(hashes):
        doubts.append("the digest does not match the records")
    if not sealer.mac_matches(instance, head.epoch, head.version, head.digest, head.mac):
        doubts.append("the mac does not match: written without one of the configured seal keys")
    return head, doubts


def decode_own(instance: str, uid: str, raw: bytes) -> ClusterRecord:
    """Decode the record stored under `uid`, which must be about that cluster. Raises DocumentError."""
    record = decode_record(raw)
    if record.uid != uid or record.instance != instance:
        raise DocumentError("cluster record", "uid", "belongs to another cluster")
    return record


async def _each(
    what: str,
    members: Mapping[bytes, bytes],
    decode: Callable[[bytes], T],
    problems: list[str],
    last: Mapping[str, T] = MappingProxyType({}),
    last_hashes: Mapping[str, str] = MappingProxyType({}),
) -> tuple[dict[str, T], dict[str, str]]:
    """Decode every member that has changed since `last`; return all that can be decoded, and the hashes of all."""
    found: dict[str, T] = {}
    hashes: dict[str, str] = {}
    async for key, raw in in_turns(members.items()):
        name = key.decode()
        hashes[name] = record_hash(raw)
        known = last.get(name)
        if known is not None and last_hashes.get(name) == hashes[name]:
            found[name] = known
            continue
        try:
            found[name] = decode(raw)
        except DocumentError as error:
            problems.append(f"{what} of {name[:100]}: {error}")
    return found, hashes


def _status(raw: bytes | None, problems: list[str]) -> dict[str, Any]:
    if raw is None:
        return {}
    try:
        document = decode_object("status", raw)
        encode_document("status", document)  # a deeply nested document can be read, but not written again
    except DocumentError as error:
        problems.append(str(error))
        return {}
    return document


def _texts(members: Mapping[bytes, bytes]) -> dict[str, str]:
    return {key.decode(): value.decode() for key, value in members.items()}

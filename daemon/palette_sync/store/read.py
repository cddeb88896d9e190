"""Decodes what Redis holds, and decides whether a snapshot may be trusted.

A snapshot is trusted if both digests match its records and credentials, its mac matches the head, and the head counts
as many records as there are. A single document that cannot be decoded is reported as a problem, by name; the others
stay usable. A document without a version that is not authentic counts as absent.

An instance is read whole before each listing, when almost nothing in it has changed. A document whose bytes hash as
they did last time is neither verified nor decoded again: it stays the same object. Whether the snapshot is trusted is
decided anew each time. The event loop is released after every few hundred documents (`in_turns`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from palette_sync.core.documents import DocumentError, decode_object, encode_document, format_time
from palette_sync.core.mac_texts import check_text
from palette_sync.core.memory_codec import decode_issuer, decode_memory, decode_scope
from palette_sync.core.model import UID, InstanceState
from palette_sync.core.snapshot_codec import (
    UnknownSchemaError,
    decode_credential,
    decode_record,
    digest,
    head_from_fields,
    record_hash,
    text_of_version,
)
from palette_sync.events import in_turns
from palette_sync.store.bounds import BOUNDS
from palette_sync.store.errors import StoreError
from palette_sync.store.signed_value import ValueSigner

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from datetime import datetime

    from palette_sync.core.model import ClusterRecord, Head
    from palette_sync.store.bounds import Bounds
    from palette_sync.store.seal import Sealer

T = TypeVar("T")

CLOCKS_DIFFER = timedelta(minutes=5)  # a check may lie this far in the future
HASHES = ("clusters", "credentials", "work", "scopes", "issuers")


@dataclass(frozen=True, slots=True)
class Stored:
    """An instance's keys as Redis returned them in one transaction, named as the keys are.

    `refused` are the keys that hold more than is read, with the reason; they are empty here.
    """

    head: Mapping[bytes, bytes] = field(default_factory=dict)
    clusters: Mapping[bytes, bytes] = field(default_factory=dict)
    credentials: Mapping[bytes, bytes] = field(default_factory=dict)
    work: Mapping[bytes, bytes] = field(default_factory=dict)
    scopes: Mapping[bytes, bytes] = field(default_factory=dict)
    issuers: Mapping[bytes, bytes] = field(default_factory=dict)
    status: bytes | None = None
    refused: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Intruders:
    """Fields of the snapshot that no palette-sync wrote: their names are no uids, or their values are too large."""

    clusters: tuple[bytes, ...] = ()
    credentials: tuple[bytes, ...] = ()


NO_INTRUDERS = Intruders()


@dataclass(frozen=True, slots=True)
class Loaded:
    """A decoded instance, and what a writer continues from.

    `version` is the head's text ("" = nothing is published). The hashes are of each document's bytes, by cluster uid.
    `unreadable` are the uids of records that cannot be decoded. `unauthentic` counts, by key, the documents without a
    version that count as absent. `older_macs`: some of them were signed with a former seal key.
    """

    state: InstanceState
    version: str = ""
    record_hashes: Mapping[str, str] = field(default_factory=dict)
    unreadable: frozenset[str] = frozenset()
    credential_hashes: Mapping[str, str] = field(default_factory=dict)
    memory_hashes: Mapping[str, str] = field(default_factory=dict)
    intruders: Intruders = NO_INTRUDERS
    refused: frozenset[str] = frozenset()
    unauthentic: Mapping[str, int] = field(default_factory=dict)
    older_macs: bool = False


NOTHING = Loaded(InstanceState())


async def read(
    prefix: str,
    instance: str,
    stored: Stored,
    sealer: Sealer,
    *,
    now: datetime,
    last: Loaded = NOTHING,
    bounds: Bounds = BOUNDS,
) -> Loaded:
    """Decode and verify. `last` is the result of the previous read of this instance with the same seal keys.

    Raises StoreError for a schema that this version does not know, or for a head that is not UTF-8.
    """
    try:
        return await _Reading(prefix, instance, stored, sealer, now, last, bounds).run()
    except UnknownSchemaError as error:
        raise StoreError(
            f"{instance} was published by another version of palette-sync ({error}); upgrade this one"
        ) from None
    except UnicodeDecodeError:
        raise StoreError(f"{instance} holds fields in Redis that are not UTF-8; another program wrote them") from None


async def read_changed(
    prefix: str, instance: str, stored: Stored, touched: Collection[str], sealer: Sealer, *, now: datetime, last: Loaded
) -> Loaded | None:
    """Apply to `last` what versions changed that came after it, and verify the whole.

    `stored` holds the new head, and of the clusters that were `touched` what there is of them; they are uids. Returns
    None if everything must be read again: something in it cannot be verified or decoded. Raises as `read`.
    """
    return await _Reading(prefix, instance, stored, sealer, now, last, BOUNDS).run_on(touched)


class _Reading:
    def __init__(
        self,
        prefix: str,
        instance: str,
        stored: Stored,
        sealer: Sealer,
        now: datetime,
        last: Loaded,
        bounds: Bounds,
    ) -> None:
        self._prefix = prefix
        self._instance = instance
        self._stored = stored
        self._sealer = sealer
        self._now = now
        self._last = last
        self._bounds = bounds
        self._signer = ValueSigner(sealer, prefix, instance)
        self._problems: list[str] = []
        self._unauthentic: dict[str, int] = {}

    async def run(self) -> Loaded:
        stored, last = self._stored, self._last
        memory, memory_hashes = await self._unversioned(
            "work", "work", stored.work, decode_memory, last.state.memory, last.memory_hashes
        )
        scopes, _ = await self._unversioned("scopes", "scope", stored.scopes, decode_scope)
        issuers, _ = await self._unversioned("issuers", "issuer", stored.issuers, decode_issuer)
        found = Loaded(
            InstanceState(memory=memory, scopes=scopes, issuers=issuers, status=self._status()),
            memory_hashes=memory_hashes,
            refused=frozenset(stored.refused),
            older_macs=last.older_macs or self._signer.met_older_key,
        )
        fields = {key.decode(): value.decode() for key, value in stored.head.items()}
        if fields.get("version"):
            found = await self._snapshot(found, fields)
        # Without a head, records are an incomplete write or remain after the head was evicted: the next version
        # deletes them.
        problems = (*found.state.problems, *self._problems, *stored.refused.values())
        state = replace(found.state, problems=problems)
        return replace(found, state=state, unauthentic=self._unauthentic)

    async def run_on(self, touched: Collection[str]) -> Loaded | None:
        stored, last = self._stored, self._last
        fields = {key.decode(): value.decode() for key, value in stored.head.items()}
        raw, aliens = _own_fields(stored.clusters, most=self._bounds.record)
        raw_credentials, more_aliens = _own_fields(stored.credentials, most=self._bounds.document)
        hashes = _changed(last.record_hashes, touched, {uid: record_hash(one) for uid, one in raw.items()})
        credential_hashes = _changed(
            last.credential_hashes, touched, {uid: record_hash(one) for uid, one in raw_credentials.items()}
        )
        head, doubts = self._head(fields, hashes, credential_hashes)
        if doubts or aliens or more_aliens or head is None:
            return None
        memory, memory_hashes = await self._unversioned("work", "work", stored.work, decode_memory)
        try:
            records = {uid: decode_own(self._instance, uid, one) for uid, one in raw.items()}
            credentials = {uid: decode_credential(one) for uid, one in raw_credentials.items()}
        except DocumentError:
            return None
        if self._problems:
            return None
        state = replace(
            last.state,
            head=head,
            records=_changed(last.state.records, touched, records),
            credentials=_changed(last.state.credentials, touched, credentials),
            memory=_changed(last.state.memory, touched, memory),
        )
        return replace(
            last,
            state=state,
            version=fields["version"],
            record_hashes=hashes,
            credential_hashes=credential_hashes,
            memory_hashes=_changed(last.memory_hashes, touched, memory_hashes),
            older_macs=last.older_macs or self._signer.met_older_key,
        )

    async def _snapshot(self, found: Loaded, fields: Mapping[str, str]) -> Loaded:
        stored, last, bounds = self._stored, self._last, self._bounds
        raw, alien_clusters = _own_fields(stored.clusters, most=bounds.record)
        raw_credentials, alien_credentials = _own_fields(stored.credentials, most=bounds.document)
        hashes = {uid: record_hash(value) async for uid, value in in_turns(raw.items())}
        credential_hashes = {uid: record_hash(value) async for uid, value in in_turns(raw_credentials.items())}
        head, doubts = self._head(fields, hashes, credential_hashes)
        if alien_clusters or alien_credentials:
            doubts.append("fields whose name is no uid, or whose value is too large: another program wrote them")
        doubts += [f"{key} cannot be verified" for key in ("clusters", "credentials") if key in stored.refused]
        records = await self._decoded(
            "", raw, hashes, lambda uid, value: decode_own(self._instance, uid, value), last.state.records,
            last.record_hashes,
        )  # fmt: skip
        credentials = await self._decoded(
            "credential of ", raw_credentials, credential_hashes, lambda _, value: decode_credential(value),
            last.state.credentials, last.credential_hashes,
        )  # fmt: skip
        return replace(
            found,
            state=replace(
                found.state,
                head=head,
                trusted=not doubts,
                records=records,
                credentials=credentials,
                problems=tuple(doubts),
            ),
            version=fields["version"],
            record_hashes=hashes,
            unreadable=frozenset(raw.keys() - records.keys()),
            credential_hashes=credential_hashes,
            intruders=Intruders(alien_clusters, alien_credentials),
        )

    def _head(
        self, fields: Mapping[str, str], hashes: Mapping[str, str], credential_hashes: Mapping[str, str]
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
        if head.credentials_digest != digest(credential_hashes):
            doubts.append("the digest of credentials does not match the credentials")
        if not credential_hashes.keys() <= hashes.keys():
            doubts.append("there are credentials without a record")
        if not self._sealer.mac_matches(text_of_version(self._prefix, self._instance, head), head.mac):
            doubts.append("the mac does not match: written without one of the configured seal keys")
        return (head if self._checked(head) else replace(head, checked_at=None)), doubts

    def _checked(self, head: Head) -> bool:
        """Whether the head's `checked_at` is authentic, and not later than our clock allows."""
        if head.checked_at is None or head.checked_at > self._now + CLOCKS_DIFFER:
            return False
        moment = format_time(head.checked_at)
        text = check_text(self._prefix, self._instance, epoch=head.epoch, version=head.version, checked_at=moment)
        return self._sealer.mac_matches(text, head.checked_mac)

    async def _decoded(
        self,
        what: str,
        members: Mapping[str, bytes],
        hashes: Mapping[str, str],
        decode: Callable[[str, bytes], T],
        last: Mapping[str, T],
        last_hashes: Mapping[str, str],
    ) -> dict[str, T]:
        """Decode every member that has changed since `last`; return all that can be decoded."""
        found: dict[str, T] = {}
        async for uid, value in in_turns(members.items()):
            known = last.get(uid)
            if known is not None and last_hashes.get(uid) == hashes[uid]:
                found[uid] = known
                continue
            try:
                found[uid] = decode(uid, value)
            except DocumentError as error:
                self._problems.append(f"{what}{uid}: {error}")
        return found

    async def _unversioned(
        self,
        key: str,
        kind: str,
        members: Mapping[bytes, bytes],
        decode: Callable[[bytes], T],
        last: Mapping[str, T] = MappingProxyType({}),
        last_hashes: Mapping[str, str] = MappingProxyType({}),
    ) -> tuple[dict[str, T], dict[str, str]]:
        """Verify and decode every member that has changed since `last`; return all that are good, and their hashes."""
        found: dict[str, T] = {}
        hashes: dict[str, str] = {}
        unauthentic = 0
        async for field_name, value in in_turns(members.items()):
            name = field_name.decode(errors="replace")
            value_hash = record_hash(value)
            known = last.get(name)
            if known is not None and last_hashes.get(name) == value_hash:
                found[name], hashes[name] = known, value_hash
                continue
            small = len(value) <= self._bounds.document
            content = self._signer.verified(kind, name, value) if small else None
            if content is None:
                unauthentic += 1
                continue
            try:
                found[name], hashes[name] = decode(content), value_hash
            except DocumentError as error:
                self._problems.append(f"{kind} of {name[:100]}: {error}")
        self._count_unauthentic(key, unauthentic)
        return found, hashes

    def _status(self) -> dict[str, Any]:
        value = self._stored.status
        if value is None:
            return {}
        content = self._signer.verified("status", "", value)
        if content is None:
            self._count_unauthentic("status", 1)
            return {}
        try:
            document = decode_object("status", content)
            encode_document("status", document)  # a deeply nested document can be read, but not written again
        except DocumentError as error:
            self._problems.append(str(error))
            return {}
        return document

    def _count_unauthentic(self, key: str, number: int) -> None:
        if number:
            self._unauthentic[key] = number
            self._problems.append(f"{key}: {number} documents are not authentic and count as absent")


def _changed(before: Mapping[str, T], touched: Collection[str], now: Mapping[str, T]) -> dict[str, T]:
    """`before` with what is there `now` of the uids that were touched; what is not there is gone."""
    found = dict(before)
    for uid in touched:
        found.pop(uid, None)
    found.update(now)
    return found


def decode_own(instance: str, uid: str, raw: bytes) -> ClusterRecord:
    """Decode the record stored under `uid`, which must be about that cluster. Raises DocumentError."""
    record = decode_record(raw)
    if record.uid != uid or record.instance != instance:
        raise DocumentError("cluster record", "uid", "belongs to another cluster")
    return record


def _own_fields(members: Mapping[bytes, bytes], *, most: int) -> tuple[dict[str, bytes], tuple[bytes, ...]]:
    """Return the fields that may be ours by uid, and the names of the others."""
    found: dict[str, bytes] = {}
    others = []
    for name, value in members.items():
        uid = name.decode("ascii", errors="replace")
        if UID.fullmatch(uid) and len(value) <= most:
            found[uid] = value
        else:
            others.append(name)
    return found, tuple(others)

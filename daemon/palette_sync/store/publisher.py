"""The one writer of an instance's snapshot: it finds out what differs from what is published, and writes only that.

A publisher belongs to one lease (its epoch). It knows the hash of each published record, so the cost of publishing
depends on what changed, not on how much is published.

If the snapshot that it found failed verification, the publisher trusts none of its records. Its versions carry no mac,
so that readers keep their last good snapshot, until every record has been published anew. When a pass closes, the
records that were not are stripped of everything that a reader would act on.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from palette_sync.core.documents import DocumentError
from palette_sync.core.model import Access, AccessState, Credential, SealedCredential
from palette_sync.core.reasons import Reason
from palette_sync.core.snapshot_codec import (
    decode_credential,
    encode_credential,
    encode_record,
    record_hash,
    sealed_for,
)
from palette_sync.store.batches import Batch, UnversionedEdits, encode_unversioned, in_parts, split
from palette_sync.store.bounds import BOUNDS
from palette_sync.store.read import decode_own
from palette_sync.store.seal import SealError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime

    from palette_sync.core.model import (
        ClusterMemory,
        ClusterRecord,
        InstanceState,
        IssuerMetadata,
        ScopeStatus,
    )
    from palette_sync.store.fenced_writer import FencedWriter
    from palette_sync.store.seal import Sealer


class Publisher:
    """Writes one instance. Made by `Store.publisher`. Concurrent calls are carried out one after the other."""

    def __init__(self, writer: FencedWriter, sealer: Sealer) -> None:
        self._writer = writer
        self._sealer = sealer
        self._turn = asyncio.Lock()

    @property
    def version(self) -> int:
        """The version last published or found; 0 before the first."""
        return self._writer.version

    @property
    def state(self) -> InstanceState:
        """What the store holds: as it was found, with all that this publisher has written since."""
        return self._writer.state

    @property
    def prefix(self) -> str:
        return self._writer.prefix

    @property
    def epoch(self) -> int:
        return self._writer.epoch

    @property
    def older_macs(self) -> bool:
        """Whether documents without a version were found that a former seal key signed."""
        return self._writer.older_macs

    @property
    def uncertain(self) -> bool:
        """Whether a version was sent, and nobody knows whether it has arrived. The next call finds out."""
        return self._writer.uncertain

    def unconfirmed_of(self, uids: Collection[str]) -> set[str]:
        """Those of `uids` whose records are not confirmed in this life."""
        return self._writer.life.unconfirmed(uids)

    def listing_tried(self, seen: Collection[str]) -> None:
        """A listing of Palette was tried in this life, and it showed these clusters: their records are confirmed."""
        self._writer.life.listed = True
        self._writer.life.confirm(seen)

    async def publish(
        self,
        *,
        now: datetime,
        put: Mapping[str, ClusterRecord] | None = None,
        drop: Collection[str] = (),
        rotated: Mapping[str, Credential | None] | None = None,
        complete: bool | None = None,
        memory: Mapping[str, ClusterMemory | None] | None = None,
        scopes: Mapping[str, ScopeStatus | None] | None = None,
        issuers: Mapping[str, IssuerMetadata | None] | None = None,
        status: Mapping[str, object] | None = None,
        unseen: Collection[str] = (),
        anew: bool = False,
    ) -> int:
        """Publish what differs from what is published, and return the version in force afterwards.

        None in `rotated` removes a cluster's credential; None in `memory`, `scopes` and `issuers` removes the entry; an
        empty `status` keeps the present one. More than `MOST_CHANGES` changes become several versions, drops last. If
        nothing changed there is no new version: only `checked_at` and the documents without a version are written. A
        call with a `status` or with `complete` closes a pass. `unseen` stay unconfirmed although they are written.
        `anew` writes a version even if nothing changed.
        After StoreUnavailable the same call may be repeated: it publishes once.

        Raises StoreUnavailable, Fenced, VersionConflict, StoreError, DocumentError; ValueError for a record of another
        instance, a credential without a record, or a cluster both put and dropped.
        """
        async with self._turn:
            await self._writer.settle()
            await self._writer.announce()
            wanted = await self._difference(put or {}, drop, rotated or {}, frozenset(unseen), now)
            closing = bool(status) or complete is not None
            if closing:
                wanted = await self._withdraw_unverified(wanted, now)
            edits = encode_unversioned(
                self._writer.signer, memory=memory, scopes=scopes, issuers=issuers, status=status
            )
            await self._write(wanted, edits, complete=complete, now=now, closing=closing, anew=anew)
            return self.version

    async def write_unversioned(
        self,
        *,
        now: datetime,
        memory: Mapping[str, ClusterMemory | None] | None = None,
        scopes: Mapping[str, ScopeStatus | None] | None = None,
        issuers: Mapping[str, IssuerMetadata | None] | None = None,
        status: Mapping[str, object] | None = None,
    ) -> None:
        """Move `checked_at` and write documents without a version, through the same fence. Raises as `publish` does."""
        async with self._turn:
            await self._writer.settle()
            edits = encode_unversioned(
                self._writer.signer, memory=memory, scopes=scopes, issuers=issuers, status=status
            )
            for part in in_parts(edits):
                await self._writer.write_unversioned(part, now)

    async def _difference(
        self,
        put: Mapping[str, ClusterRecord],
        drop: Collection[str],
        rotated: Mapping[str, Credential | None],
        unseen: frozenset[str],
        now: datetime,
    ) -> Batch:
        """Encode what is wanted, and leave out what is published already."""
        self._check(put, drop, rotated)
        position, gone = self._writer.position, set(drop)
        raw: dict[str, bytes] = {}
        wanted: dict[str, ClusterRecord] = {}
        for uid, record in put.items():
            wanted[uid], raw[uid] = _encoded(record, now)
        same = {uid for uid, value in raw.items() if position.hashes.get(uid) == record_hash(value)}
        rotations = dict(rotated)
        # A credential that stands beside an unverified record, or beside none, may come from anybody.
        doubtful = (position.strays | (position.unverified & put.keys())) - rotated.keys() - gone
        rotations.update(dict.fromkeys(doubtful & position.credential_hashes.keys()))
        rotations.update(await self._moved({uid: wanted[uid] for uid in wanted.keys() - same - rotations.keys()}))
        self._writer.vouch_for(same)
        self._writer.life.confirm(same - unseen)
        return Batch(
            put={uid: value for uid, value in raw.items() if uid not in same},
            drop=tuple(uid for uid in sorted(gone) if uid in position.hashes),
            rotated=await self._rotations(rotations, wanted),
            unseen=unseen,
        )

    async def _moved(self, put: Mapping[str, ClusterRecord]) -> dict[str, Credential | None]:
        """Return the published tokens of clusters whose server changes: they are sealed again, for the new one.

        None for a token that does not open: readers could not open it either.
        """
        mirror, hashes = self._writer.mirror, self._writer.position.credential_hashes
        before = {
            uid: former
            for uid, record in put.items()
            if uid in hashes and (former := mirror.record(uid)) is not None and former.server != record.server
        }
        found: dict[str, Credential | None] = {}
        for uid, raw in (await self._writer.credentials(list(before))).items():
            found[uid] = None
            with suppress(DocumentError, SealError):
                one = decode_credential(raw or b"")
                token = self._sealer.open(sealed_for(self.prefix, before[uid], one), one.sealed)
                found[uid] = Credential(token, one.issued_at, one.renew_at, one.expires_at)
        return found

    def _check(
        self, put: Mapping[str, ClusterRecord], drop: Collection[str], rotated: Mapping[str, Credential | None]
    ) -> None:
        for uid, record in put.items():
            if record.uid != uid or record.instance != self._writer.instance:
                raise ValueError(f"the record under {uid} belongs to {record.instance}/{record.uid}")
        both = put.keys() & set(drop)
        if both:
            raise ValueError(f"both put and dropped: {', '.join(sorted(both))}")
        known = (self._writer.position.hashes.keys() | put.keys()) - set(drop)
        orphaned = {uid for uid, credential in rotated.items() if credential is not None} - known
        if orphaned:
            raise ValueError(f"credentials without a record: {', '.join(sorted(orphaned))}")

    async def _rotations(
        self, rotated: Mapping[str, Credential | None], put: Mapping[str, ClusterRecord]
    ) -> dict[str, bytes | None]:
        published = await self._writer.credentials(list(rotated))
        changes: dict[str, bytes | None] = {}
        for uid, credential in rotated.items():
            if credential is None:
                if published[uid] is not None:
                    changes[uid] = None
                continue
            record = put.get(uid) or self._writer.mirror.record(uid)
            if record is None:  # its record cannot be decoded, so nothing can be sealed for it
                continue
            if not self._is_published(record, published[uid], credential):
                sealed = self._sealer.seal(sealed_for(self.prefix, record, credential), credential.token)
                changes[uid] = encode_credential(
                    SealedCredential(credential.issued_at, credential.renew_at, credential.expires_at, sealed)
                )
        return changes

    def _is_published(self, record: ClusterRecord, raw: bytes | None, credential: Credential) -> bool:
        """Whether `raw` is this credential, sealed with the present key. Sealing it again would give other bytes."""
        if raw is None:
            return False
        try:
            stored = decode_credential(raw)
            if not self._sealer.current(stored.sealed):
                return False
            times = (stored.issued_at, stored.renew_at, stored.expires_at)
            if times != (credential.issued_at, credential.renew_at, credential.expires_at):
                return False
            return self._sealer.open(sealed_for(self.prefix, record, stored), stored.sealed) == credential.token
        except (DocumentError, SealError):
            return False

    async def _withdraw_unverified(self, wanted: Batch, now: datetime) -> Batch:
        """Take server, auth and credential from records that are still unverified; drop what cannot be decoded."""
        left = sorted(self._writer.position.unverified - wanted.put.keys() - set(wanted.drop))
        found = await self._writer.records(left)
        put, drop, rotated = dict(wanted.put), list(wanted.drop), dict(wanted.rotated)
        for uid, raw in found.items():
            try:
                record = decode_own(self._writer.instance, uid, raw or b"")
            except DocumentError:
                drop.append(uid)
                continue
            put[uid] = encode_record(_without_access(record, now))
            rotated[uid] = None
        return replace(wanted, put=put, drop=tuple(drop), rotated=rotated)

    async def _write(
        self, wanted: Batch, edits: UnversionedEdits, *, complete: bool | None, now: datetime, closing: bool, anew: bool
    ) -> None:
        position = self._writer.position
        batches = list(split(wanted))
        completeness_changes = complete is not None and complete != position.complete
        needs_mac = not position.signed and not position.unverified
        begins = complete is False and not position.version
        confirms = closing and bool(position.unconfirmed - self._writer.unconfirmed())
        if not batches and (anew or completeness_changes or needs_mac or begins or confirms):
            batches = [Batch()]
        *parts, rest = in_parts(edits)
        for part in parts:
            await self._writer.write_unversioned(part, now)
        if not batches:
            await self._writer.write_unversioned(rest, now)
        for number, batch in enumerate(batches, start=1):
            last = number == len(batches)
            await self._writer.write_version(
                batch, rest if last else UnversionedEdits(), complete=complete if last else None, now=now
            )


def _encoded(record: ClusterRecord, now: datetime) -> tuple[ClusterRecord, bytes]:
    """Encode a record. One that would be larger than readers accept is published without its server."""
    raw = encode_record(record)
    if len(raw) <= BOUNDS.record:
        return record, raw
    message = f"its CA or its labels are too large to be published (at most {BOUNDS.record // 1024} KiB for a cluster)"
    short = replace(
        record,
        server=None,
        auth=None,
        access=Access(AccessState.FAILED, Reason.KUBECONFIG_TOO_LARGE, message, now.replace(microsecond=0)),
    )
    return short, encode_record(short)


def _without_access(record: ClusterRecord, now: datetime) -> ClusterRecord:
    message = "what was published before did not verify; access is given anew"
    access = Access(AccessState.FAILED, Reason.SNAPSHOT_REFUSED, message, now)
    return replace(record, server=None, auth=None, access=access, pause=None)

"""The one writer of an instance's snapshot: what changed becomes a version, whole or not at all.

A publisher belongs to one lease (its epoch). It knows the hash of each published record, so that publishing costs what
changed and not what is there. Whether a write arrived when the connection broke is found out before the next one,
never guessed.

After a snapshot that could not be trusted, nothing of it is vouched for unseen: versions carry no mac (readers stay
with their last good snapshot) until every record was published anew or, when a pass closes, stripped of what a reader
would act on.
"""

from __future__ import annotations

import asyncio
import zlib
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import orjson

from palette_sync.core.documents import DocumentError, format_time
from palette_sync.core.model import SCHEMA, Access, AccessState, Head, SealedCredential
from palette_sync.core.reasons import Reason
from palette_sync.core.snapshot_codec import (
    decode_credential,
    digest,
    encode_credential,
    encode_record,
    record_hash,
    record_in_history,
)
from palette_sync.store.batches import (
    MOST_CHANGES,
    Batch,
    InstanceMemory,
    edits_of,
    in_parts,
    memory_arguments,
    memory_of,
    split,
    uid_list,
)
from palette_sync.store.errors import Fenced, StoreError, StoreUnavailable, VersionConflict
from palette_sync.store.mirror import Mirror
from palette_sync.store.read import decode_own
from palette_sync.store.seal import SealError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime

    from palette_sync.core.model import (
        ClusterMemory,
        ClusterRecord,
        Credential,
        InstanceState,
        IssuerMetadata,
        ScopeStatus,
    )
    from palette_sync.store.connect import Link
    from palette_sync.store.keys import Keys
    from palette_sync.store.read import Loaded
    from palette_sync.store.scripts import Script
    from palette_sync.store.seal import Sealer

CHANGES_LENGTH = 10_000
LONGEST_VERSION = 16  # digits; a longer one was not written by a publisher
DISTRUSTED = Reason.SNAPSHOT_REFUSED


@dataclass(frozen=True, slots=True)
class _Step:
    """What holds once a version has arrived."""

    version: str
    digest: str
    hashes: dict[str, str]
    tainted: frozenset[str]
    signed: bool
    complete: bool


@dataclass(frozen=True, slots=True)
class _Version:
    """A version on its way: where it leads, and what it writes."""

    step: _Step
    head: Head
    batch: Batch
    memory: InstanceMemory


class Publisher:
    """Writes one instance. Made by `Store.publisher`; one call at a time has its turn, the others wait."""

    def __init__(
        self,
        link: Link,
        keys: Keys,
        script: Script,
        sealer: Sealer,
        loaded: Loaded,
        *,
        instance: str,
        epoch: int,
        writer: str,
        history: int,
    ) -> None:
        self._link = link
        self._script = script
        self._sealer = sealer
        self._keys = keys
        self._instance = instance
        self._epoch = epoch
        self._writer = writer
        self._history = history
        self._turn = asyncio.Lock()
        self._announced = False
        self._unsure: _Version | None = None
        head, state = loaded.state.head, loaded.state
        self._mirror = Mirror(state, published=bool(loaded.version))
        self._at = _Step(
            version=loaded.version,
            digest=head.digest if head else "",
            hashes=dict(loaded.hashes),
            tainted=frozenset(loaded.hashes) if not state.trusted else loaded.unreadable,
            signed=state.trusted and (head is None or head.mac == self._mac(head.epoch, head.version, head.digest)),
            complete=bool(head and head.complete),
        )

    @property
    def version(self) -> int:
        """The version last published or found; 0 before the first."""
        known = self._at.version
        return int(known) if known.isascii() and known.isdecimal() and len(known) < LONGEST_VERSION else 0

    @property
    def state(self) -> InstanceState:
        """What the store holds: as it was found, with all that this publisher has written since."""
        return self._mirror.state

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
    ) -> int:
        """Publish what differs from what is published, and return the version in force afterwards.

        `rotated` None removes a cluster's credential, None in the memory's mappings removes the entry; an empty
        `status` leaves it. More than `MOST_CHANGES` become several versions; drops come last. Nothing changed = no new
        version: only `checked_at` and the memory move. A call with a `status` or with `complete` closes a pass. Calling
        again with the same arguments after StoreUnavailable publishes once.

        Raises StoreUnavailable, Fenced, VersionConflict, StoreError, DocumentError; ValueError for a record of another
        instance, a credential without a record, or a cluster both put and dropped.
        """
        async with self._turn:
            await self._settle()
            await self._announce()
            wanted = await self._wanted(put or {}, drop, rotated or {})
            if status or complete is not None:
                wanted = await self._disown(wanted, now)
            remembered = memory_of(memory or {}, scopes or {}, issuers or {}, status or {})
            await self._write(wanted, remembered, complete=complete, now=now)
            return self.version

    async def remember(
        self,
        *,
        now: datetime,
        memory: Mapping[str, ClusterMemory | None] | None = None,
        scopes: Mapping[str, ScopeStatus | None] | None = None,
        issuers: Mapping[str, IssuerMetadata | None] | None = None,
        status: Mapping[str, object] | None = None,
    ) -> None:
        """Move `checked_at` and the memory through the same fence, without a version. Raises as `publish` does."""
        async with self._turn:
            await self._settle()
            for part in in_parts(memory_of(memory or {}, scopes or {}, issuers or {}, status or {})):
                await self._send_memory(part, now)

    # -- what is wanted ---------------------------------------------------------------------------------------------

    async def _wanted(
        self, put: Mapping[str, ClusterRecord], drop: Collection[str], rotated: Mapping[str, Credential | None]
    ) -> Batch:
        """Encode, and leave out what is published already."""
        self._check(put, drop, rotated)
        raw = {uid: encode_record(record) for uid, record in put.items()}
        same = {uid for uid, value in raw.items() if self._at.hashes.get(uid) == record_hash(value)}
        # Bytes that this publisher wrote itself, or would write now, need no distrust.
        self._at = replace(self._at, tainted=self._at.tainted - same)
        return Batch(
            put={uid: value for uid, value in raw.items() if uid not in same},
            drop=tuple(uid for uid in sorted(set(drop)) if uid in self._at.hashes),
            rotated=await self._rotations(rotated),
        )

    def _check(
        self, put: Mapping[str, ClusterRecord], drop: Collection[str], rotated: Mapping[str, Credential | None]
    ) -> None:
        for uid, record in put.items():
            if record.uid != uid or record.instance != self._instance:
                raise ValueError(f"the record under {uid} belongs to {record.instance}/{record.uid}")
        both = put.keys() & set(drop)
        if both:
            raise ValueError(f"both put and dropped: {', '.join(sorted(both))}")
        known = (self._at.hashes.keys() | put.keys()) - set(drop)
        orphaned = {uid for uid, credential in rotated.items() if credential is not None} - known
        if orphaned:
            raise ValueError(f"credentials without a record: {', '.join(sorted(orphaned))}")

    async def _rotations(self, rotated: Mapping[str, Credential | None]) -> dict[str, bytes | None]:
        before = await self._fetch(self._keys.credentials(self._instance), list(rotated))
        changes: dict[str, bytes | None] = {}
        for uid, credential in rotated.items():
            if credential is None:
                if before[uid] is not None:
                    changes[uid] = None
            elif not self._holds(uid, before[uid], credential):
                sealed = self._sealer.seal(self._instance, uid, credential.token)
                changes[uid] = encode_credential(
                    SealedCredential(credential.issued_at, credential.renew_at, credential.expires_at, sealed)
                )
        return changes

    def _holds(self, uid: str, raw: bytes | None, credential: Credential) -> bool:
        """Whether the published credential is this one, under the present key. Sealing anew gives other bytes."""
        if raw is None:
            return False
        try:
            stored = decode_credential(raw)
            if not self._sealer.current(stored.sealed):
                return False
            times = (stored.issued_at, stored.renew_at, stored.expires_at)
            if times != (credential.issued_at, credential.renew_at, credential.expires_at):
                return False
            return self._sealer.open(self._instance, uid, stored.sealed) == credential.token
        except (DocumentError, SealError):
            return False

    async def _disown(self, wanted: Batch, now: datetime) -> Batch:
        """Strip what is still not vouched for of server, auth and credential; drop what cannot be read."""
        left = sorted(self._at.tainted - wanted.put.keys() - set(wanted.drop))
        found = await self._fetch(self._keys.clusters(self._instance), left)
        put, drop, rotated = dict(wanted.put), list(wanted.drop), dict(wanted.rotated)
        for uid, raw in found.items():
            try:
                record = decode_own(self._instance, uid, raw or b"")
            except DocumentError:
                drop.append(uid)
                continue
            put[uid] = encode_record(_disowned(record, now))
            rotated[uid] = None
        return Batch(put, tuple(drop), rotated)

    # -- writing ----------------------------------------------------------------------------------------------------

    async def _write(self, wanted: Batch, memory: InstanceMemory, *, complete: bool | None, now: datetime) -> None:
        batches = list(split(wanted))
        moved = complete is not None and complete != self._at.complete
        resigned = not self._at.signed and not self._at.tainted
        if not batches and (moved or resigned):
            batches = [Batch()]
        *parts, rest = in_parts(memory)
        for part in parts:
            await self._send_memory(part, now)
        if not batches:
            await self._send_memory(rest, now)
        for position, batch in enumerate(batches, start=1):
            last = position == len(batches)
            await self._send_version(
                batch, rest if last else InstanceMemory(), complete=complete if last else None, now=now
            )

    async def _send_version(
        self, batch: Batch, memory: InstanceMemory, *, complete: bool | None, now: datetime
    ) -> None:
        was = await self._was(batch, now)
        hashes = self._at.hashes | {uid: record_hash(raw) for uid, raw in batch.put.items()}
        for uid in batch.drop:
            hashes.pop(uid, None)
        tainted = self._at.tainted - batch.put.keys() - set(batch.drop)
        version, fingerprint = self.version + 1, digest(hashes)
        mac = "" if tainted else self._mac(self._epoch, version, fingerprint)
        arguments: list[Any] = [
            *self._fence(now), "version", SCHEMA, version, fingerprint, mac,
            "" if complete is None else int(complete), self._writer, CHANGES_LENGTH, self._history,
            uid_list(batch.put), uid_list(batch.drop), uid_list(batch.rotated), was,
            *edits_of({**batch.put, **dict.fromkeys(batch.drop)}),
            *edits_of({**batch.rotated, **dict.fromkeys(batch.drop)}),
            *memory_arguments(memory, dropped=batch.drop),
        ]  # fmt: skip
        stands = self._at.complete if complete is None else complete
        stamp = now.replace(microsecond=0)
        head = Head(
            schema=SCHEMA,
            epoch=self._epoch,
            version=version,
            digest=fingerprint,
            mac=mac,
            clusters=len(hashes),
            complete=stands,
            changed_at=stamp,
            checked_at=stamp,
            writer=self._writer,
        )
        step = _Step(str(version), fingerprint, hashes, tainted, signed=not tainted, complete=stands)
        await self._send(arguments, _Version(step, head, batch, memory))

    async def _send_memory(self, memory: InstanceMemory, now: datetime) -> None:
        await self._send([*self._fence(now), "memory", *memory_arguments(memory)], None)
        self._mirror.memory(memory, now.replace(microsecond=0))

    def _mac(self, epoch: int, version: int, fingerprint: str) -> str:
        return self._sealer.mac(self._instance, epoch, version, fingerprint)

    def _fence(self, now: datetime) -> tuple[object, ...]:
        return self._epoch, self._at.version, len(self._at.hashes), format_time(now)

    async def _send(self, arguments: list[Any], version: _Version | None) -> None:
        """Run the script; while Redis is away try again, which the expected version makes safe."""
        names = self._keys
        keys = [
            name(self._instance)
            for name in (
                names.head, names.clusters, names.credentials, names.changes, names.history,
                names.work, names.scopes, names.issuers, names.status, names.epoch,
            )
        ]  # fmt: skip
        what = f"publish {self._instance}"
        self._unsure = version
        try:
            word, detail = await self._link.run(what, lambda: self._script(self._link.client, keys, arguments))
        except StoreUnavailable:
            raise  # it may have arrived: `_settle` finds out
        except StoreError:
            self._unsure = None
            raise
        if word == b"CONFLICT" and version is not None and await self._settle():
            return
        self._unsure = None
        self._obey(word.decode(), detail.decode())
        if version is not None:
            self._arrived(version)

    def _arrived(self, version: _Version) -> None:
        self._at = version.step
        self._mirror.version(version.head, version.batch, version.memory, signed=version.step.signed)

    def _obey(self, word: str, detail: str) -> None:
        if word == "FENCED":
            raise Fenced(
                f"{self._instance}: another writer is at work since epoch {detail}; this one has {self._epoch}"
            )
        if word == "CONFLICT":
            raise VersionConflict(
                f"{self._instance}: version {detail or 'none'} or its records in Redis are not those that this writer "
                f"knows ({self._at.version or 'none'}): somebody else has written"
            )
        if word == "WRONGTYPE":
            raise StoreError(f"the Redis key {detail} holds another kind of value; somebody else uses this prefix")

    async def _settle(self) -> bool:
        """Find out whether a version whose answer was lost has arrived. Returns True if it has.

        The digest does not cover credentials, so an earlier attempt that arrives late could pass for this one by its
        head; but no two seals of a token are the same.
        """
        if self._unsure is None:
            return False
        names, rotated = self._keys, self._unsure.batch.rotated

        async def look() -> Any:
            pipe = self._link.client.pipeline(transaction=True)
            pipe.execute_command("HMGET", names.head(self._instance), "epoch", "version", "digest")
            pipe.execute_command("GET", names.epoch(self._instance))
            if rotated:
                pipe.execute_command("HMGET", names.credentials(self._instance), *rotated)
            return await pipe.execute()

        head, epoch, *credentials = await self._link.run(f"read {self._instance}", look)
        sent, self._unsure = self._unsure, None
        step, ours = sent.step, str(self._epoch).encode()
        there = not rotated or credentials == [list(rotated.values())]
        if there and head == [ours, step.version.encode(), step.digest.encode()] and epoch == ours:
            self._arrived(sent)
            return True
        return False

    async def _announce(self) -> None:
        """Name the instance in the set of instances before its first version."""
        if not self._announced:
            key = self._keys.instances
            what = f"announce {self._instance}"
            await self._link.run(what, lambda: self._link.client.execute_command("SADD", key, self._instance))
            self._announced = True

    async def _was(self, batch: Batch, now: datetime) -> bytes:
        """Return the history's entry: the records before, null where there was none."""
        touched = [*batch.put, *batch.drop]
        if not touched or not self._history:
            return b""
        before = await self._fetch(self._keys.clusters(self._instance), touched)
        was = {}
        for uid, raw in before.items():
            if (record_hash(raw) if raw is not None else None) != self._at.hashes.get(uid):
                await self._send_memory(InstanceMemory(), now)  # a writer that was fenced off learns that, not this
                raise VersionConflict(f"{self._instance}: the record of {uid} in Redis was changed by somebody else")
            was[uid] = record_in_history(raw) if raw is not None else None
        return zlib.compress(orjson.dumps(was, option=orjson.OPT_SORT_KEYS))

    async def _fetch(self, key: str, fields: list[str]) -> dict[str, bytes | None]:
        """Read some fields of a hash. Without a head nothing counts: the next version clears what lies there."""
        if not self._at.version:
            return dict.fromkeys(fields)
        found: dict[str, bytes | None] = {}
        for start in range(0, len(fields), MOST_CHANGES):
            part = fields[start : start + MOST_CHANGES]
            command = partial(self._link.client.execute_command, "HMGET", key, *part)
            found.update(zip(part, await self._link.run(f"read {self._instance}", command), strict=True))
        return found


def _disowned(record: ClusterRecord, now: datetime) -> ClusterRecord:
    message = "what was published before did not verify; access is given anew"
    return replace(record, server=None, auth=None, access=Access(AccessState.FAILED, DISTRUSTED, message, now))

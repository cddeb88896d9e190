"""Writes of one lease holder to one instance, each of them whole or not at all, and only while its epoch is in force.

Every write is one Lua script (`publish.lua`), which refuses a writer whose epoch has been replaced or who expects
another version. Where the connection breaks, the next call reads Redis to learn whether the write arrived.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import orjson

from palette_sync.core.documents import format_time
from palette_sync.core.model import SCHEMA, Head
from palette_sync.core.snapshot_codec import digest, record_hash, record_in_history
from palette_sync.store.batches import (
    MOST_CHANGES,
    Batch,
    UnversionedEdits,
    edit_arguments,
    uid_list,
    unversioned_arguments,
)
from palette_sync.store.errors import Fenced, StoreError, StoreUnavailable, VersionConflict
from palette_sync.store.mirror import Mirror
from palette_sync.store.scripts import Script

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from palette_sync.core.model import InstanceState
    from palette_sync.store.connect import Link
    from palette_sync.store.keys import Keys
    from palette_sync.store.read import Loaded
    from palette_sync.store.seal import Sealer

CHANGES_LENGTH = 10_000
LONGEST_VERSION = 16  # digits; no publisher writes a longer one

_PUBLISH_SCRIPT = Script.load("publish.lua")


@dataclass(frozen=True, slots=True)
class Position:
    """The snapshot in Redis as this writer left or found it.

    `version` is the head's text ("" = nothing published), `hashes` are the hashes of the records' bytes. `unverified`
    are the uids of records that cannot be decoded, or that were found in a snapshot that failed verification; while
    there are any, versions carry no mac. `signed`: the head carries the mac that this writer would write.
    """

    version: str
    digest: str
    hashes: dict[str, str]
    unverified: frozenset[str]
    signed: bool
    complete: bool


@dataclass(frozen=True, slots=True)
class _Version:
    """A version that is being written: the position that it leads to, and what it contains."""

    position: Position
    head: Head
    batch: Batch
    edits: UnversionedEdits


class FencedWriter:
    """Writes one instance under one epoch. The caller makes one call at a time."""

    def __init__(
        self,
        link: Link,
        keys: Keys,
        sealer: Sealer,
        loaded: Loaded,
        *,
        instance: str,
        epoch: int,
        writer: str,
        history: int,
    ) -> None:
        self.instance = instance
        self._link = link
        self._keys = keys
        self._sealer = sealer
        self.epoch = epoch
        self._writer = writer
        self._history = history
        self._announced = False
        self._uncertain: _Version | None = None  # sent, but no answer came
        head, state = loaded.state.head, loaded.state
        self._mirror = Mirror(state, published=bool(loaded.version))
        self.position = Position(
            version=loaded.version,
            digest=head.digest if head else "",
            hashes=dict(loaded.record_hashes),
            unverified=frozenset(loaded.record_hashes) if not state.trusted else loaded.unreadable,
            signed=state.trusted and (head is None or head.mac == self._mac(head.epoch, head.version, head.digest)),
            complete=bool(head and head.complete),
        )

    @property
    def version(self) -> int:
        """The version last written or found; 0 before the first."""
        text = self.position.version
        return int(text) if text.isascii() and text.isdecimal() and len(text) < LONGEST_VERSION else 0

    @property
    def state(self) -> InstanceState:
        """What the store holds: as it was found, with all that was written since."""
        return self._mirror.state

    def vouch_for(self, uids: Collection[str]) -> None:
        """Accept records whose bytes are those that this writer would write."""
        self.position = replace(self.position, unverified=self.position.unverified - set(uids))

    async def announce(self) -> None:
        """Add the instance to the set of instances, once, before its first version."""
        if not self._announced:
            await self._link.command(f"announce {self.instance}", "SADD", self._keys.instances, self.instance)
            self._announced = True

    async def records(self, uids: list[str]) -> dict[str, bytes | None]:
        """Read the published records of some clusters, as bytes."""
        return await self._fetch(self._keys.clusters(self.instance), uids)

    async def credentials(self, uids: list[str]) -> dict[str, bytes | None]:
        """Read the published credentials of some clusters, as bytes."""
        return await self._fetch(self._keys.credentials(self.instance), uids)

    async def write_version(
        self, batch: Batch, edits: UnversionedEdits, *, complete: bool | None, now: datetime
    ) -> None:
        """Write the next version. `complete` None keeps the present value."""
        was = await self._history_entry(batch, now)
        hashes = self.position.hashes | {uid: record_hash(raw) for uid, raw in batch.put.items()}
        for uid in batch.drop:
            hashes.pop(uid, None)
        unverified = self.position.unverified - batch.put.keys() - set(batch.drop)
        version, fingerprint = self.version + 1, digest(hashes)
        mac = "" if unverified else self._mac(self.epoch, version, fingerprint)
        arguments: list[Any] = [
            *self._fence(now), "version", SCHEMA, version, fingerprint, mac,
            "" if complete is None else int(complete), self._writer, CHANGES_LENGTH, self._history,
            uid_list(batch.put), uid_list(batch.drop), uid_list(batch.rotated), was,
            *edit_arguments({**batch.put, **dict.fromkeys(batch.drop)}),
            *edit_arguments({**batch.rotated, **dict.fromkeys(batch.drop)}),
            *unversioned_arguments(edits, dropped=batch.drop),
        ]  # fmt: skip
        in_force = self.position.complete if complete is None else complete
        stamp = now.replace(microsecond=0)
        head = Head(
            schema=SCHEMA,
            epoch=self.epoch,
            version=version,
            digest=fingerprint,
            mac=mac,
            clusters=len(hashes),
            complete=in_force,
            changed_at=stamp,
            checked_at=stamp,
            writer=self._writer,
        )
        position = Position(
            str(version), fingerprint, hashes, unverified=unverified, signed=not unverified, complete=in_force
        )
        await self._send(arguments, _Version(position, head, batch, edits))

    async def write_unversioned(self, edits: UnversionedEdits, now: datetime) -> None:
        """Write documents without a version, and move the head's `checked_at`."""
        await self._send([*self._fence(now), "unversioned", *unversioned_arguments(edits)], None)
        self._mirror.apply_unversioned(edits, now.replace(microsecond=0))

    async def settle(self) -> bool:
        """Find out whether a version whose answer was lost has arrived. Returns True if it has.

        The digest does not cover credentials, so the head alone cannot tell this write from an earlier attempt that
        arrived late. The sealed tokens can: no two seals of a token are the same.
        """
        if self._uncertain is None:
            return False
        names, rotated = self._keys, self._uncertain.batch.rotated

        async def read() -> Any:
            pipe = self._link.client.pipeline(transaction=True)
            pipe.execute_command("HMGET", names.head(self.instance), "epoch", "version", "digest")
            pipe.execute_command("GET", names.epoch(self.instance))
            if rotated:
                pipe.execute_command("HMGET", names.credentials(self.instance), *rotated)
            return await pipe.execute()

        head, epoch, *credentials = await self._link.run(f"read {self.instance}", read)
        sent, self._uncertain = self._uncertain, None
        position, own_epoch = sent.position, str(self.epoch).encode()
        sealed_match = not rotated or credentials == [list(rotated.values())]
        written = [own_epoch, position.version.encode(), position.digest.encode()]
        if sealed_match and head == written and epoch == own_epoch:
            self._arrived(sent)
            return True
        return False

    def _mac(self, epoch: int, version: int, fingerprint: str) -> str:
        return self._sealer.mac(self.instance, epoch, version, fingerprint)

    def _fence(self, now: datetime) -> tuple[object, ...]:
        return self.epoch, self.position.version, len(self.position.hashes), format_time(now)

    async def _send(self, arguments: list[Any], version: _Version | None) -> None:
        """Run the script. It is repeated while Redis is unavailable; the expected version makes that safe."""
        names = self._keys
        keys = [
            name(self.instance)
            for name in (
                names.head, names.clusters, names.credentials, names.changes, names.history,
                names.work, names.scopes, names.issuers, names.status, names.epoch,
            )
        ]  # fmt: skip
        self._uncertain = version
        try:
            word, detail = await self._link.run(
                f"publish {self.instance}", lambda: _PUBLISH_SCRIPT(self._link.client, keys, arguments)
            )
        except StoreUnavailable:
            raise  # it may have arrived: `settle` finds out
        except StoreError:
            self._uncertain = None
            raise
        if word == b"CONFLICT" and version is not None and await self.settle():
            return
        self._uncertain = None
        self._raise_refusal(word.decode(), detail.decode())
        if version is not None:
            self._arrived(version)

    def _arrived(self, version: _Version) -> None:
        self.position = version.position
        self._mirror.apply_version(version.head, version.batch, version.edits, signed=version.position.signed)

    def _raise_refusal(self, word: str, detail: str) -> None:
        if word == "FENCED":
            raise Fenced(f"{self.instance}: another writer is at work since epoch {detail}; this one has {self.epoch}")
        if word == "CONFLICT":
            raise VersionConflict(
                f"{self.instance}: Redis holds version {detail or 'none'}, this writer expects "
                f"{self.position.version or 'none'} and the records that it wrote: somebody else has written"
            )
        if word == "WRONGTYPE":
            raise StoreError(f"the Redis key {detail} holds another kind of value; another program uses this prefix")

    async def _history_entry(self, batch: Batch, now: datetime) -> bytes:
        """Return the former records for the history, zlib JSON; null for a cluster that had none."""
        touched = [*batch.put, *batch.drop]
        if not touched or not self._history:
            return b""
        former = await self.records(touched)
        was = {}
        for uid, raw in former.items():
            if (record_hash(raw) if raw is not None else None) != self.position.hashes.get(uid):
                await self.write_unversioned(UnversionedEdits(), now)  # raises Fenced if that is the cause
                raise VersionConflict(f"{self.instance}: the record of {uid} in Redis was changed by somebody else")
            was[uid] = record_in_history(raw) if raw is not None else None
        return zlib.compress(orjson.dumps(was, option=orjson.OPT_SORT_KEYS))

    async def _fetch(self, key: str, fields: list[str]) -> dict[str, bytes | None]:
        """Read fields of a hash. Without a head they count as absent: the first version deletes what is there."""
        if not self.position.version:
            return dict.fromkeys(fields)
        found: dict[str, bytes | None] = {}
        for start in range(0, len(fields), MOST_CHANGES):
            part = fields[start : start + MOST_CHANGES]
            command = partial(self._link.client.execute_command, "HMGET", key, *part)
            found.update(zip(part, await self._link.run(f"read {self.instance}", command), strict=True))
        return found

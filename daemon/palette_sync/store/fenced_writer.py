"""Writes of one lease holder to one instance, each of them whole or not at all, and only while its epoch is in force.

Every write is one Lua script (`publish.lua`), which refuses a writer whose epoch has been replaced or who expects
another version. Where the connection breaks, the next call reads Redis to learn whether the write arrived.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import orjson

from palette_sync.core.documents import format_time
from palette_sync.core.mac_texts import check_text, history_text
from palette_sync.core.model import SCHEMA, Head
from palette_sync.core.snapshot_codec import (
    digest,
    encode_unconfirmed,
    record_hash,
    record_in_history,
    text_of_version,
)
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
from palette_sync.store.position import Position, edited, with_deletions
from palette_sync.store.scripts import Script
from palette_sync.store.signed_value import ValueSigner

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from palette_sync.core.model import InstanceState
    from palette_sync.store.connect import Link
    from palette_sync.store.keys import Keys
    from palette_sync.store.life import Life
    from palette_sync.store.read import Loaded
    from palette_sync.store.seal import Sealer

CHANGES_LENGTH = 10_000
LONGEST_VERSION = 14  # digits of a version that is counted on from; a reader accepts 15

_VERSIONED = frozenset({"clusters", "credentials"})  # keys that only a version changes
_SETTLING = ("epoch", "version", "digest", "credentials_digest", "mac")

_PUBLISH_SCRIPT = Script.load("publish.lua")


@dataclass(frozen=True, slots=True)
class _Version:
    """A version that is being written: the position that it leads to, what it contains, and the script's arguments."""

    position: Position
    head: Head
    batch: Batch
    edits: UnversionedEdits
    arguments: list[Any] = field(repr=False)


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
        life: Life,
    ) -> None:
        self.instance = instance
        self.prefix = keys.prefix
        self._link = link
        self._keys = keys
        self._sealer = sealer
        self.signer = ValueSigner(sealer, keys.prefix, instance)
        self.epoch = epoch
        self.life = life
        self._writer = writer
        self._history = history
        self._announced = False
        self._uncertain: _Version | None = None  # sent, but no answer came
        head, state = loaded.state.head, loaded.state
        self.mirror = Mirror(state, published=bool(loaded.version))
        self.older_macs = loaded.older_macs
        self.position = Position(
            version=loaded.version,
            digest=head.digest if head and state.trusted else "",
            credentials_digest=head.credentials_digest if head and state.trusted else "",
            hashes=dict(loaded.record_hashes),
            credential_hashes=dict(loaded.credential_hashes),
            unverified=frozenset(loaded.record_hashes) if not state.trusted else loaded.unreadable,
            signed=state.trusted and (head is None or head.mac == sealer.mac(self._text(head))),
            complete=bool(head and head.complete),
            unconfirmed=frozenset(head.unconfirmed if head else ()),
            intruders=loaded.intruders,
            refused=loaded.refused,
        )

    @property
    def version(self) -> int:
        """The version last written or found; 0 before the first."""
        text = self.position.version
        return int(text) if text.isascii() and text.isdecimal() and len(text) <= LONGEST_VERSION else 0

    @property
    def state(self) -> InstanceState:
        """What the store holds: as it was found, with all that was written since."""
        return self.mirror.state

    def unconfirmed(self) -> set[str]:
        """The uids of published records that are not confirmed in this life."""
        return self.life.unconfirmed(self.position.hashes)

    def vouch_for(self, uids: Collection[str]) -> None:
        """Accept records whose bytes are those that this writer would write."""
        self.position = replace(self.position, unverified=self.position.unverified - set(uids))

    async def announce(self) -> None:
        """Add the instance to the set of instances, once, before its first version."""
        if self._announced:
            return
        try:
            await self._link.command(f"announce {self.instance}", "SADD", self._keys.instances, self.instance)
        except StoreUnavailable:
            if not (self._link.clustered and self.position.version):
                raise
            return  # the server of the set is away; the writer of the present version announced it
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
        before = self.position
        hashes = edited(before.hashes, batch.put, batch.drop)
        credential_hashes = edited(before.credential_hashes, batch.rotated, batch.drop)
        unverified = before.unverified - batch.put.keys() - set(batch.drop)
        stamp = now.replace(microsecond=0)
        head = Head(
            schema=SCHEMA,
            epoch=self.epoch,
            version=self.version + 1,
            digest=digest(hashes) if batch.put or batch.drop or not before.digest else before.digest,
            credentials_digest=(
                digest(credential_hashes)
                if batch.rotated or batch.drop or not before.credentials_digest
                else before.credentials_digest
            ),
            mac="",
            clusters=len(hashes),
            complete=before.complete if complete is None else complete,
            changed_at=stamp,
            checked_at=stamp,
            checked_mac="",
            writer=self._writer,
            unconfirmed=tuple(sorted(self.life.unconfirmed(hashes.keys()) - batch.confirmed)),
        )
        signed = not (unverified or credential_hashes.keys() - hashes.keys())
        if not signed and self._sealer.authenticates:
            head = replace(head, checked_at=None)  # no reader accepts it without a mac
        if signed:
            head = replace(head, mac=self._sealer.mac(self._text(head)), checked_mac=self._check_mac(head, now))
        was_mac = self._sealer.mac(history_text(self.prefix, self.instance, head.version, was)) if was else ""
        arguments: list[Any] = [
            *self._fence(now), "version", SCHEMA, head.version, head.digest, head.credentials_digest, head.mac,
            head.clusters, int(head.complete), encode_unconfirmed(head.unconfirmed), head.checked_mac, self._writer,
            CHANGES_LENGTH, self._history,
            uid_list(batch.put), uid_list(batch.drop), uid_list(batch.rotated), was, was_mac,
            *edit_arguments(with_deletions(batch.put, batch.drop, before.intruders.clusters)),
            *edit_arguments(with_deletions(batch.rotated, batch.drop, before.intruders.credentials)),
            *unversioned_arguments(edits, dropped=batch.drop),
        ]  # fmt: skip
        position = Position(
            version=str(head.version),
            digest=head.digest,
            credentials_digest=head.credentials_digest,
            hashes=hashes,
            credential_hashes=credential_hashes,
            unverified=unverified,
            signed=signed,
            complete=head.complete,
            unconfirmed=frozenset(head.unconfirmed),
        )
        await self._send(arguments, _Version(position, head, batch, edits, arguments))

    async def write_unversioned(self, edits: UnversionedEdits, now: datetime) -> None:
        """Write documents without a version, and move the head's `checked_at`.

        It stays where it is while the snapshot does not verify, and until a listing was tried in this life: until then
        nobody knows whether the snapshot is the newest.
        """
        head = self.mirror.head
        moves = head is not None and self.mirror.trusted and self.life.listed
        mac = self._check_mac(head, now) if moves and head is not None else ""
        await self._send(
            [*self._fence(now, unversioned=True), "unversioned", int(moves), mac, *unversioned_arguments(edits)], None
        )
        self.position = replace(self.position, refused=self.position.refused & _VERSIONED)
        self.mirror.apply_unversioned(edits, checked_at=now.replace(microsecond=0) if moves else None, checked_mac=mac)

    @property
    def uncertain(self) -> bool:
        """Whether a version was sent, and nobody knows whether it has arrived."""
        return self._uncertain is not None

    async def settle(self) -> None:
        """Make a version arrive whose answer was lost.

        Readers may have seen it, even if Redis holds it no longer, so its number must not get another content: if it
        has not arrived, the same content is sent again. Raises as `write_version`.
        """
        sent = self._uncertain
        if sent is None:
            return
        if await self._has_arrived(sent):
            self._uncertain = None
            self._arrived(sent)
        else:
            await self._send(sent.arguments, sent)

    async def _has_arrived(self, sent: _Version) -> bool:
        """The head tells this write from any other: no two seals of a token are the same, and it holds both digests."""
        found, epoch = await self._link.transaction(
            f"read {self.instance}",
            ("HMGET", self._keys.head(self.instance), *_SETTLING),
            ("GET", self._keys.epoch(self.instance)),
        )
        head = sent.head
        expected = (self.epoch, head.version, head.digest, head.credentials_digest, head.mac)
        return bool(found == [str(one).encode() for one in expected] and epoch == str(self.epoch).encode())

    def _text(self, head: Head) -> str:
        return text_of_version(self.prefix, self.instance, head)

    def _check_mac(self, head: Head, now: datetime) -> str:
        moment = format_time(now)
        return self._sealer.mac(
            check_text(self.prefix, self.instance, epoch=head.epoch, version=head.version, checked_at=moment)
        )

    def _fence(self, now: datetime, *, unversioned: bool = False) -> tuple[object, ...]:
        """What every write begins with. A key that is refused has any number of fields."""
        position = self.position
        refused = position.refused - _VERSIONED if unversioned else position.refused
        return (
            self.epoch, position.version, *position.fields, format_time(now), " ".join(sorted(refused)),
        )  # fmt: skip

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
        arrived = word == b"CONFLICT" and version is not None and await self._has_arrived(version)
        self._uncertain = None
        if not arrived:
            self._raise_refusal(word.decode(), detail.decode())
        if version is not None:
            self._arrived(version)

    def _arrived(self, version: _Version) -> None:
        self.position = version.position
        self.life.confirm(version.batch.confirmed)
        self.life.forget(version.batch.drop)
        self.mirror.apply_version(version.head, version.batch, version.edits, signed=version.position.signed)

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
        found: dict[str, bytes | None] = dict.fromkeys(fields)
        ours = self.position.readable(key.rpartition(":")[2], fields)
        for start in range(0, len(ours), MOST_CHANGES):
            part = ours[start : start + MOST_CHANGES]
            command = partial(self._link.client.execute_command, "HMGET", key, *part)
            found.update(zip(part, await self._link.run(f"read {self.instance}", command), strict=True))
        return found

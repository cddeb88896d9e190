"""The store as the rest of the project sees it: read an instance, and open its one writer."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

import orjson

from palette_sync.core.documents import DocumentError
from palette_sync.core.model import ClusterKey
from palette_sync.core.snapshot_codec import HEAD_FIELDS, UnknownSchemaError, head_from_fields, text_of_version
from palette_sync.events import in_turns
from palette_sync.store.bounds import BOUNDS, INSTANCE
from palette_sync.store.connect import Link, Tls, parse_url
from palette_sync.store.errors import (
    Fenced,
    LeaseHeld,
    LeaseLost,
    StoreError,
    StoreTooMuch,
    StoreUnavailable,
    VersionConflict,
)
from palette_sync.store.keys import TYPES, Keys
from palette_sync.store.life import Life
from palette_sync.store.names import NameClaims
from palette_sync.store.owner import OwnerBook, place_of
from palette_sync.store.read import HASHES, NOTHING, Loaded, Stored, read, read_changed
from palette_sync.store.touched import touched_since

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from palette_sync.core.model import InstanceState
    from palette_sync.store.bounds import Bounds
    from palette_sync.store.owner import Owner
    from palette_sync.store.publisher import Publisher
    from palette_sync.store.seal import Sealer

__all__ = [
    "Fenced",
    "LeaseHeld",
    "LeaseLost",
    "Store",
    "StoreError",
    "StoreTooMuch",
    "StoreUnavailable",
    "VersionConflict",
]


def _logger() -> Any:
    import structlog  # noqa: PLC0415 - commands that only look log nothing, and start sooner without it

    return structlog.get_logger(__name__)


class Store:
    """One Redis under one prefix. Opening it does not connect; leaving `async with` closes its connections.

    `link` and `keys` are for `Lease`, `control` and `server`; `claims` are those of names.
    """

    def __init__(
        self,
        link: Link,
        *,
        prefix: str,
        sealer: Sealer,
        history: int,
        place: str = "",
        bounds: Bounds = BOUNDS,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.keys = Keys(prefix)
        self.link = link
        self._owner = OwnerBook(link, self.keys, place)
        self.claims = NameClaims(link, self.keys)
        self._sealer = sealer
        self._history = history
        self._bounds = bounds
        self._clock = clock
        self._last: dict[str, Loaded] = {}
        self._written: set[str] = set()  # the instances that this process has opened a writer for
        self._said: set[tuple[str, str]] = set()

    @classmethod
    def open(
        cls,
        url: str,
        *,
        prefix: str,
        sealer: Sealer,
        history: int = 500,
        ca_file: Path | None = None,
        cert_file: Path | None = None,
        key_file: Path | None = None,
        connect_timeout: float = 5.0,
        timeout: float = 10.0,
        bounds: Bounds = BOUNDS,
    ) -> Store:
        """Parse the URL and load TLS files, without connecting. Raises StoreMisconfigured.

        `history`: how many former versions stay readable, 0 = none. Timeouts are in seconds.
        """
        tls = Tls(ca_file, cert_file, key_file)
        link = Link(parse_url(url), tls=tls, connect_timeout=connect_timeout, timeout=timeout, most=bounds.reply)
        return cls(link, prefix=prefix, sealer=sealer, history=history, place=place_of(url), bounds=bounds)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self.link.close()

    async def ping(self) -> None:
        """Raises StoreUnavailable, StoreError."""
        await self.link.command("ping", "PING")

    async def instances(self) -> set[str]:
        """Return the names of all instances that were ever published under this prefix. Names of others are left out.

        Raises as `ping`, and StoreTooMuch where there are more names than palette-sync reads.
        """
        key = self.keys.instances
        number = await self.link.command("list", "SCARD", key)
        if number > self._bounds.instances:
            raise StoreTooMuch(
                f"{key} in Redis holds {number} names, and at most {self._bounds.instances} are read; somebody else "
                f"writes to Redis. Delete the key: each daemon adds its instances again"
            )
        names = await self.link.command("list", "SMEMBERS", key)
        return {text for name in names if INSTANCE.fullmatch(text := name.decode("ascii", errors="replace"))}

    async def forget(self, instance: str) -> None:
        """Delete all keys of an instance, and its name. The caller holds its lease. Raises as `ping`."""
        await self.link.command(f"forget {instance}", "DEL", *(self.keys.of(instance, what) for what in TYPES))
        await self.link.command(f"forget {instance}", "SREM", self.keys.instances, instance)
        self._last.pop(instance, None)

    async def load(self, instance: str) -> InstanceState:
        """Return everything that the store holds about an instance, verified. Raises StoreUnavailable, StoreError."""
        return (await self.read(instance)).state

    async def read(self, instance: str) -> Loaded:
        """Like `load`, with what a writer continues from."""
        stored = await self._stored(instance)
        last = self._last.get(instance, NOTHING)
        loaded = await read(
            self.keys.prefix, instance, stored, self._sealer, now=self._clock(), last=last, bounds=self._bounds
        )
        self._last[instance] = loaded
        for what, number in loaded.unauthentic.items():
            key = self.keys.of(instance, what)
            if self._is_new("not_authentic", key):
                log = _logger()
                log.warning("not_authentic", key=key, reason=f"{number} documents; they count as absent")
        for what, reason in stored.refused.items():
            self._say_too_much(self.keys.of(instance, what), reason)
        return loaded

    async def read_on(self, instance: str) -> InstanceState:
        """Like `load`, and cheaper if this process has read the instance before: only what changed since is read.

        Documents without a version are as they were at the last `load`, except the daemon's memory of the clusters that
        changed. Raises StoreUnavailable, StoreError.
        """
        last = self._last.get(instance, NOTHING)
        touched = await touched_since(self.link, self.keys, instance, last)
        if touched is None:
            return await self.load(instance)
        stored = await self._read_clusters(instance, sorted(touched))
        found = await read_changed(
            self.keys.prefix, instance, stored, touched, self._sealer, now=self._clock(), last=last
        )
        if found is None:
            return await self.load(instance)
        self._last[instance] = found
        return found.state

    async def _read_clusters(self, instance: str, uids: Sequence[str]) -> Stored:
        """Read the head, and everything about some clusters, in one transaction."""

        async def read_some() -> Any:
            pipe = self.link.client.pipeline(transaction=True)
            pipe.execute_command("HMGET", self.keys.head(instance), *HEAD_FIELDS)
            for what in ("clusters", "credentials", "work"):
                pipe.execute_command("HMGET", self.keys.of(instance, what), *uids)
            return await pipe.execute()

        head, *found = await self.link.run(f"read {instance}", read_some)
        fields = {name.encode(): one for name, one in zip(HEAD_FIELDS, head, strict=True) if one is not None}
        clusters, credentials, work = (
            {uid.encode(): one for uid, one in zip(uids, values, strict=True) if one is not None} for values in found
        )
        return Stored(head=fields, clusters=clusters, credentials=credentials, work=work)

    async def _stored(self, instance: str) -> Stored:
        """Read all keys of an instance in one transaction, except those that hold more than is read."""
        refused = await self._beyond(instance)
        try:
            return await self._read_keys(instance, refused)
        except StoreTooMuch:
            # Together they are too much, or one value is. Each key by itself shows which.
            for what in HASHES:
                if what not in refused:
                    try:
                        await self.link.command(f"read {instance}", "HGETALL", self.keys.of(instance, what))
                    except StoreTooMuch:
                        refused[what] = f"{what} holds more than {self._bounds.reply} bytes, which is not read"
            return await self._read_keys(instance, refused)

    async def _beyond(self, instance: str) -> dict[str, str]:
        """Look before reading: the keys that hold more than is read, with the reason."""

        async def look() -> Any:
            pipe = self.link.client.pipeline(transaction=False)
            for what in HASHES:
                pipe.execute_command("HLEN", self.keys.of(instance, what))
            pipe.execute_command("STRLEN", self.keys.status(instance))
            return await pipe.execute()

        *lengths, size = await self.link.run(f"read {instance}", look)
        most = self._bounds.fields
        found = {
            what: f"{what} holds {length} fields, and at most {most} are read"
            for what, length in zip(HASHES, lengths, strict=True)
            if length > most
        }
        if size > self._bounds.status:
            found["status"] = f"status holds {size} bytes, and at most {self._bounds.status} are read"
        return found

    async def _read_keys(self, instance: str, refused: Mapping[str, str]) -> Stored:
        async def read_all() -> Any:
            pipe = self.link.client.pipeline(transaction=True)
            pipe.execute_command("HMGET", self.keys.head(instance), *HEAD_FIELDS)
            for what in wanted:
                pipe.execute_command("HGETALL", self.keys.of(instance, what))
            if "status" not in refused:
                pipe.execute_command("GET", self.keys.status(instance))
            return await pipe.execute()

        wanted = [what for what in HASHES if what not in refused]
        head, *found = await self.link.run(f"read {instance}", read_all)
        status = found.pop() if "status" not in refused else None
        fields = {name.encode(): value for name, value in zip(HEAD_FIELDS, head, strict=True) if value is not None}
        return Stored(head=fields, **dict(zip(wanted, found, strict=True)), status=status, refused=refused)

    def _say_too_much(self, key: str, reason: str) -> None:
        if self._is_new("too_much_in_redis", key):
            log = _logger()
            log.warning("too_much_in_redis", key=key, reason=reason)

    def _is_new(self, event: str, key: str) -> bool:
        """Each event is logged once per process and key."""
        if (event, key) in self._said:
            return False
        self._said.add((event, key))
        return True

    async def newest(self, instance: str) -> tuple[tuple[int, int] | None, bool]:
        """Return (epoch, version) of the published head if it is authentic, and whether the present keys verify it.

        Where nothing is published there is nothing to verify. Raises StoreUnavailable, StoreError.
        """
        values = await self.link.command(f"read {instance}", "HMGET", self.keys.head(instance), *HEAD_FIELDS)
        if not any(values):
            return None, True
        try:
            fields = {name: one.decode() for name, one in zip(HEAD_FIELDS, values, strict=True) if one is not None}
            head = head_from_fields(fields)
        except (DocumentError, UnknownSchemaError, UnicodeDecodeError):
            return None, False
        good = self._sealer.mac_matches(text_of_version(self.keys.prefix, instance, head), head.mac)
        return ((head.epoch, head.version), True) if good else (None, False)

    async def owner(self, configured: str, *, write: bool) -> Owner:
        """Return the owner ids of this installation. `write`: keep them in Redis. Raises as `ping`."""
        return await self._owner.read(self._sealer, configured, write=write)

    async def names(self, *, except_instance: str) -> Mapping[str, ClusterKey]:
        """Return the published names of all other instances. Raises as `ping`."""
        found: dict[str, ClusterKey] = {}
        try:
            instances = await self.instances()
        except StoreTooMuch as error:
            self._say_too_much(self.keys.instances, str(error))
            instances = self._written
        for instance in sorted(instances - {except_instance}):
            async for uid, raw in in_turns((await self._records_of(instance)).items()):
                with suppress(orjson.JSONDecodeError, KeyError, TypeError):
                    found[str(orjson.loads(raw)["name"])] = ClusterKey(instance, uid.decode(errors="replace"))
        return found

    async def _records_of(self, instance: str) -> Mapping[bytes, bytes]:
        """Return another instance's records, or none where there is more than is read."""
        key, most = self.keys.clusters(instance), self._bounds.fields
        try:
            if await self.link.command("read names", "HLEN", key) <= most:
                found: Mapping[bytes, bytes] = await self.link.command("read names", "HGETALL", key)
                return found
            reason = f"more than {most} fields; no name in it counts"
        except StoreTooMuch as error:
            reason = str(error)
        self._say_too_much(key, reason)
        return {}

    async def publisher(self, instance: str, *, epoch: int, writer: str, life: Life | None = None) -> Publisher:
        """Open the writer of an instance for the holder of its lease (`epoch`). Raises StoreUnavailable, StoreError.

        `life`: what this process knows of the instance; without it, everything that was read counts as confirmed.
        """
        from palette_sync.store.fenced_writer import FencedWriter  # noqa: PLC0415 - commands that only look write nothing
        from palette_sync.store.publisher import Publisher  # noqa: PLC0415

        sealer = self._sealer
        self._written.add(instance)
        fenced_writer = FencedWriter(
            self.link,
            self.keys,
            sealer,
            await self.read(instance),
            instance=instance,
            epoch=epoch,
            writer=writer,
            history=self._history,
            life=life or Life(everything=True),
        )
        return Publisher(fenced_writer, sealer)

    @property
    def sealer(self) -> Sealer:
        """The seal keys in force."""
        return self._sealer

    def use(self, sealer: Sealer) -> None:
        """Use other seal keys from now on; publishers keep the keys that they were opened with."""
        self._sealer = sealer
        self._last.clear()  # what the former keys authenticated is verified anew

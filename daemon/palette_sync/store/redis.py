"""The store as the rest of the project sees it: read an instance, and open its one writer."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

import orjson

from palette_sync.core.model import ClusterKey
from palette_sync.events import in_turns
from palette_sync.store.connect import Link, Tls, parse_url
from palette_sync.store.errors import (
    Fenced,
    LeaseHeld,
    LeaseLost,
    StoreError,
    StoreUnavailable,
    VersionConflict,
)
from palette_sync.store.fenced_writer import FencedWriter
from palette_sync.store.keys import Keys
from palette_sync.store.owner import OwnerBook, place_of
from palette_sync.store.publisher import Publisher
from palette_sync.store.read import NOTHING, Loaded, Stored, read

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

    from palette_sync.core.model import InstanceState
    from palette_sync.store.owner import Owner
    from palette_sync.store.seal import Sealer

__all__ = [
    "Fenced",
    "LeaseHeld",
    "LeaseLost",
    "Publisher",
    "Store",
    "StoreError",
    "StoreUnavailable",
    "VersionConflict",
]


class Store:
    """One Redis under one prefix. Opening it does not connect; leaving `async with` closes its connections.

    `link` and `keys` are for `Lease`, `control` and `server`.
    """

    def __init__(self, link: Link, *, prefix: str, sealer: Sealer, history: int, place: str = "") -> None:
        self.keys = Keys(prefix)
        self.link = link
        self._owner = OwnerBook(link, self.keys, place)
        self._sealer = sealer
        self._history = history
        self._last: dict[str, Loaded] = {}

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
    ) -> Store:
        """Parse the URL and load TLS files, without connecting. Raises StoreMisconfigured.

        `history`: how many former versions stay readable, 0 = none. Timeouts are in seconds.
        """
        tls = Tls(ca_file, cert_file, key_file)
        link = Link(parse_url(url), tls=tls, connect_timeout=connect_timeout, timeout=timeout)
        return cls(link, prefix=prefix, sealer=sealer, history=history, place=place_of(url))

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
        """Return the names of all instances that were ever published under this prefix. Raises as `ping`."""
        names = await self.link.command("list", "SMEMBERS", self.keys.instances)
        return {name.decode(errors="replace") for name in names}

    async def load(self, instance: str) -> InstanceState:
        """Return everything that the store holds about an instance, verified. Raises StoreUnavailable, StoreError."""
        return (await self.read(instance)).state

    async def read(self, instance: str) -> Loaded:
        """Like `load`, with what a writer continues from."""

        async def read_all() -> Any:
            pipe = self.link.client.pipeline(transaction=True)
            for name in (
                self.keys.head,
                self.keys.clusters,
                self.keys.credentials,
                self.keys.work,
                self.keys.scopes,
                self.keys.issuers,
            ):
                pipe.execute_command("HGETALL", name(instance))
            pipe.execute_command("GET", self.keys.status(instance))
            return await pipe.execute()

        stored = Stored(*await self.link.run(f"read {instance}", read_all))
        last = self._last.get(instance, NOTHING)
        self._last[instance] = loaded = await read(instance, stored, self._sealer, last=last)
        return loaded

    async def owner(self, configured: str, *, write: bool) -> Owner:
        """Return the owner ids of this installation. `write`: keep them in Redis. Raises as `ping`."""
        return await self._owner.read(self._sealer, configured, write=write)

    async def names(self, *, except_instance: str) -> Mapping[str, ClusterKey]:
        """Return the published names of all other instances. Raises as `ping`."""
        found: dict[str, ClusterKey] = {}
        for instance in sorted(await self.instances() - {except_instance}):
            records = await self.link.command("read names", "HGETALL", self.keys.clusters(instance))
            async for uid, raw in in_turns(records.items()):
                with suppress(orjson.JSONDecodeError, KeyError, TypeError):
                    found[str(orjson.loads(raw)["name"])] = ClusterKey(instance, uid.decode(errors="replace"))
        return found

    async def publisher(self, instance: str, *, epoch: int, writer: str) -> Publisher:
        """Open the writer of an instance for the holder of its lease (`epoch`). Raises StoreUnavailable, StoreError."""
        sealer = self._sealer
        fenced_writer = FencedWriter(
            self.link,
            self.keys,
            sealer,
            await self.read(instance),
            instance=instance,
            epoch=epoch,
            writer=writer,
            history=self._history,
        )
        return Publisher(fenced_writer, sealer)

    def use(self, sealer: Sealer) -> None:
        """Use other seal keys from now on; publishers keep the keys that they were opened with."""
        self._sealer = sealer

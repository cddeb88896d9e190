"""A writer and plain clients for tests of the store, and a proxy that breaks connections at a chosen point."""

from __future__ import annotations

import asyncio
import inspect
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import redis.asyncio as aioredis

from palette_sync.store.lease import Lease

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path
    from types import TracebackType

    from palette_sync.store.publisher import Publisher
    from palette_sync.store.redis import Store


async def writer(store: Store, instance: str = "alpha") -> Publisher:
    """A publisher under a new epoch, whose lease is released at once."""
    lease = await Lease.acquire(store.link, store.keys, instance, ttl=30, holder="test:1")
    await lease.release()
    return await store.publisher(instance, epoch=lease.epoch, writer="test:1")


@asynccontextmanager
async def raw_client(url: str) -> AsyncIterator[Any]:
    """A plain client, as another program would use it."""
    client: Any = aioredis.Redis.from_url(url)
    try:
        yield client
    finally:
        await client.aclose()


async def until(holds: Callable[[], Any]) -> Any:
    """Call `holds` (a function or coroutine function) until it returns something true, and return that.

    Only the time limit of a test ends the wait, so that a slow machine does not.
    """
    while True:
        found = holds()
        if found := await found if inspect.isawaitable(found) else found:
            return found
        await asyncio.sleep(0.005)


class Proxy:
    """Stands between store and server on a unix socket.

    `lose_answer`: the next command that holds this text reaches the server, whose answer is lost with the connection.
    `lose_request`: the connection breaks before such a command arrives; `refuse`: before each such command.
    `hold`: answers wait until `release` is set.
    """

    def __init__(self, url: str, directory: Path) -> None:
        self._target = url.removeprefix("unix://")
        self._path = directory / "proxy.sock"
        self.url = f"unix://{self._path}"
        self.lose_answer: bytes | None = None
        self.lose_request: bytes | None = None
        self.refuse: bytes | None = None
        self.hold: bytes | None = None
        self.holding = asyncio.Event()
        self.release = asyncio.Event()
        self.lost = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def lead_to(self, url: str) -> None:
        """Connect new connections to another server."""
        self._target = url.removeprefix("unix://")

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(self._serve, self._path)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._relay(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Requests are answered in turn, so each chunk of requests is followed by reading until the server is idle."""
        upstream_reader, upstream = await asyncio.open_unix_connection(self._target)
        fate = Fate()
        try:
            async with asyncio.TaskGroup() as group:
                answers = group.create_task(self._answers(fate, upstream_reader, writer))
                while data := await reader.read(1 << 20):
                    if self.refuse is not None and self.refuse in data:
                        self.lost += 1
                        break
                    if self.lose_request is not None and self.lose_request in data:
                        self.lose_request = None
                        self.lost += 1
                        break
                    if self.lose_answer is not None and self.lose_answer in data:
                        fate.lost, self.lose_answer = True, None
                    if self.hold is not None and self.hold in data:
                        fate.held, self.hold = True, None
                    upstream.write(data)
                answers.cancel()
        finally:
            upstream.close()

    async def _answers(self, fate: Fate, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 20):
            if fate.lost:
                self.lost += 1
                writer.close()
                return
            if fate.held:
                fate.held = False
                self.holding.set()
                await self.release.wait()
            writer.write(data)


@dataclass
class Fate:
    """What becomes of the next answer on one connection; another connection's commands do not change it."""

    lost: bool = False
    held: bool = False

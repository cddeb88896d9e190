"""A real Valkey server for each test process, and a store with a prefix of its own for each test.

The server lives in an event loop of its own thread, because it outlives the loop of any single test.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from integration.store_builders import raw_client
from palette_sync.store.embedded import EmbeddedValkey
from palette_sync.store.redis import Store
from palette_sync.store.seal import SealKeys

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


class ServerThread:
    """Runs an `EmbeddedValkey` until `close`."""

    def __init__(self) -> None:
        self._started = threading.Event()
        self._ended: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="valkey", daemon=True)
        self.url = ""

    async def _serve(self) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        try:
            async with EmbeddedValkey() as server:
                self.url = server.url
                self._started.set()
                await self._ended.wait()
        finally:
            self._started.set()

    def open(self) -> str:
        self._thread.start()
        self._started.wait(30)
        assert self.url, "the Valkey server did not start"
        return self.url

    def close(self) -> None:
        assert self._loop is not None
        assert self._ended is not None
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(30)


@pytest.fixture(scope="session")
def valkey_url() -> Iterator[str]:
    server = ServerThread()
    yield server.open()
    server.close()


@pytest.fixture
def seal_keys() -> SealKeys:
    return SealKeys.from_lines(SealKeys.generate_line("test"))


@pytest.fixture
def prefix() -> str:
    return f"test-{secrets.token_hex(6)}"


@pytest_asyncio.fixture
async def store(valkey_url: str, prefix: str, seal_keys: SealKeys) -> AsyncIterator[Store]:
    async with Store.open(valkey_url, prefix=prefix, sealer=seal_keys) as opened:
        yield opened


@pytest_asyncio.fixture
async def raw(valkey_url: str) -> AsyncIterator[Any]:
    """A plain client of the server, to look at keys and to damage them."""
    async with raw_client(valkey_url) as client:
        yield client

"""A real Valkey server for each test process.

It lives in an event loop of its own thread, because it outlives the loop of any single test.
"""

from __future__ import annotations

import asyncio
import threading

from palette_sync.store.embedded import EmbeddedValkey


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

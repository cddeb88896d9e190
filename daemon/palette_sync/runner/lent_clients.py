"""Palette clients that outlive a pass, because clusters that it did not wait for still use them."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from palette_sync.palette import PaletteClient


class LentClients:
    """Opens a client for each pass, and closes it once its last user has ended."""

    def __init__(self) -> None:
        self._closing: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def open(
        self, make: Callable[[], PaletteClient], *, users: Callable[[], set[asyncio.Task[None]]]
    ) -> AsyncIterator[PaletteClient]:
        """A client, which stays open after the block until all tasks that `users` returns at its end have ended."""
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(make())
            try:
                yield client
            finally:
                if tasks := users():
                    closing = asyncio.create_task(_close_after(tasks, stack.pop_all()), name="close-client")
                    self._closing.add(closing)
                    closing.add_done_callback(self._closing.discard)

    async def closed(self) -> None:
        """Wait until all clients are closed."""
        if self._closing:
            await asyncio.wait(self._closing)


async def _close_after(tasks: set[asyncio.Task[None]], stack: AsyncExitStack) -> None:
    async with stack:
        await asyncio.wait(tasks)

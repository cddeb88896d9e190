"""Places for units at work. Unlike a semaphore's, they can change in number, and one can be taken back at once."""

from __future__ import annotations

import asyncio
from collections import deque


class Places:
    """A number of places that are taken in the order of asking."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._free = count
        self._queue: deque[asyncio.Future[None]] = deque()

    def resize(self, count: int) -> None:
        self._free += count - self._count
        self._count = count
        self._next()

    async def take(self) -> None:
        if self._free > 0 and not self._queue:
            self._free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give()  # its turn came together with the cancellation
            raise

    def retake(self) -> None:
        """Take a place at once, even if none is free. Nobody else gets one until there are enough again."""
        self._free -= 1

    def give(self) -> None:
        self._free += 1
        self._next()

    def _next(self) -> None:
        while self._free > 0 and self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                self._free -= 1
                turn.set_result(None)

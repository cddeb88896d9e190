"""Run a call of a synchronous library off the event loop, with a deadline."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


async def within(seconds: float, work: Callable[[], T], *, name: str) -> T:
    """Return what `work` returns, or raise what it raises. Raises TimeoutError after `seconds`.

    A thread cannot be stopped. It is a daemon thread, so that one that hangs does not delay the end of the process, and
    it takes no place in the pool that other work uses. The libraries' own timeouts end it.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        try:
            result = work()
        except Exception as error:  # noqa: BLE001 - whatever it is, the waiting task raises it
            _hand_over(loop, _fail, done, error)
        else:
            _hand_over(loop, _succeed, done, result)

    threading.Thread(target=run, name=name, daemon=True).start()
    async with asyncio.timeout(seconds):
        return await done


def _hand_over(loop: asyncio.AbstractEventLoop, call: Callable[..., None], *args: object) -> None:
    with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
        loop.call_soon_threadsafe(call, *args)


def _succeed(done: asyncio.Future[T], result: T) -> None:
    if not done.done():
        done.set_result(result)


def _fail(done: asyncio.Future[T], error: Exception) -> None:
    if not done.done():
        done.set_exception(error)

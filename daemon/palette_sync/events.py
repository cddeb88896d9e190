"""Waiting for the first of several events without leaking tasks, and loops that yield to the event loop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Iterable

T = TypeVar("T")
EVENT = "event"  # name of the tasks that only wait for an event
TURN = 500  # items between two yields to the event loop


class Interrupted(Exception):
    """The event was set first, and the work was cancelled."""


async def wait_any(*events: asyncio.Event, timeout: float | None = None) -> None:  # noqa: ASYNC109 - None = for ever
    """Wait until one of the events is set, at most `timeout` seconds."""
    if any(event.is_set() for event in events):
        return
    waits = [asyncio.create_task(event.wait(), name=EVENT) for event in events]
    try:
        await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in waits:
            one.cancel()


async def unless(event: asyncio.Event | None, work: Coroutine[Any, Any, T], *, name: str) -> T:
    """Await `work`, but cancel it when `event` is set, and raise Interrupted. Also raises what `work` raises."""
    if event is None:
        return await work
    working = asyncio.create_task(work, name=name)
    waiting = asyncio.create_task(event.wait(), name=EVENT)
    try:
        await asyncio.wait({working, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise Interrupted
        return working.result()
    finally:
        working.cancel()
        waiting.cancel()
        await asyncio.wait({working, waiting})


async def in_turns(items: Iterable[T]) -> AsyncIterator[T]:
    """Yield the items; after every `TURN` items, let other tasks of the event loop run."""
    for number, item in enumerate(items, start=1):
        yield item
        if number % TURN == 0:
            await asyncio.sleep(0)

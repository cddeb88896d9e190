"""Waiting for whichever happens first, without leaving a task behind, and long work that lets others have a turn."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Iterable

T = TypeVar("T")
EVENT = "event"  # the name of tasks that only wait for one
TURN = 500  # items between two turns of everybody else


class Interrupted(Exception):
    """The event came first; what was waited for was cancelled."""


async def wait_any(*events: asyncio.Event, timeout: float | None = None) -> None:  # noqa: ASYNC109 - None = for ever
    """Wait until one of the events is set, or for `timeout` seconds."""
    if any(event.is_set() for event in events):
        return
    waits = [asyncio.create_task(event.wait(), name=EVENT) for event in events]
    try:
        await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in waits:
            one.cancel()


async def unless(event: asyncio.Event | None, work: Coroutine[Any, Any, T], *, name: str) -> T:
    """Await `work`, but cancel it once `event` is set. Raises Interrupted then, and whatever `work` raises."""
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
    """The items one by one; after each `TURN` of them whoever else waits for the event loop has a turn."""
    for number, item in enumerate(items, start=1):
        yield item
        if number % TURN == 0:
            await asyncio.sleep(0)

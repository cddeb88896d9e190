"""Waiting for whichever comes first cancels the rest, passes errors on and leaves no task behind."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from palette_sync.events import TURN, Interrupted, in_turns, unless, wait_any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import looptime


@pytest.fixture(autouse=True)
async def _no_task_left() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    await asyncio.sleep(0)
    assert [task.get_name() for task in asyncio.all_tasks() - before if task is not asyncio.current_task()] == []


async def test_a_wait_for_an_event_that_is_set_already_returns_at_once() -> None:
    first, second = asyncio.Event(), asyncio.Event()
    second.set()

    async with asyncio.timeout(0):
        await wait_any(first, second)


@pytest.mark.looptime
async def test_the_first_event_ends_the_wait(looptime: looptime.LoopTimeProxy) -> None:
    first, second = asyncio.Event(), asyncio.Event()
    asyncio.get_running_loop().call_later(3, second.set)

    await wait_any(first, second, timeout=10)

    assert float(looptime) == pytest.approx(3, abs=0.1)


@pytest.mark.looptime
async def test_the_timeout_ends_the_wait_when_no_event_is_set(looptime: looptime.LoopTimeProxy) -> None:
    await wait_any(asyncio.Event(), timeout=7)

    assert float(looptime) == pytest.approx(7, abs=0.1)


async def test_a_wait_can_be_cancelled() -> None:
    waiting = asyncio.create_task(wait_any(asyncio.Event(), asyncio.Event()))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting})

    assert waiting.cancelled()


async def test_long_work_gives_other_tasks_their_turns() -> None:
    turns: list[int] = []
    seen: list[int] = []

    async def other() -> None:
        for _ in range(2):
            turns.append(len(seen))
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    async for item in in_turns(range(3 * TURN)):
        seen.append(item)  # noqa: PERF401 - the other one looks at it
    await task

    assert seen == list(range(3 * TURN))
    assert turns == [TURN, 2 * TURN]


async def answer() -> int:
    await asyncio.sleep(0)
    return 42


async def test_work_that_ends_first_returns_its_result() -> None:
    assert await unless(asyncio.Event(), answer(), name="work") == 42
    assert await unless(None, answer(), name="work") == 42


async def test_work_that_fails_raises_its_own_error() -> None:
    async def fail() -> None:
        raise LookupError("nothing there")

    for event in (asyncio.Event(), None):
        with pytest.raises(LookupError, match="nothing there"):
            await unless(event, fail(), name="work")


async def test_an_event_cancels_the_work_and_waits_for_its_end() -> None:
    event, begun, cleaned = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def work() -> None:
        try:
            begun.set()
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0)
            cleaned.set()

    async def interrupt() -> None:
        await begun.wait()
        event.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(interrupt())
        with pytest.raises(Interrupted):
            await unless(event, work(), name="work")
    assert cleaned.is_set()


async def test_the_result_of_work_that_ends_as_the_event_is_set_is_kept() -> None:
    event = asyncio.Event()

    async def work() -> str:
        event.set()
        return "done"

    assert await unless(event, work(), name="work") == "done"


async def test_an_event_that_is_set_already_ends_the_work_before_it_starts() -> None:
    event, begun = asyncio.Event(), asyncio.Event()
    event.set()

    async def work() -> None:
        begun.set()
        await asyncio.sleep(3600)

    with pytest.raises(Interrupted):
        await unless(event, work(), name="work")


async def test_cancelling_the_caller_cancels_the_work() -> None:
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        try:
            begun.set()
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    caller = asyncio.create_task(unless(asyncio.Event(), work(), name="work"))
    await begun.wait()
    caller.cancel()
    await asyncio.wait({caller})

    assert caller.cancelled()
    assert cancelled.is_set()

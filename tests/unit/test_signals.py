"""The dump of a process shows where each task is, and never a value."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from palette_sync.events import wait_any
from palette_sync.service import signals

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


async def inner(token: str) -> None:
    assert token
    await asyncio.Event().wait()


async def middle() -> None:
    await inner("canary-token")


async def chained() -> AsyncIterator[int]:
    yield 1
    await inner("canary-token")


async def iterating() -> None:
    async for _ in chained():
        pass


async def stuck(work: object, name: str) -> asyncio.Task[None]:
    task: asyncio.Task[None] = asyncio.create_task(work, name=name)  # type: ignore[arg-type]
    for _ in range(3):
        await asyncio.sleep(0)
    return task


async def end(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_each_task_shows_the_chain_of_coroutines_that_it_waits_in() -> None:
    task = await stuck(middle(), "pass:prod")
    found = dict(signals.tasks())
    await end(task)

    links = [link.split(" ") for link in found["pass:prod"].split(" > ")]
    assert [name for _, name in links] == ["middle", "inner", "wait"]
    assert links[0][0].startswith("test_signals.py:")
    assert "canary" not in str(found)


async def test_the_chain_goes_through_an_asynchronous_iteration() -> None:
    task = await stuck(iterating(), "walk")
    found = dict(signals.tasks())["walk"]
    await end(task)

    assert "iterating" in found


async def test_waiters_for_a_mere_event_are_left_out_and_names_are_in_order() -> None:
    tasks = [
        await stuck(wait_any(asyncio.Event(), asyncio.Event()), "b-waits"),
        await stuck(middle(), "a-works"),
    ]
    names = [name for name, _ in signals.tasks()]
    await end(*tasks)

    assert names == sorted(names)
    assert {"a-works", "b-waits"} <= set(names)
    assert "event" not in names


async def test_a_task_that_has_not_begun_shows_where_it_will() -> None:
    task = asyncio.create_task(middle(), name="new")
    found = dict(signals.tasks())["new"]
    await end(task)

    assert found.endswith(" middle")


async def test_tasks_are_printed_one_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    task = await stuck(middle(), "pass:prod")
    signals.print_tasks()
    await end(task)

    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("task pass:prod: ")]
    assert line.endswith(" wait")
    assert "canary" not in line


def test_a_coroutine_that_has_ended_is_done() -> None:
    coroutine = middle()
    coroutine.close()

    assert signals._chain(coroutine) == "done"

"""An exception that leaves a task of the daemon is logged and noticed; a cancellation that was asked for is not."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from palette_sync.service.tasks import GuardedTasks


async def fail(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize("error", [LookupError("a bug"), asyncio.CancelledError()], ids=["bug", "stray cancellation"])
async def test_a_task_that_fails_is_noticed_and_ends_no_other(error: BaseException) -> None:
    finish = asyncio.Event()
    with capture_logs() as logs:
        async with GuardedTasks() as tasks:
            other = tasks.start(_wait(finish), name="other")
            tasks.start(fail(error), name="failing")
            await tasks.crashed.wait()
            assert not other.done()
            finish.set()

    assert [line["event"] for line in logs] == ["daemon_crashed"]
    assert not other.cancelled()


async def test_a_cancellation_that_was_asked_for_is_no_crash() -> None:
    with capture_logs() as logs:
        async with GuardedTasks() as tasks:
            task = tasks.start(_wait(asyncio.Event()), name="waits")
            await asyncio.sleep(0)
            task.cancel()

    assert task.cancelled()
    assert not tasks.crashed.is_set()
    assert logs == []


async def _wait(event: asyncio.Event) -> None:
    await event.wait()

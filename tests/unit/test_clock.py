"""The clock ticks when it should, drops no tick, and restarts its jobs after the wall clock leapt.

APScheduler reads the real time, so these tests wait for ticks in real milliseconds instead of turning a loop's clock.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_EXECUTED, EVENT_JOB_MISSED
from structlog.testing import capture_logs

from integration.store_builders import until
from palette_sync.core.rotation import spread
from palette_sync.service import clock as clock_module
from palette_sync.service.clock import FIRST_WITHIN, LEAP, Clock

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

HOUR = timedelta(hours=1)
MOMENT = timedelta(milliseconds=30)


def prompt(kind: str = "discover") -> str:
    """The name of a job whose phase is short, so that a test does not wait two seconds for the first tick."""
    names = (f"{kind}:i{number}" for number in itertools.count())
    return next(name for name in names if spread(name, "phase") < 0.01)


class Ticks:
    """Counts the calls of a job; `reach` waits for them."""

    def __init__(self) -> None:
        self.count = 0
        self._more = asyncio.Event()

    def __call__(self) -> None:
        self.count += 1
        self._more.set()

    async def reach(self, count: int) -> None:
        while self.count < count:
            self._more.clear()
            await self._more.wait()


class Wall:
    """A wall clock that a test may move. It counts how often it is read."""

    def __init__(self) -> None:
        self.moved = timedelta(0)
        self.looks = 0

    def __call__(self) -> datetime:
        self.looks += 1
        return datetime.now(UTC) + self.moved

    async def looked_at(self) -> None:
        """Wait until the clock was read twice from now on; the first reading may have begun before."""
        seen = self.looks
        await until(lambda: self.looks >= seen + 2)


@pytest.fixture(autouse=True)
def _quiet_library() -> Iterator[None]:
    library = logging.getLogger("apscheduler")
    level = library.level
    yield
    library.setLevel(level)


def leaps(logs: Sequence[Mapping[str, Any]]) -> list[int]:
    """The leaps that were logged so far, in seconds."""
    return [one["seconds"] for one in logs if one["event"] == "clock_leapt"]


def trouble(clock: Clock) -> list[object]:
    """What APScheduler drops or fails from now on."""
    events: list[object] = []
    clock._scheduler.add_listener(events.append, EVENT_JOB_MISSED | EVENT_JOB_ERROR)
    return events


def scheduled(clock: Clock, name: str) -> list[datetime]:
    """The times for which the ticks of a job are scheduled from now on, however late they run."""
    moments: list[datetime] = []

    def note(event: Any) -> None:
        if event.job_id == name:
            moments.append(event.scheduled_run_time)

    clock._scheduler.add_listener(note, EVENT_JOB_EXECUTED)
    return moments


async def test_the_first_tick_comes_at_once_and_others_follow_at_the_interval() -> None:
    ticks, name, interval = Ticks(), prompt(), timedelta(milliseconds=100)
    begun = datetime.now(UTC)
    async with Clock(wall=lambda: begun) as clock:
        events, moments = trouble(clock), scheduled(clock, name)
        clock.every(name, interval, ticks)
        await ticks.reach(4)
        await until(lambda: len(moments) >= 4)

    assert moments[0] == begun + FIRST_WITHIN * spread(name, "phase")
    # On a busy machine several ticks may become one.
    apart = [later - earlier for earlier, later in itertools.pairwise(moments)]
    assert all(gap > timedelta(0) and gap % interval == timedelta(0) for gap in apart)
    assert events == []


async def test_a_job_has_ended_when_it_has_begun() -> None:
    """APScheduler skips the run of a job that is still busy."""
    ticks, name = Ticks(), prompt()
    async with Clock() as clock:
        clock.pause()
        clock.every(name, HOUR, ticks)
        with pytest.raises(StopIteration):
            clock._scheduler.get_job(name).func().send(None)

    assert ticks.count == 1


async def test_the_first_tick_has_a_phase_that_is_the_same_after_a_restart() -> None:
    names = [f"discover:i{number}" for number in range(40)]
    begun = datetime.now(UTC)
    seen: list[list[timedelta]] = []
    for _ in range(2):
        async with Clock(wall=lambda: begun) as clock:
            clock.pause()
            for name in names:
                clock.every(name, HOUR, Ticks())
            seen.append([clock._scheduler.get_job(name).next_run_time - begun for name in names])

    assert seen[0] == seen[1]
    assert all(timedelta(0) <= first < FIRST_WITHIN for first in seen[0])
    apart = {round(first.total_seconds(), 1) for first in seen[0]}
    assert len(apart) > 10, "instances configured alike do not tick together"


async def test_a_cron_job_ticks_at_once_and_then_by_its_expression_in_utc() -> None:
    ticks, name = Ticks(), prompt()
    hour = (datetime.now(UTC) + 12 * HOUR).hour  # it is not reached during the test
    async with Clock() as clock:
        clock.by_cron(name, f"30 {hour} * * *", ticks)
        await ticks.reach(1)
        following = clock._scheduler.get_job(name).next_run_time

    assert (following.hour, following.minute, following.utcoffset()) == (hour, 30, timedelta(0))
    assert ticks.count == 1


async def test_a_malformed_cron_expression_is_refused_before_a_job_exists() -> None:
    async with Clock() as clock:
        with pytest.raises(ValueError, match="minute"):
            clock.by_cron(prompt(), "61 * * * *", Ticks())
        assert clock.next_runs() == {}


async def test_a_job_started_again_takes_the_place_of_the_former() -> None:
    former, latter, name = Ticks(), Ticks(), prompt()
    async with Clock() as clock:
        clock.every(name, HOUR, former)
        clock.every(name, HOUR, latter)
        await latter.reach(1)
        assert list(clock.next_runs()) == [name]

    assert former.count == 0


async def test_a_moment_that_is_past_ticks_at_once_and_only_once() -> None:
    ticks = Ticks()
    async with Clock() as clock:
        clock.at("due:prod", datetime.now(UTC) - HOUR, ticks)
        await ticks.reach(1)
        assert clock.next_runs() == {}

    assert ticks.count == 1


async def test_a_moment_replaces_the_earlier_one_and_none_removes_it() -> None:
    former, latter = Ticks(), Ticks()
    async with Clock() as clock:
        soon = datetime.now(UTC)
        clock.at("due:prod", soon, former)
        clock.at("due:prod", soon + HOUR, latter)
        assert clock.next_runs() == {"due:prod": str(soon + HOUR)}
        clock.at("due:prod", soon, latter)
        clock.at("due:other", soon, former)
        clock.at("due:other", None, former)
        clock.at("due:other", None, former)
        await latter.reach(1)
        await asyncio.sleep(0)
        assert clock.next_runs() == {}

    assert former.count == 0
    assert latter.count == 1


async def test_removing_an_instance_removes_all_of_its_jobs_and_only_them() -> None:
    async with Clock() as clock:
        clock.pause()
        for kind in ("discover", "key"):
            for instance in ("prod", "nonprod", "prod-2"):
                clock.every(f"{kind}:{instance}", HOUR, Ticks())
        clock.at("due:prod", datetime.now(UTC) + HOUR, Ticks())

        clock.remove("prod")

        assert set(clock.next_runs()) == {"discover:nonprod", "key:nonprod", "discover:prod-2", "key:prod-2"}


async def test_a_removed_instance_does_not_come_back_when_the_clock_leaps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wall, never = Wall(), Ticks()
    async with Clock(wall=wall, check_interval=0.01) as clock:
        # APScheduler removes a job that has no next run.
        monkeypatch.setattr(clock_module, "next_run", lambda _expression, _after: None)
        clock.by_cron(prompt(), "0 0 29 2 *", never)
        clock.every("key:stays", HOUR, Ticks())
        await never.reach(1)
        clock.remove(prompt().partition(":")[2])
        with capture_logs() as logs:
            wall.moved = -HOUR
            await until(lambda: leaps(logs))
        assert list(clock.next_runs()) == ["key:stays"]

    assert never.count == 1


async def test_a_paused_clock_ticks_no_more() -> None:
    ticks, other = Ticks(), Ticks()
    async with Clock() as clock:
        clock.every(prompt(), timedelta(milliseconds=10), ticks)
        await ticks.reach(2)
        clock.pause()
        for _ in range(3):
            await asyncio.sleep(0)  # a tick that has already begun still comes
        before = ticks.count
        clock.at("due:prod", datetime.now(UTC), other)
        for _ in range(10):
            await asyncio.sleep(0.01)

    assert (ticks.count, other.count) == (before, 0)


async def test_a_tick_that_came_due_while_the_loop_was_blocked_is_late_and_not_lost() -> None:
    ticks, once, name = Ticks(), Ticks(), prompt()
    async with Clock() as clock:
        events, moments = trouble(clock), scheduled(clock, name)
        clock.every(name, timedelta(milliseconds=200), ticks)
        await until(lambda: moments)
        blocked = len(moments)
        clock.at("due:prod", datetime.now(UTC) + MOMENT, once)
        time.sleep(1.5)  # noqa: ASYNC251 - APScheduler drops what is later than a second, by default
        await once.reach(1)
        await until(lambda: len(moments) > blocked + 1)

    apart = [later - earlier for earlier, later in itertools.pairwise(moments)]
    assert max(apart) >= timedelta(seconds=1.4), "seven missed ticks are one"
    assert events == []


async def test_nothing_ticks_after_the_clock_was_closed() -> None:
    ticks = Ticks()
    async with Clock() as clock:
        clock.every(prompt(), timedelta(milliseconds=10), ticks)
        await ticks.reach(1)
    before = ticks.count
    await asyncio.sleep(0.05)

    assert ticks.count == before
    assert [task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


async def test_after_the_wall_clock_was_set_back_regular_jobs_restart_at_once() -> None:
    wall, ticks, once = Wall(), Ticks(), Ticks()
    async with Clock(wall=wall, check_interval=0.01) as clock:
        clock.every(prompt(), HOUR, ticks)
        clock.at("due:prod", datetime.now(UTC) + HOUR, once)
        await ticks.reach(1)
        with capture_logs() as logs:
            wall.moved = -HOUR
            await ticks.reach(2)
            await until(lambda: leaps(logs))

    assert [(one["event"], one["seconds"], one["log_level"]) for one in logs] == [("clock_leapt", -3600, "warning")]
    assert once.count == 0, "a moment stays that moment"


async def test_a_resumed_machine_is_a_leap_forward_and_a_small_step_is_not() -> None:
    wall, name = Wall(), prompt()
    async with Clock(wall=wall, check_interval=0.01) as clock:
        clock.pause()
        clock.every(name, HOUR, Ticks())
        with capture_logs() as logs:
            wall.moved = LEAP - timedelta(seconds=10)
            await wall.looked_at()
            assert logs == []
            wall.moved += timedelta(hours=8)
            leapt = wall()
            await until(lambda: leaps(logs))
            noticed = wall()
            first = clock._scheduler.get_job(name).next_run_time

    assert [one["seconds"] for one in logs] == [8 * 3600]
    # The interval starts when the leap was noticed, not at the first tick.
    assert leapt <= first - FIRST_WITHIN * spread(name, "phase") <= noticed

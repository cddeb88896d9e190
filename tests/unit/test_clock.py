"""The clock ticks when it promised, drops no tick, and begins anew after the wall's clock leapt.

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
from palette_sync.service.clock import FIRST_WITHIN, LEAP, Clock, cron_trigger

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

HOUR = timedelta(hours=1)
MOMENT = timedelta(milliseconds=30)


def prompt(kind: str = "discover") -> str:
    """The name of a job whose phase is short: tests do not wait two seconds for a first tick."""
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
    """The wall's clock, which a test may move; it counts who looks at it."""

    def __init__(self) -> None:
        self.moved = timedelta(0)
        self.looks = 0

    def __call__(self) -> datetime:
        self.looks += 1
        return datetime.now(UTC) + self.moved

    async def looked_at(self) -> None:
        """Wait until somebody looked, and looked again after that: the first time may have been before."""
        seen = self.looks
        await until(lambda: self.looks >= seen + 2)


@pytest.fixture(autouse=True)
def _quiet_library() -> Iterator[None]:
    library = logging.getLogger("apscheduler")
    level = library.level
    yield
    library.setLevel(level)


def leaps(logs: Sequence[Mapping[str, Any]]) -> list[int]:
    """The leaps that were told so far, in seconds."""
    return [one["seconds"] for one in logs if one["event"] == "clock_leapt"]


def trouble(clock: Clock) -> list[object]:
    """What APScheduler drops or fails from now on."""
    events: list[object] = []
    clock._scheduler.add_listener(events.append, EVENT_JOB_MISSED | EVENT_JOB_ERROR)
    return events


def scheduled(clock: Clock, name: str) -> list[datetime]:
    """When the ticks of a job from now on were to come, whenever the machine let them."""
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
    # On a busy machine one tick may stand for several.
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
    hour = (datetime.now(UTC) + 12 * HOUR).hour  # it does not come round during the test
    async with Clock() as clock:
        clock.by_cron(name, f"30 {hour} * * *", ticks)
        await ticks.reach(1)
        following = clock._scheduler.get_job(name).next_run_time

    assert (following.hour, following.minute, following.utcoffset()) == (hour, 30, timedelta(0))
    assert ticks.count == 1


WEDNESDAY = datetime(2026, 11, 25, tzinfo=UTC)


@pytest.mark.parametrize(
    ("expression", "days"),
    [
        pytest.param("0 6 * * 0", "29", id="0 is Sunday"),
        pytest.param("0 6 * * 7", "29", id="and so is 7"),
        pytest.param("0 6 * * 1-5", "25 26 27 30", id="working days by number"),
        pytest.param("0 6 * * MON-FRI", "25 26 27 30", id="and by name"),
        pytest.param("0 6 * * fri-sun", "27 28 29", id="a range that ends on Sunday"),
        pytest.param("0 6 * * 5-7", "27 28 29", id="by number as well"),
        pytest.param("0 6 * * 1,3", "25 30", id="two days"),
        pytest.param("0 6 * * */2", "26 28 29", id="each second day from Sunday on"),
        pytest.param("0 6 * * 2/2", "26 28", id="from Tuesday on"),
        pytest.param("0 6 27 * 1", "27 30", id="a day or a weekday"),
        pytest.param("0 6 */2 * 1", "", id="with a star it must be both"),
        pytest.param("0 6 * * *", "25 26 27 28 29 30", id="each day"),
        pytest.param("0 6 last * *", "30", id="the last of the month"),
    ],
)
def test_weekdays_of_a_cron_expression_are_those_of_cron(expression: str, days: str) -> None:
    trigger, found, at = cron_trigger(expression), [], WEDNESDAY
    while (fires := trigger.get_next_fire_time(None, at)) is not None and fires.month == WEDNESDAY.month:
        found.append(str(fires.day))
        at = fires + timedelta(seconds=1)

    assert " ".join(found) == days


@pytest.mark.parametrize("weekday", ["8", "5-2", "*-3", "xyz", "1,", "*/0", "1--2", "1-", "mon-xyz"])
def test_what_is_no_weekday_is_refused(weekday: str) -> None:
    with pytest.raises(ValueError, match=r"weekday|begins"):
        cron_trigger(f"0 6 * * {weekday}")


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


async def test_a_moment_replaces_the_one_before_and_none_removes_it() -> None:
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


async def test_a_removed_instance_does_not_come_back_when_the_clock_leaps() -> None:
    wall, never = Wall(), Ticks()
    async with Clock(wall=wall, look=0.01) as clock:
        # The 30th of February never comes: APScheduler forgets such a job after its first tick.
        clock.by_cron(prompt(), "0 0 30 2 *", never)
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
            await asyncio.sleep(0)  # a tick that was begun already still comes
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
        time.sleep(1.5)  # noqa: ASYNC251 - APScheduler drops what is later than a second, unless it is told not to
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


async def test_after_the_walls_clock_was_set_back_regular_jobs_begin_anew_at_once() -> None:
    wall, ticks, once = Wall(), Ticks(), Ticks()
    async with Clock(wall=wall, look=0.01) as clock:
        clock.every(prompt(), HOUR, ticks)
        clock.at("due:prod", datetime.now(UTC) + HOUR, once)
        await ticks.reach(1)
        with capture_logs() as logs:
            wall.moved = -HOUR
            await ticks.reach(2)
            await until(lambda: leaps(logs))

    assert [(one["event"], one["seconds"], one["log_level"]) for one in logs] == [("clock_leapt", -3600, "warning")]
    assert once.count == 0, "a moment stays that moment"


async def test_a_resumed_machine_shows_as_a_leap_forward_and_a_small_step_is_none() -> None:
    wall, name = Wall(), prompt()
    async with Clock(wall=wall, look=0.01) as clock:
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
    # Anew from when it was noticed, and not an hour after the first time.
    assert leapt <= first - FIRST_WITHIN * spread(name, "phase") <= noticed

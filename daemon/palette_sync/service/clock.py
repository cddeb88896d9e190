"""When: APScheduler as a clock that never does work. Its jobs only drop hints into mailboxes.

Facts about APScheduler 3.11 that this is built around: a run is skipped while the job is busy, so jobs are never busy;
a late run is dropped after a second unless `misfire_grace_time` is None; the first run of an interval comes after one
interval unless it is given a time; `shutdown(wait=True)` cancels instead of waiting; it counts weekdays from Monday,
where cron counts them from Sunday. Its timers count the time of the loop, which stands still while a machine is
suspended, so the clock is compared with the wall's again and again.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.combining import OrTrigger
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.date import DateTrigger
from apscheduler.triggers.interval import IntervalTrigger

from palette_sync.core.rotation import spread

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from apscheduler.triggers.base import BaseTrigger

log = structlog.get_logger(__name__)

FIRST_WITHIN = timedelta(seconds=2)
LOOK = 15.0  # seconds between two comparisons with the wall's clock
LEAP = timedelta(seconds=30)
WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")  # in cron's order; 7 is Sunday too
_DAYS = re.compile(r"(?P<first>\*|\d|[a-z]{3})(?:-(?P<last>\d|[a-z]{3}))?(?:/(?P<step>\d+))?")


def cron_trigger(expression: str) -> BaseTrigger:
    """What the five fields mean to cron, in UTC. Where day and weekday are both given, either is enough.

    Raises ValueError.
    """
    fields = expression.split()
    if len(fields) != 5:  # noqa: PLR2004 - minute, hour, day, month, weekday
        raise ValueError("a cron expression has five fields")
    minute, hour, day, month, weekday = fields
    days = weekday if weekday == "*" else ",".join(_weekdays(weekday.lower()))

    def on(day: str, weekday: str) -> CronTrigger:
        return CronTrigger(minute=minute, hour=hour, day=day, month=month, day_of_week=weekday, timezone=UTC)

    if day.startswith("*") or weekday.startswith("*"):
        return on(day, days)
    return OrTrigger([on(day, "*"), on("*", days)])


def _weekdays(field: str) -> list[str]:
    """The names of the days that cron's fifth field stands for. Raises ValueError."""
    found: set[int] = set()
    for part in field.split(","):
        match = _DAYS.fullmatch(part)
        if match is None:
            raise ValueError(f"{part} is no weekday")
        first, last, step = match["first"], match["last"], int(match["step"] or 1)
        start = 0 if first == "*" else _weekday(first)
        # Without an end a star, and a single day with a step, go on to the end of the week.
        end = _weekday(last) if last else 6 if first == "*" or match["step"] else start
        if last == "sun":
            end = 7
        if step == 0 or (first == "*" and last):
            raise ValueError(f"{part} is no range of weekdays")
        if end < start:
            raise ValueError(f"{part} ends before it begins")
        found.update(number % 7 for number in range(start, end + 1, step))
    return [WEEKDAYS[number] for number in sorted(found)]


def _weekday(word: str) -> int:
    days: dict[str, int] = dict(zip((*"01234567", *WEEKDAYS), (*range(8), *range(7)), strict=True))
    if word not in days:
        raise ValueError(f"{word} is no weekday")
    return days[word]


class Clock:
    """Jobs by name, `<kind>:<instance>`; an async context manager that ticks while open. Everything is in UTC."""

    def __init__(self, *, wall: Callable[[], datetime] = lambda: datetime.now(UTC), look: float = LOOK) -> None:
        defaults = {"coalesce": True, "max_instances": 1, "misfire_grace_time": None}
        self._scheduler = AsyncIOScheduler(timezone=UTC, job_defaults=defaults)
        logging.getLogger("apscheduler").setLevel(logging.WARNING)
        self._wall = wall
        self._look = look
        self._again: dict[str, Callable[[], None]] = {}
        self._watch: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._scheduler.start()
        self._watch = asyncio.create_task(self._watch_the_wall(), name="clock")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._watch is not None
        self._watch.cancel()
        await asyncio.wait({self._watch})
        self._scheduler.shutdown(wait=False)
        await asyncio.sleep(0)  # its shutdown takes effect in the loop's next turn

    def every(self, name: str, interval: timedelta, tick: Callable[[], None]) -> None:
        """Tick at once and then each `interval`.

        "At once" is within two seconds, by the hash of `name`; the ticks that follow keep that phase, so that instances
        configured alike do not tick together.
        """
        self._start(name, tick, IntervalTrigger(seconds=interval.total_seconds(), timezone=UTC))

    def by_cron(self, name: str, expression: str, tick: Callable[[], None]) -> None:
        """Tick at once and then by a cron expression of five fields."""
        self._start(name, tick, cron_trigger(expression))

    def at(self, name: str, moment: datetime | None, tick: Callable[[], None]) -> None:
        """Tick once, at `moment` or at once if it is past. It replaces the former one; None only removes it."""
        if moment is not None:
            self._add(name, tick, DateTrigger(run_date=moment, timezone=UTC), max(moment, self._wall()))
        elif self._scheduler.get_job(name) is not None:
            self._scheduler.remove_job(name)

    def remove(self, instance: str) -> None:
        """Forget every job of an instance."""
        mine = f":{instance}"
        # APScheduler itself forgets a job that never runs again (a cron expression that has no next time).
        self._again = {name: again for name, again in self._again.items() if not name.endswith(mine)}
        for job in self._scheduler.get_jobs():
            if job.id.endswith(mine):
                job.remove()

    def pause(self) -> None:
        """Tick no more; a drain has begun."""
        self._scheduler.pause()

    def next_runs(self) -> dict[str, str]:
        """When each job ticks next, for the dump of the process's state."""
        return {job.id: str(job.next_run_time) for job in self._scheduler.get_jobs()}

    def _start(self, name: str, tick: Callable[[], None], trigger: object) -> None:
        def again() -> None:
            self._add(name, tick, trigger, self._wall() + FIRST_WITHIN * spread(name, "phase"))

        self._again[name] = again
        again()

    def _add(self, name: str, tick: Callable[[], None], trigger: object, first: datetime) -> None:
        async def job() -> None:  # a coroutine runs in the loop; a plain function would run in a thread
            tick()

        self._scheduler.add_job(job, trigger, id=name, next_run_time=first, replace_existing=True)

    async def _watch_the_wall(self) -> None:
        """After a leap of the wall's clock (NTP, a resumed machine) whatever is regular begins anew, at once."""
        ahead = self._ahead()
        while True:
            await asyncio.sleep(self._look)
            before, ahead = ahead, self._ahead()
            leapt = ahead - before
            if abs(leapt) >= LEAP:
                log.warning("clock_leapt", seconds=round(leapt.total_seconds()))
                for again in self._again.values():
                    again()
            self._scheduler.wakeup()

    def _ahead(self) -> timedelta:
        """How far the wall's clock is ahead of the one that never leaps."""
        return self._wall() - datetime.fromtimestamp(time.monotonic(), UTC)

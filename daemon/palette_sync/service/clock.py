"""The clock of the daemon: APScheduler, whose jobs do no work. They only put requests into the runners' mailboxes.

Facts about APScheduler 3.11 that shape this module:

- It skips a run while the job is still busy, so no job is ever busy.
- It drops a run that is more than a second late, unless `misfire_grace_time` is None.
- The first run of an interval comes after one interval, unless the job is given a first time.
- `shutdown(wait=True)` cancels running jobs instead of waiting for them.
- Its timers use the event loop's time, which stops while the machine is suspended. So this module compares that time
  with the wall clock every few seconds.
"""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.date import DateTrigger
from apscheduler.triggers.interval import IntervalTrigger

from palette_sync.core.cron import check_cron, next_run
from palette_sync.core.rotation import spread

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

log = structlog.get_logger(__name__)

FIRST_WITHIN = timedelta(seconds=2)
CHECK_INTERVAL = 15.0  # seconds between two comparisons with the wall clock
LEAP = timedelta(seconds=30)  # a difference at least this large counts as a leap


class _CronTrigger(BaseTrigger):  # type: ignore[misc]  # the library has no types
    """Hands APScheduler the moments that `core.cron` reads from an expression."""

    def __init__(self, expression: str) -> None:
        self._expression = expression

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None:
        return next_run(self._expression, previous_fire_time or now)


class Clock:
    """Runs jobs named `<kind>:<instance>` while its context is open. All times are in UTC."""

    def __init__(
        self, *, wall: Callable[[], datetime] = lambda: datetime.now(UTC), check_interval: float = CHECK_INTERVAL
    ) -> None:
        defaults = {"coalesce": True, "max_instances": 1, "misfire_grace_time": None}
        self._scheduler = AsyncIOScheduler(timezone=UTC, job_defaults=defaults)
        logging.getLogger("apscheduler").setLevel(logging.WARNING)
        self._wall = wall
        self._check_interval = check_interval
        self._restarts: dict[str, Callable[[], None]] = {}
        self._watch: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._scheduler.start()
        self._watch = asyncio.create_task(self._watch_the_wall_clock(), name="clock")
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
        """Tick at once and then every `interval`.

        "At once" is within two seconds, spread by the hash of `name`. Later ticks keep that phase, so that instances
        with the same interval do not tick together.
        """
        self._start(name, tick, IntervalTrigger(seconds=interval.total_seconds(), timezone=UTC))

    def by_cron(self, name: str, expression: str, tick: Callable[[], None]) -> None:
        """Tick at once and then by a cron expression of five fields. Raises ValueError."""
        check_cron(expression)
        self._start(name, tick, _CronTrigger(expression))

    def at(self, name: str, moment: datetime | None, tick: Callable[[], None]) -> None:
        """Tick once, at `moment` or at once if that is past. Replaces an earlier moment; None removes it."""
        if moment is not None:
            self._add(name, tick, DateTrigger(run_date=moment, timezone=UTC), max(moment, self._wall()))
        elif self._scheduler.get_job(name) is not None:
            self._scheduler.remove_job(name)

    def cancel(self, name: str) -> None:
        """Remove a job, if there is one of that name."""
        self._restarts.pop(name, None)
        if self._scheduler.get_job(name) is not None:
            self._scheduler.remove_job(name)

    def remove(self, instance: str) -> None:
        """Remove every job of an instance."""
        suffix = f":{instance}"
        # APScheduler itself removes a job that has no next run, so the two can differ.
        self._restarts = {name: restart for name, restart in self._restarts.items() if not name.endswith(suffix)}
        for job in self._scheduler.get_jobs():
            if job.id.endswith(suffix):
                job.remove()

    def pause(self) -> None:
        """Stop ticking; a drain has begun."""
        self._scheduler.pause()

    def next_run(self, name: str) -> datetime | None:
        """When a job ticks next; None if there is no such job, or it does not tick any more."""
        job = self._scheduler.get_job(name)
        return getattr(job, "next_run_time", None)

    def next_runs(self) -> dict[str, str]:
        """When each job ticks next, for the dump of the state."""
        return {job.id: str(job.next_run_time) for job in self._scheduler.get_jobs()}

    def _start(self, name: str, tick: Callable[[], None], trigger: object) -> None:
        def restart() -> None:
            self._add(name, tick, trigger, self._wall() + FIRST_WITHIN * spread(name, "phase"))

        self._restarts[name] = restart
        restart()

    def _add(self, name: str, tick: Callable[[], None], trigger: object, first: datetime) -> None:
        async def job() -> None:  # a coroutine runs in the loop; a plain function would run in a thread
            tick()

        self._scheduler.add_job(job, trigger, id=name, next_run_time=first, replace_existing=True)

    async def _watch_the_wall_clock(self) -> None:
        """Restart all regular jobs after the wall clock leapt (NTP, a resumed machine)."""
        ahead = self._ahead()
        while True:
            await asyncio.sleep(self._check_interval)
            before, ahead = ahead, self._ahead()
            leapt = ahead - before
            if abs(leapt) >= LEAP:
                log.warning("clock_leapt", seconds=round(leapt.total_seconds()))
                for restart in self._restarts.values():
                    restart()
            self._scheduler.wakeup()

    def _ahead(self) -> timedelta:
        """How far the wall clock is ahead of the monotonic clock."""
        return self._wall() - datetime.fromtimestamp(time.monotonic(), UTC)

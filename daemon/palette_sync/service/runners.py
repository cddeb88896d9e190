"""All runners of the daemon: started, reconfigured, stopped, and their status passed on to metrics and clock."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from palette_sync.assembly.instance import runtime_of
from palette_sync.runner import Runner, RunnerState

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from palette_sync.assembly.instance import Shared
    from palette_sync.config import InstanceSettings
    from palette_sync.core.model import InstanceState, Pause
    from palette_sync.core.prune import FilterReview
    from palette_sync.core.reasons import Reason
    from palette_sync.reconcile.report import PassReport
    from palette_sync.runner import InstanceRuntime, RunnerStatus
    from palette_sync.runner.elections import Elections
    from palette_sync.runner.mailbox import PausedFuture, ReportFuture
    from palette_sync.service.activity import Activity
    from palette_sync.service.clock import Clock
    from palette_sync.service.garbage_collection import IdleCollector
    from palette_sync.service.tasks import GuardedTasks
    from palette_sync.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

KEY_CHECK = timedelta(days=1)  # between two looks at the expiry of an API key


@dataclass(frozen=True, slots=True)
class _Running:
    runner: Runner
    task: asyncio.Task[None]

    def stop(self) -> None:
        self.runner.stop()
        if self.runner.idle:
            self.task.cancel()


class Runners:
    """One runner per configured instance, each in a task of its own. It is the `Observer` of all of them.

    `changed` is set whenever the status of a runner changes; whoever waits for it clears it. `elections` decides which
    of several processes leads; it is set before the first runner starts.
    """

    def __init__(
        self,
        tasks: GuardedTasks,
        clock: Clock,
        metrics: Metrics,
        collector: IdleCollector,
        activity: Activity,
        *,
        late: asyncio.Event,
    ) -> None:
        self.changed = asyncio.Event()
        self._tasks = tasks
        self._clock = clock
        self._metrics = metrics
        self._collector = collector
        self._activity = activity
        self._late = late
        self.elections: Elections | None = None
        self._running: dict[str, _Running] = {}
        self._leaving: list[asyncio.Task[None]] = []
        self._resync_at_start = False

    def __iter__(self) -> Iterator[Runner]:
        return (one.runner for one in self._running.values())

    def settle(self) -> None:
        """Bring the counts of clusters up to this second, at which tokens may have expired, whatever a runner does."""
        for one in self._running.values():
            if one.runner.settle():
                self.status_changed(one.runner)

    def statuses(self) -> dict[str, RunnerStatus]:
        return {name: one.runner.status for name, one in self._running.items()}

    def states(self) -> dict[str, InstanceState]:
        """The last known snapshot of each instance that has one."""
        return {name: state for name, one in self._running.items() if (state := one.runner.last_state) is not None}

    def leading(self) -> list[str]:
        """The instances whose lease this process holds."""
        return [name for name, status in self.statuses().items() if status.state is RunnerState.LEADING]

    def ours(self) -> list[str]:
        """The instances that no other process leads, as far as this one knows."""
        return [name for name, status in self.statuses().items() if status.state is not RunnerState.STANDBY]

    def ended(self) -> list[str]:
        """The instances whose runner has ended although nobody removed it."""
        return [name for name, one in self._running.items() if one.task.done()]

    # -- which instances run ----------------------------------------------------------------------------------------

    def runtimes(self, shared: Shared) -> dict[str, InstanceRuntime]:
        """Make all instances ready to run. Raises StartError."""
        return {
            name: runtime_of(
                shared, name, recorder=self._metrics.recorder(name), kube_recorder=self._metrics.kube_recorder(name)
            )
            for name in shared.settings.instances
        }

    def start(self, runtimes: Mapping[str, InstanceRuntime], settings: Mapping[str, InstanceSettings]) -> None:
        """Start the first runners. If a resync was asked for before, it is theirs."""
        for name, runtime in runtimes.items():
            self.add(runtime, settings[name])
        if self._resync_at_start:
            self._put_resync()

    def add(self, runtime: InstanceRuntime, settings: InstanceSettings) -> None:
        runner = Runner(runtime, self, late=self._late, elections=self.elections)
        task = self._tasks.start(runner.run(), name=f"runner:{runner.instance}")
        self._running[runner.instance] = _Running(runner, task)
        self._schedule(runner, settings)

    def configure(self, runtime: InstanceRuntime, settings: InstanceSettings, *, changed: bool) -> None:
        """Give a runner its new runtime. If its own settings `changed`, it runs a pass at once."""
        runner = self._running[runtime.policy.instance].runner
        runner.configure(runtime, at_once=changed)
        if changed:
            self._schedule(runner, settings)

    def review(self, runtimes: Mapping[str, InstanceRuntime]) -> dict[str, FilterReview]:
        """What the filters of new runtimes mean for the instances that run, where they differ from those in force."""
        return {
            name: one.runner.review(runtimes[name].policy.filters)
            for name, one in self._running.items()
            if name in runtimes and runtimes[name].policy.filters != one.runner.filters
        }

    def remove(self, name: str) -> None:
        """Stop a runner. It finishes the pass it is in; its records stay in Redis, orphaned."""
        gone = self._running.pop(name)
        self._clock.remove(name)
        gone.stop()
        self._leaving = [task for task in (*self._leaving, gone.task) if not task.done()]
        gone.task.add_done_callback(lambda _: self._metrics.forget(name) if name not in self._running else None)

    def stop_all(self) -> set[asyncio.Task[None]]:
        """Ask every runner to stop, and return the tasks that have not ended yet."""
        for one in self._running.values():
            one.stop()
        return {task for task in (*(one.task for one in self._running.values()), *self._leaving) if not task.done()}

    def _schedule(self, runner: Runner, settings: InstanceSettings) -> None:
        name = runner.instance
        if settings.refresh_cron is not None:
            self._clock.by_cron(f"discover:{name}", settings.refresh_cron, runner.mailbox.tick)
        else:
            self._clock.every(f"discover:{name}", settings.refresh_interval, runner.mailbox.tick)
        if settings.peek_interval:
            self._clock.every(f"peek:{name}", settings.peek_interval, runner.mailbox.peek)
        else:
            self._clock.cancel(f"peek:{name}")
        self._clock.every(f"key:{name}", KEY_CHECK, runner.mailbox.check_key)

    # -- what people ask for ----------------------------------------------------------------------------------------

    def ask(self, instance: str, *, allow_prune: bool) -> ReportFuture | None:
        """Ask for a resync of one instance. Returns None if the instance is not run any more."""
        running = self._running.get(instance)
        return running.runner.mailbox.ask(allow_prune=allow_prune) if running else None

    def ask_cluster(self, instance: str, uid: str, *, rotate: bool, revoke: bool = False) -> ReportFuture | None:
        """Ask for work on one cluster. Returns None if the instance is not run any more."""
        running = self._running.get(instance)
        return running.runner.mailbox.ask_cluster(uid, rotate=rotate, revoke=revoke) if running else None

    def pause(self, instance: str, uid: str, pause: Pause | None) -> PausedFuture | None:
        """Ask for a pause of one cluster, or for its end. Returns None if the instance is not run any more."""
        running = self._running.get(instance)
        return running.runner.mailbox.pause(uid, pause) if running else None

    def resync_all(self) -> None:
        self._resync_at_start = not self._running
        self._put_resync()

    def _put_resync(self) -> None:
        for runner in self:
            runner.mailbox.resync()

    # -- what runners report (runner.Observer) ----------------------------------------------------------------------

    def pass_finished(self, report: PassReport, *, listed: bool) -> None:
        self._metrics.observe(report, listed=listed)
        self._activity.pass_finished(report, listed=listed)

    def pass_failed(self, instance: str, reason: Reason) -> None:
        self._metrics.observe_failure(instance, reason)
        self._activity.pass_failed(instance, reason)

    def store_failed(self, instance: str) -> None:
        self._metrics.store_failed(instance)

    def status_changed(self, runner: Runner) -> None:
        """Wake the runner when something will be due, update its metrics, and collect garbage once all are idle."""
        name, status = runner.instance, runner.status
        if name not in self._running or self._running[name].runner is not runner:
            return
        leading = status.state is RunnerState.LEADING
        if status.state is RunnerState.STANDBY:
            self._metrics.forget(name)  # the process that leads exports them
        self._metrics.leading(name, leading)
        self._clock.at(f"due:{name}", status.wakes_at if leading else None, runner.mailbox.nudge)
        if leading or status.state is RunnerState.STORELESS:
            self._metrics.attempted(name, status.attempted_at)
            self._metrics.first_lapse(name, status.first_lapse, renewals_failing=status.renewals_failing)
            if status.read:
                self._metrics.clusters(name, status.access, status.reasons)
                self._metrics.scopes_failing(name, len(status.scopes_failing))
                self._metrics.paused(name, status.paused)
            self._metrics.held(name, status.held, since=status.held_since, until=status.held_until)
            self._metrics.api_key(name, status.key_expires_at)
        self.changed.set()
        if all(one.status.busy_since is None for one in self):
            self._collector.collect()

"""The daemon: a runner for each instance, the clock that wakes them, and what signals and requests do to them.

It owns every task. A runner that ends by an exception is a bug: the others are drained, and the process fails.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import TYPE_CHECKING

import structlog

from palette_sync import __version__
from palette_sync.assembly.instance import Shared, reconfigured, runtime_of
from palette_sync.assembly.store import StartError, utc_now
from palette_sync.config import ConfigError, load
from palette_sync.core.documents import format_time
from palette_sync.events import Interrupted, unless, wait_any
from palette_sync.runner import Runner, RunnerState
from palette_sync.service import signals
from palette_sync.service.clock import Clock
from palette_sync.service.garbage_collection import Collector
from palette_sync.service.requests import serve_requests
from palette_sync.store.redis import StoreError, StoreUnavailable
from palette_sync.store.seal import SealKeyError
from palette_sync.telemetry.endpoint import Endpoint
from palette_sync.telemetry.logs import configure_logging
from palette_sync.telemetry.status import SERVED, instance_document, status_line

if TYPE_CHECKING:
    from collections.abc import Collection, Coroutine, Mapping
    from pathlib import Path
    from typing import Any

    from palette_sync.config import Settings
    from palette_sync.core.reasons import Reason
    from palette_sync.reconcile.report import PassReport
    from palette_sync.runner.instance import InstanceRuntime
    from palette_sync.runner.mailbox import ReportFuture
    from palette_sync.service.systemd import Notifier
    from palette_sync.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

KEY_CHECK = timedelta(days=1)
START_TIMEOUT = 30.0  # seconds more that the supervisor is asked for while Redis is away
REDIS_PAUSE = 2.0  # seconds between two attempts to reach Redis at start-up
NUDGE = 5.0  # seconds between two such requests
QUEUE = 10  # entries of a due queue that a dump shows


class Outcome(Enum):
    """How a run ended: `STOPPED` as asked, after a drain; `CRASHED` by a bug, after a drain of what still ran."""

    STOPPED = "stopped"
    CRASHED = "crashed"


@dataclass
class _Running:
    runner: Runner
    task: asyncio.Task[None]


class Service:
    """Runs until SIGTERM, SIGINT or a crash. `shared` is replaced as a whole by a reload."""

    def __init__(self, path: Path, shared: Shared, *, notifier: Notifier, metrics: Metrics) -> None:
        self.shared = shared
        self._path = path
        self._notifier = notifier
        self._metrics = metrics
        self._started_at = utc_now()
        self._loaded_at = self._started_at
        self._rejected: list[str] = []
        self._running: dict[str, _Running] = {}
        self._leaving: list[asyncio.Task[None]] = []
        self._late = asyncio.Event()
        self._stop = asyncio.Event()
        self._failed = asyncio.Event()
        self._reload_wanted = asyncio.Event()
        self._moved = asyncio.Event()
        self._reloading = asyncio.Lock()
        self._reloads_asked = 0
        self._reloads_met = 0
        self._collector = Collector()
        self._ready = False
        self._told = ""
        self._orphaned: tuple[str, ...] = ()
        self._early_resync = False

    async def run(self) -> Outcome:
        """Run until asked to stop, or until a task crashes. Raises EndpointError, StartError, StoreError."""
        async with AsyncExitStack() as stack:
            self._arm = stack.enter_context(signals.watchdog())
            if self.shared.settings.http.listen:
                endpoint = await stack.enter_async_context(Endpoint(self.shared.settings.http.listen, self))
                log.info("endpoint_open", url=endpoint.url)
            for name in self.shared.settings.instances:
                self._metrics.leading(name, False)
            self._collector.begin()
            self._clock = await stack.enter_async_context(Clock())
            stack.enter_context(
                signals.handled(
                    reload=self._reload_wanted.set, resync=self._resync_all, dump=self.dump, stop=self._begin_stop
                )
            )
            if not await self._redis_answers():
                log.info("daemon_stopped", reason="asked to")
                return Outcome.STOPPED
            self._group = group = await stack.enter_async_context(asyncio.TaskGroup())
            for name in self.shared.settings.instances:
                self._add(name, self._runtime(self.shared, name))
                if self._early_resync:
                    self._running[name].runner.mailbox.resync()
            side = [
                group.create_task(self._guarded(work), name=name)
                for name, work in {
                    "ready": self._announce(),
                    "requests": serve_requests(self),
                    "supervisor": self._feed_supervisor(),
                    "reload": self._reload_on_demand(),
                }.items()
            ]
            await wait_any(self._stop, self._failed)
            for task in side:
                task.cancel()
            await self._drain(side)
        log.info("daemon_stopped", reason="crash" if self._failed.is_set() else "asked to")
        return Outcome.CRASHED if self._failed.is_set() else Outcome.STOPPED

    # -- runners ----------------------------------------------------------------------------------------------------

    def _add(self, name: str, runtime: InstanceRuntime) -> None:
        runner = Runner(runtime, self, late=self._late)
        task = self._group.create_task(self._guarded(runner.run()), name=f"runner:{name}")
        self._running[name] = _Running(runner, task)
        self._schedule(runner)

    def _runtime(self, shared: Shared, name: str) -> InstanceRuntime:
        return runtime_of(
            shared, name, recorder=self._metrics.recorder(name), kube_recorder=self._metrics.kube_recorder(name)
        )

    def _schedule(self, runner: Runner) -> None:
        name, settings = runner.instance, self.shared.settings.instances[runner.instance]
        if settings.refresh_cron is not None:
            self._clock.by_cron(f"discover:{name}", settings.refresh_cron, runner.mailbox.tick)
        else:
            self._clock.every(f"discover:{name}", settings.refresh_interval, runner.mailbox.tick)
        self._clock.every(f"key:{name}", KEY_CHECK, runner.mailbox.check_key)

    def _remove(self, name: str) -> None:
        """What is admitted is finished; its records stay in Redis, orphaned."""
        gone = self._running.pop(name)
        self._clock.remove(name)
        self._stop_runner(gone)
        self._leaving = [task for task in (*self._leaving, gone.task) if not task.done()]
        gone.task.add_done_callback(lambda _: self._metrics.forget(name) if name not in self._running else None)

    @staticmethod
    def _stop_runner(running: _Running) -> None:
        running.runner.stop()
        if running.runner.status.busy_since is None:
            running.task.cancel()  # it only waits

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        """Whatever raises here is a bug; it ends the process, after a drain of the rest."""
        task = asyncio.current_task()
        try:
            await work
        except Exception:
            log.critical("daemon_crashed", exc_info=True)
            self._failed.set()
        except asyncio.CancelledError:
            if task is None or not task.cancelling():  # a library's own; nobody asked this task to end
                log.critical("daemon_crashed", exc_info=True)
                self._failed.set()
            raise

    # -- what runners tell (runner.Observer) ------------------------------------------------------------------------

    def pass_finished(self, report: PassReport, *, listed: bool) -> None:
        self._metrics.observe(report, listed=listed)

    def pass_failed(self, instance: str, reason: Reason) -> None:
        self._metrics.observe_failure(instance, reason)

    def settled(self, runner: Runner) -> None:
        """Its standing changed: wake it when something is due, and tell whoever looks."""
        name, status = runner.instance, runner.status
        if self._running.get(name) is None or self._running[name].runner is not runner:
            return
        if status.state is RunnerState.STANDBY:
            self._metrics.forget(name)  # who leads tells of it
        self._metrics.leading(name, status.state is RunnerState.LEADING)
        self._clock.at(
            f"due:{name}", status.wakes_at if status.state is RunnerState.LEADING else None, runner.mailbox.nudge
        )
        if status.state in {RunnerState.LEADING, RunnerState.STORELESS}:
            self._metrics.attempted(name, status.attempted_at)
            self._metrics.first_lapse(name, status.first_lapse, renewals_failing=status.renewals_failing)
            self._metrics.api_key(name, status.key_expires_at)
        self._moved.set()
        if all(one.runner.status.busy_since is None for one in self._running.values()):
            self._collector.rest()

    # -- what signals and requests do (requests.Commanded) ------------------------------------------------------------

    def led(self) -> Collection[str]:
        return [name for name, one in self._running.items() if one.runner.status.state is RunnerState.LEADING]

    def ask(self, instance: str, *, allow_prune: bool) -> ReportFuture | None:
        running = self._running.get(instance)
        return running.runner.mailbox.ask(allow_prune=allow_prune) if running else None

    def _resync_all(self) -> None:
        log.info("signal_received", action="resync", signal="SIGUSR1")
        self._early_resync = not self._running
        for one in self._running.values():
            one.runner.mailbox.resync()

    def _begin_stop(self) -> bool:
        first = not self._stop.is_set()
        self._stop.set()
        return first

    async def _reload_on_demand(self) -> None:
        while True:
            await self._reload_wanted.wait()
            self._reload_wanted.clear()
            log.info("signal_received", action="reload", signal="SIGHUP")
            await self.reload()

    async def reload(self) -> list[str]:
        """Apply the configuration as it is now. What is in flight goes on. Returns the problems; none = applied.

        Whoever asks while one is under way shares the next: `palette-sync reload` asks once for each instance.
        """
        asked = self._reloads_asked = self._reloads_asked + 1
        async with self._reloading:
            if self._reloads_met >= asked:
                return self._rejected
            self._reloads_met = self._reloads_asked
            started = self._ready  # who is not ready yet does not become so by a reload
            if started:
                self._notifier.reloading()
            try:
                settings = await asyncio.to_thread(load, self._path)
                shared = reconfigured(self.shared, settings)
                made = {name: self._runtime(shared, name) for name in settings.instances}
                self._rejected = []
            except (ConfigError, StartError, SealKeyError) as error:
                self._rejected = getattr(error, "problems", [str(error)])
            except Exception as error:  # whatever a file may hold, the running configuration stays
                log.exception("unexpected_error", error=type(error).__name__)
                self._rejected = [f"{self._path}: {type(error).__name__}; the log has the traceback"]
            if self._rejected:
                log.error("config_rejected", problems=self._rejected, reason="the running configuration stays")
            else:
                self._apply(shared, made)
                await self._find_orphaned()
            if started:
                self._notifier.ready(self._line())
            return self._rejected

    def _apply(self, shared: Shared, made: Mapping[str, InstanceRuntime]) -> None:
        before, self.shared = self.shared, shared
        old, new = before.settings, shared.settings
        configure_logging(level=new.service.log_level, style=new.service.log_format)
        shared.store.use(shared.sealer)
        removed, added = old.instances.keys() - new.instances.keys(), new.instances.keys() - old.instances.keys()
        everywhere = (old.seal, old.service) != (new.seal, new.service)
        changed = {
            name
            for name in new.instances.keys() & old.instances.keys()
            if everywhere or old.instances[name] != new.instances[name]
        }
        for name in removed:
            self._remove(name)
        for name in added:
            self._add(name, made[name])
        for name in new.instances.keys() - added:
            runner = self._running[name].runner
            runner.configure(made[name], at_once=name in changed)
            if name in changed:
                self._schedule(runner)
        self._loaded_at = utc_now()
        log.info(
            "config_reloaded",
            added=sorted(added),
            removed=sorted(removed),
            changed=sorted(changed),
            restart_needed=_restart_needed(old, new),
        )

    async def _find_orphaned(self) -> None:
        """Instances that are published and not configured; nobody drops them silently."""
        with suppress(StoreError):
            found = await self.shared.store.instances() - self.shared.settings.instances.keys()
            if tuple(sorted(found)) != self._orphaned:
                self._orphaned = tuple(sorted(found))
                log.info("instances_orphaned", names=self._orphaned, reason="published, but not configured any more")

    # -- health (telemetry.endpoint.Probes) -------------------------------------------------------------------------

    def not_live(self) -> list[str]:
        return [f"the runner of {name} has ended" for name, one in self._running.items() if one.task.done()]

    def not_ready(self) -> list[str]:
        if not self._running:
            return ["Redis has not answered yet"]
        return [
            f"{name}: no snapshot was published or read yet ({one.runner.status.detail or 'starting'})"
            for name, one in self._running.items()
            if not one.runner.status.read
        ]

    def metrics(self) -> tuple[bytes, str]:
        return self._metrics.render()

    def status(self) -> Mapping[str, object]:
        now = utc_now()
        return {
            "version": __version__,
            "pid": os.getpid(),
            "started_at": format_time(self._started_at),
            "now": format_time(now),
            "state": "stopping" if self._stop.is_set() else "ready" if self._ready else "starting",
            "config": {"loaded_at": format_time(self._loaded_at), "rejected": self._rejected},
            "orphaned": list(self._orphaned),
            "instances": {name: instance_document(one.runner.status, now) for name, one in self._running.items()},
        }

    def dump(self) -> None:
        """SIGUSR2: the state of everything, one line each."""
        log.info("state_dump", **self.status(), jobs=self._clock.next_runs())
        for name, one in self._running.items():
            pending = one.runner.mailbox.pending
            queue = [{"at": format_time(at), "cluster": uid} for at, uid in one.runner.due_queue(QUEUE)]
            log.info(
                "state_dump_instance",
                instance=name,
                mailbox={word: getattr(pending, word) for word in ("listing", "known", "resync", "allow_prune", "key")},
                waiting_answers=len(pending.answers),
                due=queue,
            )
        for name, where in signals.tasks():
            log.info("state_dump_task", task=name, where=where)

    async def _redis_answers(self) -> bool:
        """Wait for Redis as long as it takes, or until stopped. Raises StoreError for what waiting does not mend."""
        told = False
        patience = asyncio.create_task(self._ask_for_patience(), name="patience")
        try:
            while not self._stop.is_set():
                try:
                    await unless(self._stop, self.shared.store.ping(), name="ping")
                except Interrupted:
                    break
                except StoreUnavailable as error:
                    if not told:
                        log.warning("waiting_for_store", reason=str(error))
                        told = True
                    self._notifier.status(f"waiting for Redis: {error}")
                    await wait_any(self._stop, timeout=REDIS_PAUSE)
                else:
                    return True
            return False
        finally:
            patience.cancel()

    async def _ask_for_patience(self) -> None:
        """Beside the attempts: a Redis that hangs makes one of them longer than what was asked for."""
        while True:
            self._notifier.extend_timeout(START_TIMEOUT)
            await asyncio.sleep(NUDGE)

    # -- the supervisor ---------------------------------------------------------------------------------------------

    async def _announce(self) -> None:
        """READY once Redis answers and every runner stands; until then ask for patience."""
        while not all(one.runner.status.state in SERVED for one in self._running.values()):
            self._moved.clear()
            self._notifier.extend_timeout(START_TIMEOUT)
            self._tell()
            await wait_any(self._moved, timeout=NUDGE)
        self._ready = True
        self._notifier.ready(self._line())
        log.info("daemon_ready", instances=sorted(self._running), pid=os.getpid(), version=__version__)
        await self._find_orphaned()

    async def _feed_supervisor(self) -> None:
        """The status line as it changes, and the watchdog's food: from this loop, and only while runners live."""
        pause = self._notifier.watchdog_interval or NUDGE
        while True:
            if not self.not_live():
                self._notifier.watchdog()
            if self._ready:
                self._tell()
            await asyncio.sleep(min(pause, NUDGE))

    def _tell(self) -> None:
        line = self._line()
        if line != self._told:
            self._told = line
            self._notifier.status(line)

    def _line(self) -> str:
        rejected = f"the configuration was rejected: {self._rejected[0]}; " if self._rejected else ""
        statuses = {name: one.runner.status for name, one in self._running.items()}
        return rejected + status_line(statuses, utc_now())

    # -- the end ----------------------------------------------------------------------------------------------------

    async def _drain(self, side: list[asyncio.Task[None]]) -> None:
        """Admit nothing, finish what is admitted within `grace`, cancel what is late, publish what was issued."""
        service = self.shared.settings.service
        grace, deadline = service.grace.total_seconds(), service.deadline.total_seconds()
        self._notifier.stopping()
        log.info("daemon_stopping", grace_s=grace, deadline_s=deadline)
        self._clock.pause()
        running = {one.task for one in self._running.values()}
        tasks = {task for task in (*running, *self._leaving, *side) if not task.done()}
        self._arm(deadline)
        late = asyncio.get_running_loop().call_later(grace, self._late.set)
        for one in self._running.values():
            self._stop_runner(one)
        if tasks:
            await asyncio.wait(tasks)
        late.cancel()


def _restart_needed(old: Settings, new: Settings) -> list[str]:
    """Settings that a reload cannot apply."""
    return [name for name in ("redis", "http") if getattr(old, name) != getattr(new, name)]

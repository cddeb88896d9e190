"""The daemon from its start to the end of its drain. It owns every task and ties the parts of `service` together."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from contextlib import AsyncExitStack
from enum import Enum
from typing import TYPE_CHECKING

import structlog

from palette_sync.assembly.store import utc_now
from palette_sync.events import wait_any
from palette_sync.page.routes import routes as page_routes
from palette_sync.runner import RunnerState
from palette_sync.service import signals
from palette_sync.service.activity import Activity
from palette_sync.service.clock import Clock
from palette_sync.service.configuration import ActiveConfiguration
from palette_sync.service.garbage_collection import IdleCollector
from palette_sync.service.health import Health
from palette_sync.service.membership import Membership
from palette_sync.service.page import PageSource
from palette_sync.service.reload import Reloader
from palette_sync.service.requests import ask_others_to_reload, send_all_again, serve_requests
from palette_sync.service.runners import Runners
from palette_sync.service.supervisor import Supervisor
from palette_sync.service.tasks import GuardedTasks
from palette_sync.telemetry.endpoint import Endpoint
from palette_sync.telemetry.traces import traces

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from palette_sync.assembly.instance import Shared
    from palette_sync.core.model import InstanceState, Pause
    from palette_sync.runner.mailbox import PausedFuture, ReportFuture
    from palette_sync.runner.status import Progress
    from palette_sync.service.reload import Reloaded
    from palette_sync.service.systemd import Notifier
    from palette_sync.store.control import Request
    from palette_sync.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

ORPHANED_CHECK = 600.0  # seconds between two looks for orphaned instances
OWN_REQUESTS = 100  # ids of requests that are remembered


class Outcome(Enum):
    """How a run ended: `STOPPED` on request, `CRASHED` by a bug. In both cases what still ran was drained."""

    STOPPED = "stopped"
    CRASHED = "crashed"


OTHERS_FILL = 2.0  # seconds beyond `lease_ttl` that the leader of another instance needs to fill Redis again


class Daemon:
    """Runs until SIGTERM, SIGINT or a crash."""

    def __init__(self, path: Path, shared: Shared, *, notifier: Notifier, metrics: Metrics) -> None:
        self._metrics = metrics
        self._stop = asyncio.Event()
        self._late = asyncio.Event()
        self._reload_requested = asyncio.Event()
        self._tasks = GuardedTasks()
        self._clock = Clock()
        self._collector = IdleCollector()
        self._passed_on: list[Request] = []
        self._configuration = ActiveConfiguration(path, shared, loaded_at=utc_now())
        self._activity = Activity(self._configuration)
        self._runners = Runners(self._tasks, self._clock, metrics, self._collector, self._activity, late=self._late)
        self._membership = Membership(self._configuration, self._runners)
        shared.names.remembered = self._runners.states
        shared.names.others_lost = self._membership.others_lost
        shared.names.patience = self._membership.lease_ttl.total_seconds() + OTHERS_FILL
        self._runners.elections = self._membership
        self._supervisor = Supervisor(notifier, self._runners, self._configuration)
        self.own_requests: deque[str] = deque(maxlen=OWN_REQUESTS)
        self._reloader = Reloader(self._configuration, self._runners, self._supervisor)
        self._health = Health(
            self._configuration,
            self._runners,
            self._supervisor,
            self._membership,
            clock=self._clock,
            metrics=metrics,
            stopping=self._stop,
        )

    async def run(self) -> Outcome:
        """Run until asked to stop, or until a task crashes. Raises EndpointError, StartError, StoreError."""
        async with AsyncExitStack() as stack:
            set_deadline = stack.enter_context(signals.drain_deadline())
            await self._open_endpoint(stack)
            for name in self.shared.settings.instances:
                self._metrics.leading(name, False)
            self._configuration.log_exposed_secrets()
            self._collector.start()
            await stack.enter_async_context(self._clock)
            stack.enter_context(
                signals.handled(
                    reload=self._reload_requested.set,
                    resync=self._resync_all,
                    dump=self._health.dump,
                    stop=self._begin_stop,
                )
            )
            await stack.enter_async_context(traces(self.shared.settings.otel.endpoint))
            if await self._supervisor.wait_for_store(self.shared.store.ping, stop=self._stop):
                await stack.enter_async_context(self._tasks)
                self._runners.start(self._runners.runtimes(self.shared), self.shared.settings.instances)
                side_tasks = self._start_side_tasks()
                await wait_any(self._stop, self._tasks.crashed)
                for task in side_tasks:
                    task.cancel()
                await self._drain(side_tasks, set_deadline)
        crashed = self._tasks.crashed.is_set()
        log.info("daemon_stopped", reason="crash" if crashed else "asked to")
        return Outcome.CRASHED if crashed else Outcome.STOPPED

    async def _open_endpoint(self, stack: AsyncExitStack) -> None:
        http = self.shared.settings.http
        if http.listen:
            page = page_routes(PageSource(self._configuration, self._runners, self._health, self._activity))
            endpoint = await stack.enter_async_context(
                Endpoint(http.listen, self._health, hosts=http.hosts, routes=page)
            )
            log.info("endpoint_open", url=endpoint.url)

    def _start_side_tasks(self) -> list[asyncio.Task[None]]:
        """Everything beside the runners; a drain cancels these tasks first."""
        work = {
            "ready": self._become_ready(),
            "requests": serve_requests(self, self._passed_on),
            "members": self._membership.run(),
            "master": self.shared.store.link.follow_master(),
            "supervisor": self._supervisor.watch(),
            "reload": self._reload_on_signal(),
            "activity": self._activity.run(self._runners.ours),
        }
        return [self._tasks.start(one, name=name) for name, one in work.items()]

    async def _become_ready(self) -> None:
        """Announce it, then look for orphaned instances from time to time: their keys may be deleted at any time."""
        await self._supervisor.announce_ready()
        while True:
            await self._configuration.find_orphaned()
            await asyncio.sleep(ORPHANED_CHECK)

    async def _drain(self, side_tasks: list[asyncio.Task[None]], set_deadline: Callable[[float], None]) -> None:
        """Admit nothing more, finish what was admitted within `grace`, cancel the rest, publish what was issued."""
        service = self.shared.settings.service
        grace, deadline = service.grace.total_seconds(), service.deadline.total_seconds()
        self._supervisor.stopping()
        log.info("daemon_stopping", grace_s=grace, deadline_s=deadline)
        self._clock.pause()
        set_deadline(deadline)
        late = asyncio.get_running_loop().call_later(grace, self._late.set)
        last = [
            asyncio.create_task(self._membership.drain(), name="members:drain"),
            asyncio.create_task(self._activity.exchange(self._runners.ours()), name="activity:drain"),
        ]
        tasks = {*last} | self._runners.stop_all() | {task for task in side_tasks if not task.done()}
        if tasks:
            await asyncio.wait(tasks)
        late.cancel()
        await send_all_again(self, self._passed_on)
        await self._membership.leave()

    # -- signals ----------------------------------------------------------------------------------------------------

    def _resync_all(self) -> None:
        log.info("signal_received", action="resync", signal="SIGUSR1")
        self._note_signal("resync", "SIGUSR1")
        self._runners.resync_all()

    def _begin_stop(self) -> bool:
        """Returns False if a drain has begun before."""
        first = not self._stop.is_set()
        self._stop.set()
        return first

    async def _reload_on_signal(self) -> None:
        """SIGHUP does what `palette-sync reload` does: this process reloads at once, then it asks the others."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._reload_requested.wait()
                self._reload_requested.clear()
                log.info("signal_received", action="reload", signal="SIGHUP")
                self._note_signal("reload", "SIGHUP")
                await self.reload()
                others = [one.id for one in self._membership.company.members] if self._membership.company else []
                request_id = secrets.token_hex(8)
                self.own_requests.append(request_id)
                asking = ask_others_to_reload(self, others, request_id=request_id, by=f"SIGHUP of {self.member}")
                group.create_task(asking, name="reload:others")

    def _note_signal(self, action: str, signal: str) -> None:
        for instance in self.leading():
            self.note(instance, action, signal)

    # -- what requests may do (requests.Commands) -------------------------------------------------------------------

    @property
    def shared(self) -> Shared:
        return self._configuration.shared

    def leading(self) -> Collection[str]:
        return self._runners.leading()

    def has_left(self, instance: str) -> bool:
        if self._stop.is_set() or self._tasks.crashed.is_set():
            return True
        status = self._runners.statuses().get(instance)
        return status is not None and status.state is RunnerState.STANDBY

    def note(self, instance: str, action: str, by: str) -> None:
        self._activity.asked(instance, action, by)

    def ask(self, instance: str, *, allow_prune: bool) -> ReportFuture | None:
        return self._runners.ask(instance, allow_prune=allow_prune)

    @property
    def member(self) -> str:
        return self._membership.id

    def progress(self, instance: str) -> Progress | None:
        status = self._runners.statuses().get(instance)
        return status.progress if status is not None else None

    def state(self, instance: str) -> InstanceState | None:
        return self._runners.states().get(instance)

    def ask_cluster(self, instance: str, uid: str, *, rotate: bool, revoke: bool) -> ReportFuture | None:
        return self._runners.ask_cluster(instance, uid, rotate=rotate, revoke=revoke)

    def pause(self, instance: str, uid: str, pause: Pause | None) -> PausedFuture | None:
        return self._runners.pause(instance, uid, pause)

    async def reload(self, *, allow_prune: bool = False) -> Reloaded:
        reloaded = await self._reloader.reload(allow_prune=allow_prune)
        await self._membership.announce()
        return reloaded

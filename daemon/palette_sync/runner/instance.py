"""The runner of one instance: holds its lease, and passes whenever something is wanted.

Runners know nothing of each other, so that a hanging instance delays no other. What Redis does wrong is borne here, and
a pass never crashes the daemon; what this module itself does wrong is a bug and ends the process.
"""

from __future__ import annotations

import asyncio
import secrets
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol

import structlog

from palette_sync.core.candidates import Candidates
from palette_sync.core.reasons import Reason
from palette_sync.events import Interrupted, in_turns, unless, wait_any
from palette_sync.reconcile.run import run_pass
from palette_sync.runner.api_key import KeyWatch
from palette_sync.runner.mailbox import Mailbox, PassRequest
from palette_sync.runner.refill import joined, lost_something, lost_versions, refill, reseal
from palette_sync.runner.status import RunnerState, RunnerStatus
from palette_sync.store.lease import Lease
from palette_sync.store.redis import Fenced, LeaseHeld, LeaseLost, StoreError, VersionConflict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from palette_sync.core.model import InstanceState
    from palette_sync.core.policy import InstancePolicy
    from palette_sync.palette import PaletteClient
    from palette_sync.reconcile.ports import Ports, Rows, Unpublished
    from palette_sync.reconcile.report import PassReport
    from palette_sync.store.redis import Publisher, Store
    from palette_sync.store.seal import Sealer

log = structlog.get_logger(__name__)

STORE_PAUSES = (0.5, 1.0, 2.0, 5.0, 10.0)  # seconds before Redis is asked again; the last one repeats
TROUBLE_PAUSES = (
    1.0,
    2.0,
    5.0,
    10.0,
    30.0,
    60.0,
)  # seconds before a pass that failed, or left something out, is run again
# Seconds between a pass and the next that nobody asked for; doubled while such passes find nothing, so that no mistake
# in what is due makes a runner spin.
SHORTEST_PAUSE, LONGEST_PAUSE = 0.2, 30.0


@dataclass(frozen=True, slots=True)
class InstanceRuntime:
    """One configured instance, ready to be run; a reload replaces it between two passes.

    `ports` ties a pass together, given a client, the publisher and whether a token may be issued.
    """

    policy: InstancePolicy
    store: Store
    sealer: Sealer
    holder: str
    lease_ttl: float
    open_client: Callable[[], PaletteClient]
    ports: Callable[[PaletteClient, Publisher, Callable[[], bool]], Ports]
    api_key_name: str | None = None


class Observer(Protocol):
    """Who is told what a runner does. Called in the runner's turn: it must not wait."""

    def pass_finished(self, report: PassReport, *, listed: bool) -> None: ...

    def pass_failed(self, instance: str, reason: Reason) -> None: ...

    def settled(self, runner: Runner) -> None:
        """The runner's standing changed."""
        ...


class Runner:
    """Runs one instance until it is stopped. `mailbox` is how everybody talks to it, `standing` how it stands."""

    def __init__(
        self,
        runtime: InstanceRuntime,
        observer: Observer,
        *,
        late: asyncio.Event,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.instance = runtime.policy.instance
        self.mailbox = Mailbox()
        self.status = RunnerStatus(key_name=runtime.api_key_name)
        self._runtime = runtime
        self._observer = observer
        self._stopping = asyncio.Event()
        self._late = late
        self._clock = clock
        self._publisher: Publisher | None = None
        self._last_state: InstanceState | None = None
        # Epochs whose head does not hold all of the memory: it was being published when the store failed.
        self._unpublished_epochs: set[int] = set()
        self._rows: Rows = {}
        self._sealer: Sealer | None = None
        self._former: Lease | None = None
        self._troubles = 0
        self._store_failures = 0
        self._pause = SHORTEST_PAUSE
        self._key = KeyWatch(self.instance, self.status, clock=clock)

    # -- from outside -----------------------------------------------------------------------------------------------

    @property
    def stopping(self) -> bool:
        return self._stopping.is_set()

    def configure(self, runtime: InstanceRuntime, *, at_once: bool = True) -> None:
        """Use another configuration from the next pass on. `at_once`: that pass is wanted now.

        Without it nothing of this instance's own changed, but what is around it may have: its share of the places, or
        what a file holds that the configuration names.
        """
        self._runtime = runtime
        if at_once:
            self._publisher = None
            self.mailbox.put(PassRequest(listing=True, key=True))

    def stop(self) -> None:
        """Admit nothing more. What is admitted is finished, published, and then `run` returns."""
        self._stopping.set()

    def due_queue(self, most: int) -> list[tuple[datetime, str]]:
        """The next moments at which published clusters are due by themselves, with their uids."""
        return self._view(self._last_state).wakes(most) if self._last_state is not None else []

    async def run(self) -> None:
        """Hold the lease while it can be had, and pass whenever something is wanted. Returns once stopped."""
        try:
            while not self._stopping.is_set():
                await self._hold()
        finally:
            self.mailbox.close()
            self._stand(RunnerState.STOPPED)

    # -- the lease --------------------------------------------------------------------------------------------------

    async def _hold(self) -> None:
        runtime = self._runtime
        try:
            lease = await Lease.acquire(
                runtime.store, self.instance, ttl=runtime.lease_ttl, holder=runtime.holder, former=self._former
            )
            self._former = lease
            async with lease:
                try:
                    await self._lead(lease)
                except VersionConflict as error:
                    # Redis may have lost versions that readers have seen: under a new epoch none of them comes twice.
                    log.warning("store_changed", instance=self.instance, reason=str(error))
                    await self._rest(SHORTEST_PAUSE)
        except LeaseHeld as error:
            await self._stand_by(str(error), runtime)
        except (LeaseLost, Fenced) as error:
            log.warning("lease_lost", instance=self.instance, reason=str(error))
            self._stand(RunnerState.STORELESS, str(error))  # whether somebody else leads now is found out next
            await self._rest(SHORTEST_PAUSE)
        except Interrupted:
            return
        except StoreError as error:
            await self._wait_for_store(error)
        finally:
            self._publisher = None

    async def _stand_by(self, holder: str, runtime: InstanceRuntime) -> None:
        if self.status.state is not RunnerState.STANDBY:
            log.info("standing_by", instance=self.instance, reason=holder)
        if not self.status.read:
            with suppress(StoreError):
                self.status.settle(await runtime.store.load(self.instance), now=self._clock())
        self._stand(RunnerState.STANDBY, holder)
        await self._rest(runtime.lease_ttl / 2)

    async def _wait_for_store(self, error: StoreError) -> None:
        """Redis is away, or cannot be used: say so once, keep what is known, and come back, less and less often."""
        pause = STORE_PAUSES[min(self._store_failures, len(STORE_PAUSES) - 1)]
        self._store_failures += 1
        if self._store_failures == 1:
            log.warning("store_away", instance=self.instance, reason=str(error))
        self._stand(RunnerState.STORELESS, str(error))
        await self._rest(pause)

    def _store_works(self) -> None:
        if self._store_failures:
            log.info("store_back", instance=self.instance)
        self._store_failures = 0

    async def _lead(self, lease: Lease) -> None:
        self.status.busy_since = self._clock()  # what is being published again is not given up in the middle
        try:
            await self._settle(await self._open(lease))
        finally:
            self.status.busy_since = None
        self._stand(RunnerState.LEADING)
        if not self.mailbox.wanted.is_set():  # else the pass will show whether versions are taken too
            self._store_works()
        while not self._stopping.is_set():
            if self.mailbox.wanted.is_set():
                await self._serve(self.mailbox.take(), lease)
            await wait_any(self.mailbox.wanted, lease.lost, self._stopping)
            lease.check()

    async def _open(self, lease: Lease) -> Publisher:
        """Open the writer upon what the store holds now; where it lost something, publish that again first.

        Raises Interrupted, StoreError; VersionConflict where that takes a new epoch.
        """
        runtime = self._runtime
        reading = runtime.store.publisher(self.instance, epoch=lease.epoch, writer=runtime.holder)
        publisher = await unless(self._stopping, reading, name=f"read:{self.instance}")
        # What the former keys sealed is opened by them, also where a reload has replaced them outright.
        sealers = (runtime.sealer, *(() if self._sealer is None else (self._sealer,)))
        head = publisher.state.head
        incomplete = head is not None and head.epoch in self._unpublished_epochs
        if self._last_state is not None and (incomplete or lost_something(publisher.state, self._last_state)):
            if lost_versions(publisher.state, self._last_state, epoch=lease.epoch):
                raise VersionConflict(f"{self.instance}: Redis holds less than was published under this lease")
            self._unpublished_epochs.add(lease.epoch)
            await refill(publisher, self._last_state, instance=self.instance, sealers=sealers, now=self._clock())
        self._unpublished_epochs.clear()
        if runtime.sealer is not self._sealer:
            await reseal(publisher, instance=self.instance, sealers=sealers, now=self._clock())
            self._sealer = runtime.sealer
        self._publisher = publisher
        return publisher

    # -- passes -----------------------------------------------------------------------------------------------------

    async def _serve(self, request: PassRequest, lease: Lease) -> None:
        """Do what the mail asks for. What could not be done goes back into the box."""
        skipped = False
        self.status.busy_since = self._clock()
        try:
            skipped = await self._pass(request, lease)
            self._store_works()
            self._troubles = self._troubles + 1 if skipped else 0
        except VersionConflict:
            self.mailbox.put(request)
            raise
        except StoreError as error:
            self.mailbox.put(request)
            self._observer.pass_failed(self.instance, error.reason)
            raise
        except Interrupted:
            self.mailbox.put(request)
        except Exception as error:  # a bug in a pass must not end the daemon
            log.exception("pass_failed", instance=self.instance, reason=Reason.INTERNAL_ERROR)
            self._publisher = None
            self.status.error = f"{type(error).__name__}; the log has the traceback"
            self._observer.pass_failed(self.instance, Reason.INTERNAL_ERROR)
            for answer in request.answers:
                answer.cancel()
            self._troubles += 1
            skipped = True
        finally:
            self.status.busy_since = None
            self._observer.settled(self)
        if skipped:
            await self._again(request)

    async def _again(self, request: PassRequest) -> None:
        """What was wanted is still to be done: after a pause that grows, so that nothing spins."""
        pause = TROUBLE_PAUSES[min(self._troubles, len(TROUBLE_PAUSES)) - 1]
        await self._rest(pause)
        self.mailbox.put(replace(request, answers=()))

    async def _pass(self, request: PassRequest, lease: Lease) -> bool:
        """Returns whether something that was due was left out."""
        skipped = False
        options, runtime = request.options, self._runtime
        unpublished: list[Unpublished] = []
        if options is not None and not options.known_only:
            self.status.attempted_at = self._clock()
            self._observer.settled(self)
        publisher = self._publisher
        if publisher is None or (options is not None and not options.known_only):
            # Read anew for each listing: what somebody else changed in Redis is seen, and mended.
            publisher = await self._open(lease)
        # Through the fence, before anything is issued that could not be published.
        await publisher.remember(now=self._clock())
        async with runtime.open_client() as client:
            if options is not None:
                ports = replace(
                    runtime.ports(client, publisher, lambda: lease.sound),
                    stopping=self._stopping,
                    late=self._late,
                    facts=self._key.facts,
                    clock=self._clock,
                    keep=unpublished.append,
                )
                try:
                    report, self._rows = await run_pass(
                        ports, pass_id=secrets.token_hex(4), options=options, rows=self._rows
                    )
                finally:
                    self._remember(publisher)  # also what arrived before it failed
                    self._remember_unpublished(unpublished, lease)
                skipped = report.skipped > 0
                await self._finished(report, publisher, listed=not options.known_only)
                for answer in request.answers:
                    if not answer.done():
                        answer.set_result(report)
            if request.key or (self._key.unknown and options is not None and not options.known_only):
                look = self._key.look(client, runtime.api_key_name)
                await unless(self._stopping, look, name=f"key:{self.instance}")
                status = {**publisher.state.status, **self._key.facts()}
                await publisher.remember(now=self._clock(), status=status)
        return skipped

    async def _finished(self, report: PassReport, publisher: Publisher, *, listed: bool) -> None:
        status = self.status
        status.passes += 1
        if self._troubles:
            status.error = None  # a pass works again
        if listed:
            status.error, status.held = report.error, report.held
            if report.error is None:
                status.succeeded_at = self._clock()
        self._pause = SHORTEST_PAUSE if listed or report.due else min(2 * self._pause, LONGEST_PAUSE)
        await self._settle(publisher)
        self.mailbox.forget_nudge()
        told = {
            "instance": self.instance,
            "pass_id": report.pass_id,
            "action": "list" if listed else "known",
            "version": report.version,
            "clusters": report.clusters,
            "due": report.due,
            "changed": len(report.changes),
            "access": dict(report.access),
            "skipped": report.skipped,
            "held": report.held,
            "palette_requests": report.palette_requests,
            "kube_requests": report.kube_requests,
            "reason": report.error or "; ".join(report.problems),
            "duration_s": round(report.duration_s, 3),
        }
        if report.failed:
            log.warning("pass_finished", **told)
        else:
            log.info("pass_finished", **told)
        self._observer.pass_finished(report, listed=listed)

    async def _settle(self, publisher: Publisher) -> None:
        """Remember what is published, and when something in it will be due."""
        self._remember(publisher)
        state, now = publisher.state, self._clock()
        self.status.settle(state, now=now)
        wake = min([moment async for moment, _ in in_turns(self._view(state).all_wakes())], default=None)
        self.status.wakes_at = None if wake is None else max(wake, now + timedelta(seconds=self._pause))
        self._observer.settled(self)

    def _remember(self, publisher: Publisher) -> None:
        state = publisher.state
        if state.head is not None and state.trusted:
            self._last_state = state

    def _remember_unpublished(self, unpublished: Sequence[Unpublished], lease: Lease) -> None:
        """Remember what the store did not take, so that nothing of it is issued again."""
        last_state, runtime = self._last_state, self._runtime
        if not unpublished or last_state is None or last_state.head is None:
            return
        self._unpublished_epochs |= {last_state.head.epoch, lease.epoch}
        for rest in unpublished:
            last_state = joined(last_state, rest, instance=self.instance, sealer=runtime.sealer)
        self._last_state = last_state

    def _view(self, state: InstanceState) -> Candidates:
        return Candidates(self._runtime.policy, state, self._rows, now=self._clock())

    # -- waiting ----------------------------------------------------------------------------------------------------

    def _stand(self, state: RunnerState, detail: str = "") -> None:
        self.status.state, self.status.detail = state, detail
        self._observer.settled(self)

    async def _rest(self, seconds: float) -> None:
        """Sleep, whatever mail comes; only stopping ends it."""
        await wait_any(self._stopping, timeout=seconds)

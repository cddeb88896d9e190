"""The runner of one instance: it holds the instance's lease, and runs a pass whenever its mailbox asks for one.

Runners share nothing, so that an instance that hangs delays no other. A runner keeps running while Redis fails, and an
exception in a pass does not end the daemon. Any other exception in this module is a bug and ends the process.
"""

from __future__ import annotations

import asyncio
import secrets
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol

import structlog

from palette_sync.core.candidates import Candidates
from palette_sync.core.due import overdue
from palette_sync.core.leadership import Standing, may_move
from palette_sync.core.prune import FilterReview, review
from palette_sync.core.reasons import Reason
from palette_sync.events import Interrupted, in_turns, unless, wait_any
from palette_sync.palette import PaletteError, Peek, user_info
from palette_sync.reconcile.ongoing import Ongoing
from palette_sync.reconcile.ports import PassOptions, Stop
from palette_sync.reconcile.report import joined
from palette_sync.reconcile.run import run_pass
from palette_sync.runner.api_key import KeyWatch
from palette_sync.runner.last_published import LastPublished
from palette_sync.runner.lent_clients import LentClients
from palette_sync.runner.mailbox import Mailbox, PassRequest
from palette_sync.runner.pass_log import log_finished
from palette_sync.runner.pauses import answer_pauses, publish_pauses
from palette_sync.runner.status import RunnerState, RunnerStatus
from palette_sync.store.lease import Lease
from palette_sync.store.redis import Fenced, LeaseHeld, LeaseLost, StoreError, StoreUnavailable, VersionConflict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from palette_sync.core.leadership import Decision
    from palette_sync.core.model import Discovery, InstanceState
    from palette_sync.core.select import Filters
    from palette_sync.palette import PaletteClient
    from palette_sync.reconcile.ports import Rows, Unpublished
    from palette_sync.reconcile.report import PassReport
    from palette_sync.runner.elections import Elections
    from palette_sync.runner.mailbox import PauseOrder
    from palette_sync.runner.runtime import InstanceRuntime
    from palette_sync.store.publisher import Publisher

log = structlog.get_logger(__name__)

# Seconds before the next attempt; the last pause repeats.
STORE_PAUSES = (0.5, 1.0, 2.0, 5.0, 10.0)  # after Redis failed
RETRY_PAUSES = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)  # after a pass that failed or skipped clusters
# Seconds between a pass and the next one that nobody asked for. The pause doubles while such passes find nothing to do,
# so that a mistake in computing what is due cannot make a runner spin.
SHORTEST_PAUSE, LONGEST_PAUSE = 0.2, 30.0
# A process that leads does not hand over for these: they mean that nobody is known who should lead instead.
WAITING = (Standing.NO_MEMORY, Standing.OTHERS_UNHEARD)
# At most once a minute, in case the other process does not take the lease.
MOVES = (Standing.ANOTHER_LEADS, Standing.STEPPED_BACK)
# Another process may remember more, so this one does not fill a Redis that lost data.
REMEMBERING = (Standing.OLDER_MEMORY, *WAITING)
PALETTE_LOOK = 10.0  # seconds that a look whether Palette answers may take
LOOK_AGAIN = 1.0  # seconds until a process that stands by asks again whether it should lead


class Observer(Protocol):
    """Is notified of what a runner does. The runner waits for these calls to return, so they must not block."""

    def pass_finished(self, report: PassReport, *, listed: bool) -> None:
        """`listed`: the pass listed Palette, and did not only work on known clusters."""
        ...

    def pass_failed(self, instance: str, reason: Reason) -> None:
        """A pass ended without a report."""
        ...

    def store_failed(self, instance: str) -> None:
        """Redis could not be used."""
        ...

    def status_changed(self, runner: Runner) -> None: ...


class Runner:
    """Runs one instance until it is stopped. Others put requests into its `mailbox` and read its `status`.

    Once `late` is set, a stopping runner cancels what is still at work.
    """

    def __init__(
        self,
        runtime: InstanceRuntime,
        observer: Observer,
        *,
        late: asyncio.Event,
        elections: Elections | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.instance = runtime.policy.instance
        self.mailbox = Mailbox()
        self.status = RunnerStatus(key_name=runtime.api_key_name)
        self._runtime = runtime
        self._observer = observer
        self._stopping = asyncio.Event()
        self._late = late
        self._elections = elections
        self._reconsider = asyncio.Event()
        self._store_answers = asyncio.Event()
        self._led_since: datetime | None = None
        self._followed = False  # what was followed is not in the status yet
        self._clock = clock
        self._publisher: Publisher | None = None
        self._last_published = LastPublished(self.instance)
        self._rows: Rows = {}
        self._discovery: Discovery | None = None
        self._peek = Peek()
        self._ongoing = Ongoing.of_daemon(wanted=lambda: self.mailbox.patience, finished=self.mailbox.nudge)
        self._clients = LentClients()
        self._former_lease: Lease | None = None
        self._retries = 0
        self._store_failures = 0
        self._pause = SHORTEST_PAUSE
        self._key = KeyWatch(self.instance, self.status, clock=clock)

    # -- from outside -----------------------------------------------------------------------------------------------

    def configure(self, runtime: InstanceRuntime, *, at_once: bool = True) -> None:
        """Use another runtime from the next pass on. `at_once`: run that pass now.

        Pass False if the instance's own settings are the same, and only its share of `concurrency` or the content of a
        file may have changed.
        """
        self._runtime = runtime
        if at_once:
            self._publisher = None
            self.mailbox.put(PassRequest(listing=True, key=True))

    @property
    def last_state(self) -> InstanceState | None:
        """What is published, as far as this process has read or written it; None before that."""
        return self._last_published.state

    @property
    def memory(self) -> tuple[int, int] | None:
        """(epoch, version) of the newest snapshot that this process knows."""
        states = (self._last_published.state, self._publisher.state if self._publisher is not None else None)
        heads = (one.head for one in states if one is not None and one.trusted)
        return max(((head.epoch, head.version) for head in heads if head is not None), default=None)

    def follow(self, state: InstanceState) -> None:
        """Remember what another process has published, and show it in the status."""
        if self.status.state is not RunnerState.LEADING:
            self._last_published.follow(state)
            if self.status.read:
                self._followed = True  # the status is updated when somebody looks at it: that costs time
            else:
                self.status.take_over(state, now=self._clock())

    def reconsider(self) -> None:
        """Look at the decision again: another process should lead, or this one."""
        self._reconsider.set()

    def store_answers(self) -> None:
        """Try again now if Redis could not be reached: it takes writes."""
        self._store_answers.set()

    def failing_for(self) -> timedelta:
        """For how long the passes of this process have failed while it leads; 0 if the last one did not fail."""
        since = self.status.failing_since
        leads = self.status.state is RunnerState.LEADING
        return self._clock() - since if leads and since is not None else timedelta()

    async def reaches_palette(self) -> bool:
        """Whether Palette answers one small authenticated request."""
        try:
            async with asyncio.timeout(PALETTE_LOOK), self._runtime.open_client() as client:
                await user_info(client)
        except (PaletteError, TimeoutError):
            return False
        return True

    def note_cut_off(self, cut_off: bool, *, rests_until: datetime | None) -> None:  # noqa: FBT001 - a fact
        """Show in the status whether Palette does not answer this process, and whether it rests because of that."""
        before = (self.status.cut_off_since, self.status.rests_until)
        self.status.note_cut_off(cut_off, rests_until=rests_until, now=self._clock())
        if before != (self.status.cut_off_since, self.status.rests_until):
            self._observer.status_changed(self)

    @property
    def filters(self) -> Filters:
        """The filters in force."""
        return self._runtime.policy.filters

    def review(self, filters: Filters) -> FilterReview:
        """What other filters would mean, as far as is known from the last listing and what is published."""
        state = self._last_published.state
        return review(filters, state.records if state is not None else {}, self._discovery)

    def settle(self) -> bool:
        """Take note of what another process has published and of tokens that have expired since the status was updated.

        Returns whether there are any.
        """
        now, state = self._clock(), self._publisher.state if self._publisher is not None else self.last_state
        lapsed = self.status.next_lapse is not None and self.status.next_lapse <= now
        if state is None or not (lapsed or self._followed):
            return False
        self._followed = False
        self.status.take_over(state, now=now)
        return True

    @property
    def idle(self) -> bool:
        """Whether nothing would be lost if the runner ended at once: it only waits, or only for clusters that hang."""
        return self.status.busy_since is None and not self._ongoing.lanes.talking

    def stop(self) -> None:
        """Admit no more clusters. `run` returns once those at work are finished and published."""
        self._stopping.set()

    def due_queue(self, most: int) -> list[tuple[datetime, str]]:
        """The next moments at which published clusters become due, with the uids of the clusters."""
        state = self._last_published.state
        return self._view(state).wakes(most) if state is not None else []

    async def run(self) -> None:
        """Hold the lease when it is free, and run the passes that are asked for. Returns once stopped."""
        try:
            while not self._stopping.is_set():
                await self._hold()
        finally:
            self.mailbox.close()
            self._set_state(RunnerState.STOPPED)
            await self._clients.closed()

    # -- the lease --------------------------------------------------------------------------------------------------

    async def _hold(self) -> None:
        runtime = self._runtime
        self._reconsider.clear()
        try:
            if not await self._is_chosen(runtime):
                return
            lease = await Lease.acquire(
                runtime.store.link,
                runtime.store.keys,
                self.instance,
                ttl=runtime.lease_ttl,
                holder=runtime.holder,
                former=self._former_lease,
                sealer=runtime.sealer,
                floor=self._last_published.epoch,
            )
            self._former_lease = lease
            async with lease:
                try:
                    await self._lead(lease)
                    await self._finish_ongoing(lease)
                except VersionConflict as error:
                    # Redis may have lost versions that readers have seen. A new epoch keeps them from being used twice.
                    log.warning("store_changed", instance=self.instance, reason=str(error))
                    await self._rest(SHORTEST_PAUSE)
                finally:
                    await self._ongoing.lanes.drain(self._late)
        except LeaseHeld as error:
            await self._stand_by(str(error), runtime)
        except (LeaseLost, Fenced) as error:
            log.warning("lease_lost", instance=self.instance, reason=str(error))
            self._set_state(RunnerState.STORELESS, str(error))  # the next attempt shows whether another process leads
            await self._rest(SHORTEST_PAUSE)
        except Interrupted:
            return
        except StoreError as error:
            await self._wait_for_store(error)
        finally:
            self._publisher = None

    async def _is_chosen(self, runtime: InstanceRuntime) -> bool:
        """Whether this process should lead. If not, stand by for a while, or until that changes."""
        if self._elections is None:
            return True
        confirming = self._elections.confirm(self.instance)
        decided = await unless(self._stopping, confirming, name=f"elect:{self.instance}")
        if decided.leads:
            return True
        await self._stand_by(_said(decided), runtime)
        return False

    def _hands_over(self) -> bool:
        """Whether another process should lead from now on."""
        decided = self._elections.decision(self.instance) if self._elections is not None else None
        if decided is None or decided.leads or decided.standing in WAITING:
            return False
        if decided.standing in MOVES and not may_move(self._led_since, self._clock()):
            return False
        log.info("handed_over", instance=self.instance, reason=_said(decided))
        return True

    async def _finish_ongoing(self, lease: Lease) -> None:
        """End the work on clusters that hang, and publish what came of the others that no pass waited for."""
        lanes = self._ongoing.lanes
        self.status.busy_since = self._clock()
        try:
            await lanes.drain(self._late)
        finally:
            self.status.busy_since = None
        if lanes.busy:
            await self._serve(PassRequest(known=True), lease)

    async def _stand_by(self, holder: str, runtime: InstanceRuntime) -> None:
        if self.status.state is not RunnerState.STANDBY:
            log.info("standing_by", instance=self.instance, reason=holder)
        if not self.status.read:
            with suppress(StoreError):
                self.status.take_over(await runtime.store.load(self.instance), now=self._clock())
        self.status.fail(None, now=self._clock())  # what fails from now on is another process's
        self._set_state(RunnerState.STANDBY, holder)
        self.mailbox.pass_on()
        if self._elections is None:
            await self._rest(runtime.lease_ttl / 2)
        else:
            await wait_any(self._stopping, self._reconsider, timeout=min(LOOK_AGAIN, runtime.lease_ttl / 4))

    async def _wait_for_store(self, error: StoreError) -> None:
        """Redis fails: log it once, keep what is known, and try again after a pause that grows."""
        pause = STORE_PAUSES[min(self._store_failures, len(STORE_PAUSES) - 1)]
        self._store_failures += 1
        self._observer.store_failed(self.instance)
        if self._store_failures == 1:
            log.warning("store_away", instance=self.instance, reason=str(error))
        self._set_state(RunnerState.STORELESS, str(error))
        self._store_answers.clear()
        # An error that somebody has to repair first is not retried more often because Redis answers.
        await self._rest(pause, *([self._store_answers] if isinstance(error, StoreUnavailable) else []))

    def _store_works(self) -> None:
        if self._store_failures:
            log.info("store_back", instance=self.instance)
        self._store_failures = 0

    async def _lead(self, lease: Lease) -> None:
        self.status.busy_since = self._clock()  # so that a stop does not interrupt what is being published again
        try:
            await self._update_status(await self._open(lease))
        finally:
            self.status.busy_since = None
        self._set_state(RunnerState.LEADING)
        self._led_since = self._clock()
        if not self.mailbox.wanted.is_set():  # otherwise the pass shows whether the store also accepts writes
            self._store_works()
        while not self._stopping.is_set():
            if self.mailbox.wanted.is_set():
                await self._serve(self.mailbox.take(), lease)
            if self._hands_over():
                return
            await wait_any(self.mailbox.wanted, lease.lost, self._stopping, self._reconsider)
            self._reconsider.clear()
            lease.check()

    async def _open(self, lease: Lease) -> Publisher:
        """Read the store and return a publisher for it; first restore what the store lost.

        Raises Interrupted, StoreError; VersionConflict if a new epoch is needed.
        """
        runtime = self._runtime
        reading = runtime.store.publisher(
            self.instance, epoch=lease.epoch, writer=runtime.holder, life=self._last_published.life
        )
        publisher = await unless(self._stopping, reading, name=f"read:{self.instance}")
        if self._elections is not None and self._last_published.would_fill(publisher):
            # Redis lost something since this process was chosen: another one may remember more.
            decided = await self._elections.confirm(self.instance)
            if decided.standing in REMEMBERING:
                raise LeaseLost(f"{self.instance}: {_said(decided)}")
        now = self._clock()
        if await self._last_published.restore(publisher, epoch=lease.epoch, sealer=runtime.sealer, now=now):
            self.status.refilled_at = now
        self._publisher = publisher
        return publisher

    # -- passes -----------------------------------------------------------------------------------------------------

    async def _serve(self, request: PassRequest, lease: Lease) -> None:
        """Do what the request asks for. If that is not possible now, put the request back into the mailbox."""
        skipped = False
        self.status.busy_since = self._clock()
        try:
            skipped = await self._pass(request, lease)
            self._store_works()
            self._retries = self._retries + 1 if skipped else 0
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
            self.status.fail(f"{type(error).__name__}; the log has the traceback", now=self._clock())
            self._observer.pass_failed(self.instance, Reason.INTERNAL_ERROR)
            request.cancel()
            self._retries += 1
            skipped = True
        finally:
            self.status.busy_since = None
            self._observer.status_changed(self)
        if skipped:
            await self._retry_later(request)

    async def _retry_later(self, request: PassRequest) -> None:
        """Ask for the same again after a pause that grows. Whoever waits for an answer has got one already."""
        pause = RETRY_PAUSES[min(self._retries, len(RETRY_PAUSES)) - 1]
        await self._rest(pause)
        self.mailbox.put(request.again)

    async def _pass(self, request: PassRequest, lease: Lease) -> bool:
        """Returns whether clusters that were due were skipped."""
        skipped = False
        options, publisher = await self._look(request), self._publisher
        if options is None and not request.key and not request.pauses:
            return skipped
        listing = options is not None and options.lists
        if listing:
            self.status.attempted_at = self._clock()
            self._observer.status_changed(self)
        if publisher is None or listing:
            # Each listing reads the store again, so that it sees and repairs what others changed in Redis.
            publisher = await self._open(lease)
        # This write checks the fence: without the lease, no token may be issued, because it could not be published.
        await publisher.write_unversioned(now=self._clock())
        if request.pauses:
            await self._publish_pauses(publisher, request.pauses)
            if options is None and not request.key:
                return skipped
        async with self._clients.open(self._runtime.open_client, users=lambda: self._ongoing.lanes.tasks) as client:
            if options is not None:
                report = await self._run_pass(client, publisher, options, lease)
                skipped = report.skipped > 0
                await self._finished(report, publisher, listed=listing)
                if options.peeked is not None:
                    self._peek.learn(options.peeked)
                    if request.known:  # that pass did not work on all known clusters
                        self.mailbox.put(PassRequest(known=True, verify=request.verify))
                self._answer(request, report, publisher.state)
            if request.key or (self._key.unknown and listing):
                look = self._key.look(client, self._runtime.api_key_name)
                await unless(self._stopping, look, name=f"key:{self.instance}")
                status = {**publisher.state.status, **self._key.facts()}
                await publisher.write_unversioned(now=self._clock(), status=status)
        return skipped

    async def _publish_pauses(self, publisher: Publisher, orders: Sequence[PauseOrder]) -> None:
        paused = await publish_pauses(publisher, orders, ongoing=self._ongoing, now=self._clock())
        if paused:
            await self._update_status(publisher)
        answer_pauses(orders, paused, instance=self.instance)

    def _answer(self, request: PassRequest, report: PassReport, state: InstanceState) -> None:
        """Report to those who asked for the pass, or ask for the rest of it first.

        A revocation is the rest of a rotation: the former token ends once the new one is published.
        """
        if request.partial is not None:
            report = joined(request.partial, report)
        if report.postponed:
            self.mailbox.put(request.rest(report))
            return
        if revoking := frozenset(uid for uid in request.revoke if overdue(state.memory.get(uid), self._clock())):
            self.mailbox.put(PassRequest(asked=revoking, answers=request.answers, partial=report))
            return
        for answer in request.answers:
            if not answer.done():
                answer.set_result(report)

    async def _look(self, request: PassRequest) -> PassOptions | None:
        """Return the options of the pass that the request asks for; None if there is nothing to do.

        A peek that found nothing costs one request to Palette, and no pass. The first pass of a life is a listing.
        """
        options = request.options
        if options is not None and not self._last_published.life.listed:
            return replace(options, known_only=False)
        if not request.peek or (options is not None and options.lists):
            return options
        if request.asked:
            self.mailbox.peek()  # later: those who wait get the report of a pass that worked on their cluster
            return options
        filters = self._runtime.policy.filters
        async with self._runtime.open_client() as client:
            look = self._peek.look(
                client,
                choose=filters.chooses_project,
                tenant_scope=not filters.exclude_tenant_scoped_clusters,
                include_virtual=filters.include_virtual,
            )
            found = await unless(self._stopping, look, name=f"peek:{self.instance}")
        if found is None:
            return options
        return PassOptions(peeked=found) if self._last_published.life.listed else PassOptions()

    async def _run_pass(
        self, client: PaletteClient, publisher: Publisher, options: PassOptions, lease: Lease
    ) -> PassReport:
        runtime = self._runtime
        unpublished: list[Unpublished] = []
        ports = runtime.ports(
            client,
            publisher=publisher,
            may_issue=lambda: lease.sound,
            may_write=lease.may_write,
            lease_lost=lease.lost,
            stop=Stop(self._stopping, self._late),
            facts=self._key.facts,
            clock=self._clock,
            keep=unpublished.append,
            seen=self._note_discovery,
            ongoing=self._ongoing,
            progress=self._note_progress,
        )
        self._ongoing.lanes.resize(ports.concurrency)
        try:
            report, self._rows = await run_pass(ports, pass_id=secrets.token_hex(4), options=options, rows=self._rows)
        finally:
            self.status.progress = None
            self._last_published.remember(publisher)  # also what was published before the pass failed
            self._last_published.add_unpublished(
                unpublished, prefix=runtime.store.keys.prefix, epoch=lease.epoch, sealer=runtime.sealer
            )
        await self._last_published.reseal(publisher, sealer=runtime.sealer, now=self._clock())
        return report

    def _note_progress(self, stage: str, done: int, total: int) -> None:
        self.status.progress = (stage, done, total)

    def _note_discovery(self, discovery: Discovery) -> None:
        self._discovery = discovery
        self._peek.learn(discovery)

    async def _finished(self, report: PassReport, publisher: Publisher, *, listed: bool) -> None:
        status = self.status
        status.passes += 1
        if self._retries:
            status.fail(None, now=self._clock())  # passes work again
        if listed:
            status.fail(report.error, now=report.started_at)
            if report.error is None:
                status.succeeded_at = self._clock()
        self._pause = SHORTEST_PAUSE if listed or report.due else min(2 * self._pause, LONGEST_PAUSE)
        await self._update_status(publisher)
        self.mailbox.forget_nudge()
        if self._ongoing.lanes.outcomes:
            self.mailbox.nudge()
        log_finished(report, listed=listed)
        self._observer.pass_finished(report, listed=listed)

    async def _update_status(self, publisher: Publisher) -> None:
        """Take over what is published, and compute when something in it will be due."""
        self._last_published.remember(publisher)
        state, now = publisher.state, self._clock()
        self.status.take_over(state, now=now)
        wakes = self._view(state).all_wakes()
        wake = min([moment async for moment, name in in_turns(wakes) if self._may_begin(state, name)], default=None)
        self.status.wakes_at = None if wake is None else max(wake, now + timedelta(seconds=self._pause))
        self._observer.status_changed(self)

    def _view(self, state: InstanceState) -> Candidates:
        return Candidates(
            self._runtime.policy,
            state,
            self._rows,
            now=self._clock(),
            suspect_since=self._ongoing.suspect_since,
        )

    def _may_begin(self, state: InstanceState, uid: str) -> bool:
        """Whether a pass could begin to work on a cluster. If not, the end of other work wakes the runner."""
        lanes, memory = self._ongoing.lanes, state.memory.get(uid)
        return uid not in lanes.busy and (memory is None or not memory.hung or lanes.slow_places > 0)

    # -- waiting ----------------------------------------------------------------------------------------------------

    def _set_state(self, state: RunnerState, detail: str = "") -> None:
        self.status.enter(state, detail, now=self._clock())
        self._observer.status_changed(self)

    async def _rest(self, seconds: float, *ends: asyncio.Event) -> None:
        """Sleep. Only `stop` and `ends` end it early; requests wait in the mailbox."""
        await wait_any(self._stopping, *ends, timeout=seconds)


def _said(decided: Decision) -> str:
    return f"{decided.standing}: {decided.instead} leads" if decided.instead else decided.standing.value

"""The company of daemons: announces this process, follows what others publish, and decides what this process leads.

Every process looks at Redis about once a second. It announces what it remembers of each instance, reads what the others
announce, and all decide by the rules of `core.leadership`.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from palette_sync import __version__
from palette_sync.assembly.fingerprint import fingerprint
from palette_sync.assembly.instance import holder
from palette_sync.assembly.store import utc_now
from palette_sync.core.agreement import at_start, compared, read_again
from palette_sync.core.leadership import Decision, Member, Share, Standing, Store, decide, remembered_more
from palette_sync.runner import RunnerState
from palette_sync.service.stepping_back import SteppingBack
from palette_sync.store.members import MemberBook
from palette_sync.store.redis import StoreError, StoreUnavailable

if TYPE_CHECKING:
    from datetime import datetime

    from palette_sync.core.agreement import Loaded
    from palette_sync.core.leadership import Order
    from palette_sync.runner import Runner
    from palette_sync.service.configuration import ActiveConfiguration
    from palette_sync.service.runners import Runners
    from palette_sync.store.members import Company

log = structlog.get_logger(__name__)

PACE = 1.0  # seconds between two looks at most
LOOKS = 10  # per `lease_ttl`, if that is more often
REREAD = 60.0  # seconds after which a standby reads what has no version (`work`, `scopes`) in any case
LEAVING = 2.0  # seconds that a process which ends waits for Redis to announce it
FREE = 2  # times `lease_ttl` after which a process that stands by takes a free lease
# If the lease stays free although another process should take it, this one takes it.
TAKEN_IF_FREE = (Standing.ANOTHER_LEADS, Standing.STEPPED_BACK)


@dataclass
class _Place:
    """What this process saw of one instance in Redis. Moments are on the monotonic clock."""

    order: Order | None = None
    verifies: bool = True
    empty_since: datetime | None = None
    free_since: float | None = None
    stands_since: datetime | None = None
    read_at: float = 0.0
    read_whole_at: float = 0.0
    read_took: float = 0.0


@dataclass
class Membership:
    """`company` are the living processes as of the last look; None before the first one."""

    configuration: ActiveConfiguration
    runners: Runners
    company: Company | None = None
    draining: bool = False
    id: str = field(default_factory=lambda: f"{holder()}:{secrets.token_hex(4)}")
    _places: dict[str, _Place] = field(default_factory=dict)
    _decisions: dict[str, Decision] = field(default_factory=dict)
    _away: dict[str, StoreUnavailable] = field(default_factory=dict)  # instances that could not be seen
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _loaded: Loaded | None = None
    _since: datetime | None = None  # when this process announced itself first, by the server's clock

    _stepping_back: SteppingBack = field(default_factory=SteppingBack)
    _book: MemberBook = field(init=False)

    def __post_init__(self) -> None:
        store = self.configuration.shared.store
        self._book = MemberBook(store.link, store.keys)

    @property
    def lease_ttl(self) -> timedelta:
        return self.configuration.shared.settings.service.lease_ttl

    async def run(self) -> None:
        """Look until cancelled. While Redis fails, this goes on trying, and the last decisions stay."""
        try:
            while True:
                try:
                    await self.look()
                    for runner in self.runners:
                        runner.store_answers()
                except StoreError as error:
                    log.debug("members_unknown", reason=str(error))  # the runners log that Redis fails
                await asyncio.sleep(min(PACE, self.lease_ttl.total_seconds() / LOOKS))
        finally:
            self._stepping_back.end()

    def decision(self, instance: str) -> Decision | None:
        """What was decided at the last look; None before the first one."""
        return self._decisions.get(instance)

    def stands_since(self, instance: str) -> datetime | None:
        """Since when the standing that was decided last has been the same, by the clock of this host."""
        return self._places[instance].stands_since if instance in self._places else None

    @property
    def configuration_in_force(self) -> Loaded | None:
        """How new the configuration of this process is; None before the first look."""
        return self._loaded

    async def confirm(self, instance: str) -> Decision:
        """Look now, and decide. Raises StoreError."""
        await self.look()
        if (error := self._away.get(instance)) is not None:
            raise error
        return self._decisions.get(instance) or Decision(Standing.LEADS)

    async def others_lost(self, instance: str) -> bool:
        """Look now: whether Redis holds less of another instance than a living process remembers. Raises StoreError."""
        await self.look()
        members = self.company.members if self.company is not None else ()
        others = {name: place.order for name, place in self._places.items() if name != instance}
        return any(remembered_more(name, members, order) for name, order in others.items())

    async def drain(self) -> None:
        """Announce that this process ends, so that others take over at once."""
        self.draining = True
        await self.announce()

    async def announce(self) -> None:
        """Announce at once what has changed, such as the configuration. While Redis fails, the next look does it."""
        try:
            async with asyncio.timeout(LEAVING):
                await self.look()
        except (StoreError, TimeoutError) as error:
            log.debug("members_unknown", reason=str(error))

    async def leave(self) -> None:
        """Remove the announcement if nobody else lives. Otherwise it stays until it expires.

        It says that this process ends. Who has not read that yet would count this process as alive for `lease_ttl`.
        """
        if self.company is not None and len(self.company.members) > 1:
            return
        try:
            async with asyncio.timeout(LEAVING):
                await self._book.leave(self.id)
        except (StoreError, TimeoutError) as error:
            log.debug("members_unknown", reason=str(error))

    async def look(self) -> None:
        """Look at each instance and at the other processes, and decide. Raises StoreError."""
        async with self._turn:
            runners = {one.instance: one for one in self.runners}
            for gone in self._places.keys() - runners.keys():
                del self._places[gone]
                self._decisions.pop(gone, None)
                self._stepping_back.forget(gone)
            await self._look_at_all(runners)
            sealer = self.configuration.shared.sealer
            if self.company is None:  # what the others run decides how new the configuration of this process is
                self.company = await self._book.listen(sealer, life=self.lease_ttl)
            now = await self._book.server_time()
            company = await self._book.exchange(sealer, self._me(runners, now), life=self.lease_ttl)
            self.company = company
            for name, runner in runners.items():
                decided = self._decide(name, company)
                if decided != self._decisions.get(name):
                    self._note(name, decided)
                    runner.reconsider()

    async def _look_at_all(self, runners: dict[str, Runner]) -> None:
        """Look at each instance. In a Redis Cluster, a server that is away concerns its instances only."""
        places = {name: self._places.setdefault(name, _Place()) for name in runners}
        if not self.configuration.shared.store.link.clustered:
            for name, runner in runners.items():
                await self._look_at(runner, places[name])
            return
        async with asyncio.TaskGroup() as group:
            looks = {
                name: group.create_task(self._look_in_time(runner, places[name]), name=f"look:{name}")
                for name, runner in runners.items()
            }
        errors = {name: error for name, look in looks.items() if (error := look.result()) is not None}
        self._away = {name: one for name, one in errors.items() if isinstance(one, StoreUnavailable)}
        for name in errors.keys() - self._away.keys():
            raise errors[name]

    async def _look_in_time(self, runner: Runner, place: _Place) -> StoreError | None:
        """Look at an instance, but not for so long that the others take this process for dead meanwhile."""
        try:
            async with asyncio.timeout(self.lease_ttl.total_seconds() / 2):
                await self._look_at(runner, place)
        except TimeoutError:
            return StoreUnavailable(f"{runner.instance}: its Redis server did not answer in time")
        except StoreError as error:
            return error
        return None

    def _note(self, name: str, decided: Decision) -> None:
        before = self._decisions.get(name)
        if before is None or before.standing is not decided.standing:
            self._places[name].stands_since = utc_now()
        self._decisions[name] = decided

    async def _look_at(self, runner: Runner, place: _Place) -> None:
        """See what Redis holds of an instance. A process that does not lead keeps what is newer than it remembers."""
        store, name, moment = self.configuration.shared.store, runner.instance, time.monotonic()
        place.order, place.verifies = await store.newest(name)
        held = await store.link.command(f"lease {name}", "GET", store.keys.lease(name))
        place.free_since = None if held else (place.free_since or moment)
        if runner.status.state is RunnerState.LEADING or place.order is None:
            return
        known = runner.memory
        # Reading much takes long, so it is done less often.
        due = moment - place.read_at >= (REREAD if known == place.order else 5 * place.read_took)
        if due and (known is None or place.order >= known):
            # What has no version is not followed, so everything is read from time to time.
            whole = known is None or known[0] != place.order[0] or moment - place.read_whole_at >= REREAD
            state = await (store.load(name) if whole else store.read_on(name))
            place.read_whole_at = moment if whole else place.read_whole_at
            place.read_at, place.read_took = moment, time.monotonic() - moment
            runner.follow(state)

    def _me(self, runners: dict[str, Runner], now: datetime) -> Member:
        configuration, sealer = self.configuration, self.configuration.shared.sealer
        self._since = self._since or now
        loaded = self._loaded = self._compared(fingerprint(configuration.shared.settings, sealer), now)
        rejected_at = configuration.rejected_at
        return Member(
            self.id,
            loaded.configuration,
            loaded.loaded_at,
            draining=self.draining,
            shares={name: self._share(runner, now) for name, runner in runners.items()},
            since=self._since,
            version=__version__,
            keys=tuple(sealer.ids),
            outdated_since=loaded.outdated_since,
            rejected_at=now - max(timedelta(), utc_now() - rejected_at) if rejected_at else None,
            former=loaded.former,
        )

    def _compared(self, configuration: str, now: datetime) -> Loaded:
        """The configuration in force, compared with those of the other processes."""
        read_at = self.configuration.loaded_at
        others = [one for one in self.company.members if one.id != self.id] if self.company else []
        if self._loaded is None:
            return at_start(configuration, read_at, others, now)
        if self._loaded.read_at != read_at:
            return read_again(self._loaded, configuration, read_at, others, now)
        return compared(self._loaded, others, now)

    def _share(self, runner: Runner, now: datetime) -> Share:
        leading = runner.status.state is RunnerState.LEADING
        share = Share(runner.memory, leading or self._places[runner.instance].verifies, leading=leading)
        if self.draining:
            return share
        step_back = self.configuration.shared.settings.service.step_back
        return self._stepping_back.completed(
            share, runner, me=self.id, company=self.company, now=now, step_back=step_back
        )

    def _decide(self, name: str, company: Company) -> Decision:
        place = self._places[name]
        if place.order is not None or company.after_outage:
            place.empty_since = None  # the window begins when everybody can be heard
        if place.order is None:
            place.empty_since = place.empty_since or company.now
        me = next(one for one in company.members if one.id == self.id)
        found = self._decided(name, me, company)
        if company.strangers and not me.shares[name].verifies:
            return Decision(Standing.KEYS_DIFFER)
        if company.silent and found.leads and not me.shares[name].leading:
            return Decision(Standing.OTHERS_UNHEARD)
        if found.standing not in TAKEN_IF_FREE or place.free_since is None:
            return found
        abandoned = time.monotonic() - place.free_since > FREE * self.lease_ttl.total_seconds()
        return Decision(Standing.LEADS) if abandoned else found

    def _decided(self, name: str, me: Member, company: Company) -> Decision:
        place = self._places[name]
        return decide(
            name,
            me,
            company.members,
            Store(place.order, place.empty_since),
            window=self.lease_ttl,
            now=company.now,
            unheard=company.unheard,
        )

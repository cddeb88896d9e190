"""The company of daemons: announces this process, follows what others publish, and decides what this process leads.

Every process looks at Redis about once a second. It announces what it remembers of each instance, reads what the others
announce, and all decide by the rules of `core.leadership`.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from palette_sync import __version__
from palette_sync.assembly.fingerprint import fingerprint
from palette_sync.assembly.instance import holder
from palette_sync.core.leadership import Decision, Member, Share, Standing, Store, decide, remembered_more
from palette_sync.runner import RunnerState
from palette_sync.store.members import MemberBook
from palette_sync.store.redis import StoreError

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from palette_sync.core.leadership import Order
    from palette_sync.runner import Runner
    from palette_sync.service.configuration import ActiveConfiguration
    from palette_sync.service.runners import Runners
    from palette_sync.store.members import Company

log = structlog.get_logger(__name__)

PACE = 1.0  # seconds between two looks at most
LOOKS = 4  # per `lease_ttl`, if that is more often
REREAD = 60.0  # seconds after which a standby reads what has no version (`work`, `scopes`) in any case
LEAVING = 2.0  # seconds that a process which ends waits for Redis to announce it
FREE = 2  # times `lease_ttl` after which a lease that nobody takes is taken by whoever stands by


@dataclass
class _Place:
    """What this process saw of one instance in Redis. Moments are on the monotonic clock."""

    order: Order | None = None
    verifies: bool = True
    empty_since: datetime | None = None
    free_since: float | None = None
    read_at: float = 0.0
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
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _loaded: tuple[datetime, datetime] | None = None  # by the clock of this host, and by the server's

    _book: MemberBook = field(init=False)

    def __post_init__(self) -> None:
        store = self.configuration.shared.store
        self._book = MemberBook(store.link, store.keys)

    @property
    def lease_ttl(self) -> timedelta:
        return self.configuration.shared.settings.service.lease_ttl

    async def run(self) -> None:
        """Look until cancelled. While Redis fails, this goes on trying, and the last decisions stay."""
        while True:
            try:
                await self.look()
            except StoreError as error:
                log.debug("members_unknown", reason=str(error))  # the runners log that Redis fails
            await asyncio.sleep(min(PACE, self.lease_ttl.total_seconds() / LOOKS))

    def decision(self, instance: str) -> Decision | None:
        """What was decided at the last look; None before the first one."""
        return self._decisions.get(instance)

    async def confirm(self, instance: str) -> Decision:
        """Look now, and decide. Raises StoreError."""
        await self.look()
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
        try:
            async with asyncio.timeout(LEAVING):
                await self.look()
        except (StoreError, TimeoutError) as error:
            log.debug("members_unknown", reason=str(error))

    async def leave(self) -> None:
        """Remove the announcement; it expires by itself if that fails."""
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
            for name, runner in runners.items():
                await self._look_at(runner, self._places.setdefault(name, _Place()))
            now = await self._book.server_time()
            company = await self._book.exchange(
                self.configuration.shared.sealer, self._me(runners, now), life=self.lease_ttl
            )
            self.company = company
            for name, runner in runners.items():
                decided = self._decide(name, company)
                if decided != self._decisions.get(name):
                    self._decisions[name] = decided
                    runner.reconsider()

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
            state = await store.load(name)
            place.read_at, place.read_took = moment, time.monotonic() - moment
            runner.follow(state)

    def _me(self, runners: dict[str, Runner], now: datetime) -> Member:
        shared = self.configuration.shared
        configuration = fingerprint(shared.settings, shared.sealer)
        return Member(
            self.id,
            configuration,
            self._loaded_at(configuration, now),
            draining=self.draining,
            shares={name: self._share(runner) for name, runner in runners.items()},
            version=__version__,
            keys=tuple(shared.sealer.ids),
        )

    def _share(self, runner: Runner) -> Share:
        leading = runner.status.state is RunnerState.LEADING
        return Share(runner.memory, leading or self._places[runner.instance].verifies, leading=leading)

    def _loaded_at(self, configuration: str, now: datetime) -> datetime:
        """When the configuration was loaded, by the server's clock: clocks of different hosts need not agree.

        A process that starts with what others have loaded has loaded nothing new.
        """
        loaded_at = self.configuration.loaded_at
        if self._loaded is None:
            others = self.company.members if self.company else ()
            same = [one.loaded_at for one in others if one.configuration == configuration and one.id != self.id]
            if self.company is None:
                return now  # nothing is known of the others yet
            self._loaded = (loaded_at, min(same, default=now))
        elif self._loaded[0] != loaded_at:
            self._loaded = (loaded_at, now)
        return self._loaded[1]

    def _decide(self, name: str, company: Company) -> Decision:
        place = self._places[name]
        if place.order is not None or company.after_outage:
            place.empty_since = None  # the window begins when everybody can be heard
        if place.order is None:
            place.empty_since = place.empty_since or company.now
        me = next(one for one in company.members if one.id == self.id)
        found = decide(
            name,
            me,
            company.members,
            Store(place.order, place.empty_since),
            window=self.lease_ttl,
            now=company.now,
            unheard=company.unheard,
        )
        if company.strangers and not me.shares[name].verifies:
            return Decision(Standing.KEYS_DIFFER)
        if company.silent and found.leads and not me.shares[name].leading:
            return Decision(Standing.OTHERS_UNHEARD)
        return Decision(Standing.LEADS) if self._is_abandoned(place, found) else found

    def _is_abandoned(self, place: _Place, found: Decision) -> bool:
        """Whether the process that should lead does not: the lease has been free for long."""
        if found.standing is not Standing.ANOTHER_LEADS or place.free_since is None:
            return False
        return time.monotonic() - place.free_since > FREE * self.lease_ttl.total_seconds()

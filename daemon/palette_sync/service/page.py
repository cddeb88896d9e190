"""Where the page finds what it shows: the runners of this process, and Redis for what another process leads."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import structlog

from palette_sync.assembly.fingerprint import fingerprint
from palette_sync.assembly.store import utc_now
from palette_sync.core.cluster_answer import ClusterNow, refusal
from palette_sync.core.model import InstanceState, Secret
from palette_sync.page.configuration import Configuration
from palette_sync.runner import RunnerState
from palette_sync.store.activity import read_activity
from palette_sync.store.past import read_changes, read_history
from palette_sync.store.redis import StoreError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from palette_sync.core.activity import Slot
    from palette_sync.core.history import FormerVersion, VersionChange
    from palette_sync.core.objects import Desired
    from palette_sync.service.activity import Activity
    from palette_sync.service.configuration import ActiveConfiguration
    from palette_sync.service.health import Health
    from palette_sync.service.runners import Runners

log = structlog.get_logger(__name__)

KEPT = 10.0  # seconds for which a snapshot that another process publishes is used again
VERSIONS = 50  # of the history that are read for the page of a cluster
PATIENCE = 5.0  # seconds that a request waits for Redis


@dataclass(frozen=True, slots=True)
class _Read:
    """What Redis had at the time `at` of an instance that another process leads."""

    at: datetime
    state: InstanceState = field(default_factory=InstanceState)
    slots: Mapping[datetime, Slot] = field(default_factory=dict)


class PageSource:
    """Answers the page (page.routes.Source)."""

    def __init__(
        self, configuration: ActiveConfiguration, runners: Runners, health: Health, activity: Activity
    ) -> None:
        self._configuration = configuration
        self._runners = runners
        self._health = health
        self._activity = activity
        self._read: dict[str, _Read] = {}
        self._reading = asyncio.Lock()

    @property
    def token(self) -> Secret | None:
        token = self._configuration.shared.settings.http.token
        return None if token is None else Secret(token.get_secret_value())

    def now(self) -> datetime:
        return utc_now()

    def document(self) -> Mapping[str, Any]:
        return self._health.document(utc_now())

    async def states(self) -> Mapping[str, InstanceState]:
        """What Redis does not give keeps what was read last."""
        statuses = self._runners.statuses()
        standby = {name for name, one in statuses.items() if one.state is RunnerState.STANDBY}
        async with self._reading:
            for name in standby:
                await self._look(name)
        read = {name: one.state for name, one in self._read.items() if name in statuses and one.state.head is not None}
        own = {name: state for name, state in self._runners.states().items() if name not in standby}
        return {**read, **own}

    async def _look(self, name: str) -> None:
        """Read what another process publishes, unless that was tried a moment ago."""
        last, shared = self._read.get(name), self._configuration.shared
        if last is not None and (utc_now() - last.at).total_seconds() <= KEPT:
            return
        found = replace(last, at=utc_now()) if last is not None else _Read(utc_now())
        with suppress(StoreError, TimeoutError):  # the runner logs that Redis fails
            async with asyncio.timeout(PATIENCE):
                found = replace(found, state=await shared.store.load(name))
                slots = await read_activity(shared.store, shared.sealer, name, now=utc_now())
                found = replace(found, slots=slots)
        self._read[name] = found

    def activity(self) -> Mapping[str, Mapping[datetime, Slot]]:
        ours = self._runners.ours()
        read = {name: one.slots for name, one in self._read.items()}
        return {
            name: self._activity.day(name) if name in ours else read.get(name, {}) for name in self._runners.statuses()
        }

    async def configuration(self) -> Configuration:
        active, shared = self._configuration, self._configuration.shared
        return Configuration(
            path=str(active.path),
            fingerprint=fingerprint(shared.settings, shared.sealer),
            loaded_at=active.loaded_at,
            tables=await asyncio.to_thread(active.tables),
            rejected=tuple(active.rejected),
            rejected_at=active.rejected_at,
            exposed=shared.settings.exposed_secrets,
        )

    def desired(self, instance: str) -> Desired | None:
        policy = self._configuration.shared.policies.get(instance)
        return policy.desired if policy is not None else None

    def resync(self, instance: str, *, allow_prune: bool) -> bool:
        if instance not in self._runners.leading():
            return False
        log.info("request_received", instance=instance, action="resync", by="page", allow_prune=allow_prune)
        self._activity.asked(instance, "resync --allow-prune" if allow_prune else "resync", "the page")
        return self._runners.ask(instance, allow_prune=allow_prune) is not None

    def ask_cluster(self, instance: str, uid: str, *, rotate: bool) -> str:
        if instance not in self._runners.leading():
            return "This process does not lead that instance. Use the page of the process that leads it."
        found = ClusterNow.find(self._runners.states().get(instance), uid, utc_now())
        if found is None:
            return "No cluster with that uid is published."
        if (refused := refusal(found, rotate=rotate)) is not None:
            return refused.text
        action = "rotate" if rotate else "resync-cluster"
        log.info("request_received", instance=instance, action=action, by="page", cluster=uid)
        self._runners.ask_cluster(instance, uid, rotate=rotate)
        self._activity.asked(instance, f"{action} {uid}", "the page")
        return ""

    async def history(self, instance: str, version: int) -> tuple[list[FormerVersion], list[VersionChange]] | None:
        shared, after = self._configuration.shared, max(0, version - VERSIONS)
        try:
            async with asyncio.timeout(PATIENCE):
                entries = await read_history(shared.store, shared.sealer, instance, after=after)
                return entries, await read_changes(shared.store, instance, after=after)
        except (StoreError, TimeoutError):
            return None

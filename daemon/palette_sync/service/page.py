"""Where the page finds what it shows: the runners of this process, and Redis for what another process leads."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import structlog

from palette_sync.assembly.store import utc_now
from palette_sync.core.cluster_answer import ClusterNow, refusal
from palette_sync.core.model import InstanceState, Secret
from palette_sync.runner import RunnerState
from palette_sync.store.past import read_changes, read_history
from palette_sync.store.redis import StoreError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from palette_sync.core.history import FormerVersion, VersionChange
    from palette_sync.core.objects import Desired
    from palette_sync.service.configuration import ActiveConfiguration
    from palette_sync.service.health import Health
    from palette_sync.service.runners import Runners

log = structlog.get_logger(__name__)

KEPT = 10.0  # seconds for which a snapshot that another process publishes is used again
VERSIONS = 50  # of the history that are read for the page of a cluster
PATIENCE = 5.0  # seconds that a request waits for Redis


class PageSource:
    """Answers the page (page.routes.Source)."""

    def __init__(self, configuration: ActiveConfiguration, runners: Runners, health: Health) -> None:
        self._configuration = configuration
        self._runners = runners
        self._health = health
        self._read: dict[str, tuple[datetime, InstanceState]] = {}
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
        read = {name: state for name, (_, state) in self._read.items() if name in statuses and state.head is not None}
        own = {name: state for name, state in self._runners.states().items() if name not in standby}
        return {**read, **own}

    async def _look(self, name: str) -> None:
        """Read what another process publishes, unless that was tried a moment ago."""
        at, state = self._read.get(name, (None, InstanceState()))
        if at is not None and (utc_now() - at).total_seconds() <= KEPT:
            return
        with suppress(StoreError, TimeoutError):  # the runner logs that Redis fails
            async with asyncio.timeout(PATIENCE):
                state = await self._configuration.shared.store.load(name)
        self._read[name] = (utc_now(), state)

    def desired(self, instance: str) -> Desired | None:
        policy = self._configuration.shared.policies.get(instance)
        return policy.desired if policy is not None else None

    def resync(self, instance: str, *, allow_prune: bool) -> bool:
        if instance not in self._runners.leading():
            return False
        log.info("request_received", instance=instance, action="resync", by="page", allow_prune=allow_prune)
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
        return ""

    async def history(self, instance: str, version: int) -> tuple[list[FormerVersion], list[VersionChange]] | None:
        shared, after = self._configuration.shared, max(0, version - VERSIONS)
        try:
            async with asyncio.timeout(PATIENCE):
                entries = await read_history(shared.store, shared.sealer, instance, after=after)
                return entries, await read_changes(shared.store, instance, after=after)
        except (StoreError, TimeoutError):
            return None

"""The simulator as one thing to start and stop: the world, its listeners, faults, the request log, the control API."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import re
import resource
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from palette_sync.simulator.certificates import LOOPBACK, Authority, ContextCache, SharedKeys, server_context
from palette_sync.simulator.control_api import ControlApi
from palette_sync.simulator.faults import FaultBook
from palette_sync.simulator.listener import Frontend
from palette_sync.simulator.palette_api import PaletteApi
from palette_sync.simulator.rate_limit import RateLimiter
from palette_sync.simulator.request_log import RequestLog
from palette_sync.simulator.world import SimInstance, World
from palette_sync.simulator.write_config import write_config

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from palette_sync.simulator.world import SimCluster

INSTANCE_NAMES = (
    *("alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india"),
    *("juliett", "kilo", "lima", "mike", "november", "oscar", "papa"),
)
PROJECT_NAMES = (
    *("payments", "retail", "logistics", "insights", "platform", "mobile", "factory", "research"),
    *("billing", "media", "identity", "search"),
)
_STAGES = ("prod", "stage", "dev", "edge")
_FEW = 4
_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_PAUSE_EVERY = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatorOptions:
    """`projects` and `clusters` are totals over all instances. `latency` (seconds) is added to each answer.

    `tenant_scoped` clusters per instance, out of the total, belong to no project (none where an instance has fewer than
    four). `token_cap` (seconds) caps what the API servers grant. `listen` is the IPv4 address that Palette and the API
    servers bind, `host` the name or address by which clients reach them: it stands in URLs and certificates.
    """

    instances: int = 2
    projects: int = 6
    clusters: int = 24
    seed: int = 0
    latency: float = 0.0
    oidc_share: float = 1 / 3
    rate_limits: bool = True
    token_cap: float | None = None
    tenant_scoped: int = 1
    listen: str = LOOPBACK
    host: str = LOOPBACK

    def __post_init__(self) -> None:
        if not 1 <= self.instances <= len(INSTANCE_NAMES):
            raise ValueError(f"between 1 and {len(INSTANCE_NAMES)} instances can be simulated")
        if self.projects < 0 or self.clusters < 0 or self.tenant_scoped < 0 or self.latency < 0:
            raise ValueError("projects, clusters, tenant_scoped and latency are not negative")
        if not 0 <= self.oidc_share <= 1:
            raise ValueError("oidc_share is between 0 and 1")
        try:
            unspecified = ipaddress.IPv4Address(self.listen).is_unspecified
        except ValueError:
            raise ValueError("listen is no IPv4 address, such as 127.0.0.1 or 0.0.0.0") from None
        if not _HOST.fullmatch(self.host):
            raise ValueError("host is no name or IPv4 address, such as simulator or 127.0.0.1")
        if unspecified and self.host == LOOPBACK:
            raise ValueError("with listen = 0.0.0.0, host must say by which name or address clients reach it")


class Simulator:
    """An async context manager: inside it everything serves. The control API stays on loopback: it obeys anybody."""

    def __init__(self, options: SimulatorOptions | None = None) -> None:
        self.options = options or SimulatorOptions()
        self.faults = FaultBook()
        self.requests = RequestLog()
        self.world = World(seed=self.options.seed, token_cap=self.options.token_cap, start_listener=self._start_cluster)
        self._keys = SharedKeys.new()
        self._contexts = ContextCache()
        self._frontend: Frontend | None = None
        self._control: ControlApi | None = None

    @property
    def control_url(self) -> str:
        """Where the control API serves (`control_api`). Raises RuntimeError before the start."""
        if self._control is None:
            raise RuntimeError("the simulator does not run")
        return self._control.url

    @property
    def latency(self) -> float:
        """Seconds added to each answer of Palette and Kubernetes; may be set while it runs."""
        return self._running.latency

    @latency.setter
    def latency(self, seconds: float) -> None:
        self._set_latency(seconds)

    def _set_latency(self, seconds: float) -> None:
        if seconds < 0:
            raise ValueError("latency is not negative")
        self._running.latency = seconds

    @property
    def _running(self) -> Frontend:
        if self._frontend is None:
            raise RuntimeError("the simulator does not run")
        return self._frontend

    def secrets(self) -> tuple[str, ...]:
        """Every long-lived secret of the world, for tests that search for leaks; tokens are not among them."""
        found = {s for i in self.world.instances.values() for s in (i.api_key, i.oidc_client_secret)}
        keys = {c.admin_key.decode() for c in self.world.clusters.values()}
        return tuple(sorted(found | keys))

    def write_config(self, directory: Path, *, seal_keys_line: str, redis_url: str) -> None:
        """Write a configuration for every command of palette-sync into `directory` (see `write_config`)."""
        write_config(self.world, self.control_url, directory, seal_keys_line=seal_keys_line, redis_url=redis_url)

    async def __aenter__(self) -> Self:
        _raise_open_files_limit()
        self._frontend = Frontend(
            self.faults, self.requests, self.options.latency, listen=self.options.listen, host=self.options.host
        )
        try:
            await self._populate()
            self._control = ControlApi(self.world, self.faults, self.requests, self._set_latency)
            await self._control.start()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def _stop(self) -> None:
        control, self._control = self._control, None
        if control is not None:
            await control.stop()
        frontend, self._frontend = self._frontend, None
        if frontend is not None:
            await frontend.close()

    async def _populate(self) -> None:
        """Make the world that the options and the seed describe; projects and clusters are dealt out in turn."""
        options, world = self.options, self.world
        homes = [await self._add_instance(name) for name in INSTANCE_NAMES[: options.instances]]
        for number in range(options.projects):
            word = PROJECT_NAMES[number % len(PROJECT_NAMES)]
            series = number // len(PROJECT_NAMES)
            world.add_project(homes[number % len(homes)], f"{word}-{series + 1}" if series else word)
        share = len(homes) and options.clusters // len(homes)
        tenant_scoped = options.tenant_scoped if share >= _FEW else 0
        for number in range(options.clusters):
            await self._add_planned(homes[number % len(homes)], number, tenant_scoped)
            if number % _PAUSE_EVERY == 0:
                await asyncio.sleep(0)

    async def _add_planned(self, home: SimInstance, number: int, tenant_scoped: int) -> None:
        options = self.options
        index = len(home.clusters)
        oidc = int((number + 1) * options.oidc_share + 1e-9) > int(number * options.oidc_share + 1e-9)
        projects = list(home.projects.values())
        project = None if index < tenant_scoped or not projects else projects[index % len(projects)]
        stage = _STAGES[self.world.random.randrange(len(_STAGES))]
        owner = project.name if project is not None else "shared"
        name = f"{owner}-{stage}-{index + 1:02}"
        await self.world.add_cluster(
            home, project.uid if project is not None else None, name, oidc=oidc, tags=(f"stage:{stage}", "simulated")
        )

    async def _add_instance(self, name: str) -> SimInstance:
        world = self.world
        instance = SimInstance(
            name=name,
            api_key=f"canary-api-key-{name}-{world.new_uid()}",
            api_key_name=f"palette-sync-{name}",
            tenant_uid=world.new_uid(),
            user_uid=world.new_uid(),
            org_name=f"{name}-org",
            authority=Authority(f"simulated-palette-{name}"),
            limiter=RateLimiter(time.monotonic),
            oidc_client_secret=f"canary-oidc-client-secret-{name}-{world.new_uid()}",
            rate_limits=self.options.rate_limits,
        )
        context = server_context(instance.authority, self._keys, ask_client=False, host=self.options.host)
        instance.listener = await self._running.open(PaletteApi(instance), lambda: context)
        world.instances[name] = instance
        return instance

    async def _start_cluster(self, cluster: SimCluster) -> None:
        cluster.listener = await self._running.open(
            cluster,
            lambda: self._contexts.get(
                f"{cluster.uid}/{cluster.trust_generation}",
                lambda: server_context(cluster.authority, self._keys, ask_client=True, host=self.options.host),
            ),
        )


def _raise_open_files_limit() -> None:
    """Each API server is a listening socket: use all that the system grants."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

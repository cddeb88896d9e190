"""Starts and stops the simulator: the world, its listeners, faults, the request log and the control API."""

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
from palette_sync.simulator.cluster import SimInstance
from palette_sync.simulator.control_api import ControlApi
from palette_sync.simulator.faults import FaultBook
from palette_sync.simulator.listener import Frontend
from palette_sync.simulator.mix import MIX, make
from palette_sync.simulator.palette_api import PaletteApi
from palette_sync.simulator.rate_limit import RateLimiter
from palette_sync.simulator.request_log import RequestLog
from palette_sync.simulator.world import World
from palette_sync.simulator.write_config import write_config

if TYPE_CHECKING:
    import ssl
    from pathlib import Path
    from types import TracebackType

    from palette_sync.simulator.cluster import SimCluster

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
    """`projects` and `clusters` are totals over all instances. `latency` (seconds) is added to every answer.

    `tenant_scoped` is the number of clusters per instance, out of the total, that belong to no project; an instance
    with fewer than four clusters has none. `token_cap` (seconds) limits the life of tokens. `listen` is the IPv4
    address that Palette and the API servers bind; `host` is the name or address in URLs and certificates. `mix`: the
    clusters are of every kind in `mix.MIX` in turn, and `oidc_share` does not count.
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
    mix: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.instances <= len(INSTANCE_NAMES):
            raise ValueError(f"instances must be between 1 and {len(INSTANCE_NAMES)}")
        if self.projects < 0 or self.clusters < 0 or self.tenant_scoped < 0 or self.latency < 0:
            raise ValueError("projects, clusters, tenant_scoped and latency must not be negative")
        if not 0 <= self.oidc_share <= 1:
            raise ValueError("oidc_share must be between 0 and 1")
        try:
            unspecified = ipaddress.IPv4Address(self.listen).is_unspecified
        except ValueError:
            raise ValueError("listen must be an IPv4 address, such as 127.0.0.1 or 0.0.0.0") from None
        if not _HOST.fullmatch(self.host):
            raise ValueError("host must be a host name or an IPv4 address, such as simulator or 127.0.0.1")
        if unspecified and self.host == LOOPBACK:
            raise ValueError("if listen is 0.0.0.0, host must be the name or address that clients use")


class Simulator:
    """An async context manager that serves everything. The control API needs no credential, so it stays on loopback."""

    def __init__(self, options: SimulatorOptions | None = None) -> None:
        self.options = options or SimulatorOptions()
        self.faults = FaultBook()
        self.requests = RequestLog()
        self.world = World(
            seed=self.options.seed,
            token_cap=self.options.token_cap,
            start_listener=self._start_cluster,
            start_proxy=self._start_proxy,
        )
        self._keys = SharedKeys.new()
        self._contexts = ContextCache()
        self._frontend: Frontend | None = None
        self._control: ControlApi | None = None

    @property
    def control_url(self) -> str:
        """The URL of the control API (`control_api`). Raises RuntimeError before the start."""
        if self._control is None:
            raise RuntimeError("the simulator is not running")
        return self._control.url

    @property
    def latency(self) -> float:
        """Seconds added to every answer of Palette and Kubernetes. It can be set at any time."""
        return self._running.latency

    @latency.setter
    def latency(self, seconds: float) -> None:
        self._set_latency(seconds)

    def _set_latency(self, seconds: float) -> None:
        if seconds < 0:
            raise ValueError("latency must not be negative")
        self._running.latency = seconds

    @property
    def _running(self) -> Frontend:
        if self._frontend is None:
            raise RuntimeError("the simulator is not running")
        return self._frontend

    def secrets(self) -> tuple[str, ...]:
        """All long-lived secrets of the world, for tests that search for leaks. Tokens are not included."""
        found = {s for i in self.world.instances.values() for s in (i.api_key, i.oidc_client_secret)}
        keys = {c.admin_key.decode() for c in self.world.clusters.values()}
        return tuple(sorted(found | keys | {key.secret for key in self.world.accounts.aws_keys.values()}))

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
            self.world.built = True
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
        """Create the projects and clusters of the options, distributed evenly over the instances."""
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
        kind = MIX[number % len(MIX)] if options.mix else None
        name = f"{owner}-{kind.name if kind else stage}-{index + 1:02}"
        cluster = await self.world.add_cluster(
            home,
            project.uid if project is not None else None,
            name,
            oidc=kind.oidc if kind else oidc,
            tags=(f"stage:{stage}", "simulated"),
        )
        if kind is not None:
            await make(self.world, cluster, kind)

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
            proxy_authority=Authority(f"simulated-proxy-{name}"),
            limiter=RateLimiter(time.monotonic),
            oidc_client_secret=f"canary-oidc-client-secret-{name}-{world.new_uid()}",
            rate_limits=self.options.rate_limits,
        )
        context = server_context(instance.authority, self._keys, ask_client=False, host=self.options.host)
        instance.listener = await self._running.open(PaletteApi(instance), lambda: context)
        world.instances[name] = instance
        return instance

    async def _start_cluster(self, cluster: SimCluster) -> None:
        port = cluster.listener.port if cluster.listener is not None else 0
        cluster.listener = await self._running.open(cluster, lambda: self._context_of(cluster), port=port)

    async def _start_proxy(self, cluster: SimCluster) -> None:
        authority = cluster.instance.proxy_authority

        def find() -> ssl.SSLContext:
            if not cluster.managed:
                return self._context_of(cluster)
            return self._contexts.get(
                f"proxy/{cluster.instance_name}",
                lambda: server_context(authority, self._keys, ask_client=False, host=self.options.host),
            )

        cluster.proxy_listener = await self._running.open(cluster, find)

    def _context_of(self, cluster: SimCluster) -> ssl.SSLContext:
        host = cluster.host or self.options.host
        return self._contexts.get(
            f"{cluster.uid}/{cluster.trust_generation}/{host}",
            lambda: server_context(cluster.authority, self._keys, ask_client=True, host=host),
        )


def _raise_open_files_limit() -> None:
    """Raise the limit of open files to the hard limit, because each API server has a listening socket."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

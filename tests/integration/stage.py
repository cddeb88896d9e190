"""A stage for passes: simulated instances and clusters, a real Valkey, and our own assembly between them."""

from __future__ import annotations

import secrets
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from builders import token_in
from loopback import LOOPBACK
from palette_sync.assembly.instance import Shared, client_of, open_shared, policies_of, ports_of
from palette_sync.config import load
from palette_sync.core.model import ServiceAccountAuth
from palette_sync.kube.kubeconfig import BearerToken
from palette_sync.kube.transport import KubeApi, Requests
from palette_sync.reconcile.ports import PassOptions
from palette_sync.reconcile.run import run_pass
from palette_sync.simulator import Simulator, SimulatorOptions
from palette_sync.store.lease import Lease
from palette_sync.store.seal import SealKeys

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path

    from palette_sync.config import Settings
    from palette_sync.core.model import ClusterRecord, InstanceState
    from palette_sync.reconcile.ports import Rows
    from palette_sync.reconcile.report import PassReport


LEASE = 600  # seconds; released at the end of a pass, and long enough for the slowest machine
# A Wednesday at noon and half a second, so that a cut to whole seconds shows.
NOON = datetime(2026, 7, 15, 12, 0, 0, 500_000, tzinfo=UTC)


@dataclass
class Stage:
    """One simulated world and one store.

    `clock` is the time that passes see. It stands still at the same noon and moves only when a test advances it, so
    neither the date nor the speed of the machine decides what is due. The clock of the API servers began there too, and
    runs.
    """

    simulator: Simulator
    settings: Settings
    shared: Shared
    directory: Path
    offset: timedelta = timedelta(0)
    rows: Rows | None = None

    def clock(self) -> datetime:
        return NOON + self.offset

    def advance(self, **duration: float) -> None:
        """Advance the clock of the passes and of the API servers."""
        step = timedelta(**duration)
        self.offset += step
        self.simulator.world.advance(step.total_seconds())

    def reconfigure(self, old: str, new: str) -> None:
        """Change the configuration file's text (append `new` if `old` is empty) and load it again."""
        config = self.directory / "config.toml"
        text = config.read_text()
        assert old in text
        config.write_text(text.replace(old, new) if old else text + new)
        self.settings = load(config, environ=environment(self.settings.redis.prefix, config.read_text()))
        self.shared = replace(self.shared, settings=self.settings, policies=policies_of(self.settings))

    async def run(self, instance: str = "alpha", *, rows: Rows | None = None, **options: bool) -> PassReport:
        """Run one pass under a lease, as `once` does. The request log then holds only this pass.

        `self.rows` then holds what the next pass of a daemon would be given as `rows`.
        """
        self.simulator.requests.reset()
        async with (
            client_of(instance, self.settings.instances[instance], self.shared.limits) as client,
            await Lease.acquire(
                self.shared.store.link, self.shared.store.keys, instance, ttl=LEASE, holder="test"
            ) as lease,
        ):
            publisher = await self.shared.store.publisher(instance, epoch=lease.epoch, writer="test")
            ports = ports_of(self.shared, instance, client, publisher=publisher, clock=self.clock)
            report, self.rows = await run_pass(
                ports, pass_id=secrets.token_hex(4), options=_options(options), rows=rows
            )
            return report

    async def plan(self, instance: str = "alpha", **options: bool) -> PassReport:
        self.simulator.requests.reset()
        async with client_of(instance, self.settings.instances[instance], self.shared.limits) as client:
            ports = ports_of(self.shared, instance, client, publisher=None, clock=self.clock)
            report, _ = await run_pass(ports, pass_id="plan", options=_options(options))
            return report

    async def state(self, instance: str = "alpha") -> InstanceState:
        return await self.shared.store.load(instance)

    async def record(self, uid: str, instance: str = "alpha") -> ClusterRecord:
        return (await self.state(instance)).records[uid]

    def kube_requests(self, uid: str | None = None, method: str | None = None) -> int:
        return self.simulator.requests.count("kube", cluster=uid, method=method)

    def kube_writes(self, uid: str | None = None) -> int:
        """Count writes that change objects; token requests, access reviews and dry runs change none."""
        return sum(
            entry.method in {"POST", "PUT", "PATCH", "DELETE"}
            and not entry.path.endswith(("/token", "/selfsubjectaccessreviews"))
            and "dryRun" not in entry.query
            and (uid is None or entry.cluster == uid)
            for entry in self.simulator.requests.entries
            if entry.target == "kube"
        )

    async def pods(self, uid: str, instance: str = "alpha") -> int:
        """List pods as a reader would, with server, CA and token from Redis alone."""
        state = await self.state(instance)
        record = state.records[uid]
        assert record.server is not None
        assert isinstance(record.auth, ServiceAccountAuth)
        token = token_in(state, uid, sealer=self.shared.sealer, prefix=self.shared.store.keys.prefix)
        async with KubeApi(record.server, BearerToken(token), timeout=60, requests=Requests(network=LOOPBACK)) as api:
            found: dict[str, Any] = await api.call("GET pods", api.core.list_pod_for_all_namespaces)
        return len(found["items"])


def _options(given: Mapping[str, bool]) -> PassOptions:
    """A pass on schedule, unless an operator asked for it."""
    asked = any(given.get(name, False) for name in ("resync", "allow_prune", "known_only"))
    return PassOptions(**{"scheduled": not asked, **given})


def environment(prefix: str, config: str) -> dict[str, str]:
    """The variables of a stage: its own prefix, and defaults for what the configuration of the test does not set.

    No verification, because its slots lie in calendar time and could fall into any time that a test advances; and
    minutes for each cluster, so that none times out on a busy machine.
    """
    calm = {"verify_interval": "3650d", "cluster_timeout": "10m"}
    given = {name: value for name, value in calm.items() if name not in config}
    variables = {f"PALETTE_SYNC_DEFAULTS__{name.upper()}": value for name, value in given.items()}
    return {"PALETTE_SYNC_REDIS__PREFIX": prefix, **variables}


@asynccontextmanager
async def stages(valkey_url: str, directory: Path) -> AsyncIterator[Callable[..., Any]]:
    """Yield what makes a stage; every stage is taken down at the end."""
    async with AsyncExitStack() as stack:

        async def make(
            *, instances: int = 1, projects: int = 2, clusters: int = 6, extra: str = "", **options: Any
        ) -> Stage:
            simulator = await stack.enter_async_context(
                Simulator(SimulatorOptions(instances=instances, projects=projects, clusters=clusters, **options))
            )
            simulator.world.advance(NOON.timestamp() - simulator.world.now())
            simulator.write_config(directory, seal_keys_line=SealKeys.generate_line("test"), redis_url=valkey_url)
            config = directory / "config.toml"
            config.write_text(config.read_text() + extra)
            settings = load(config, environ=environment(f"test-{secrets.token_hex(6)}", config.read_text()))
            shared = await stack.enter_async_context(open_shared(settings))
            return Stage(simulator, settings, shared, directory)

        yield make

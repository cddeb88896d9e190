"""Two simulated Palettes with clusters, a Redis and several daemons, as processes."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Self

import redis

from chaos import process
from chaos.checker import Checker
from chaos.contract_reader import Key
from chaos.servers import Dumps, SentinelStore, SingleStore
from chaos.watch import Watch
from e2e.command import simulation
from e2e.conftest import World
from e2e.daemon import daemon

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from chaos.servers import Store
    from e2e.daemon import Daemon

# Tokens of the first are requested and expire; those of the second are in Secrets, which are replaced and deleted.
INSTANCES = REQUESTS, GENERATIONS = "alpha", "bravo"
CLUSTERS = 10
QUIET = 2  # clusters to which nothing happens
TOKEN_LIFE = 180  # seconds; clocks are wrong by much less than the third of it that is left after a renewal is due
LEASE = 3.0  # seconds
VERIFY = 10.0  # seconds
STARTED = 4.0  # seconds after which a process has usually read what Redis holds
FOLLOWED = 10.0  # seconds after which a process must have read what Redis has shown all the time
RELEARN = 60.0  # seconds until a process that remembers nothing has verified all access, or given it anew
BROKEN = "instances = 5\n"  # a configuration that is rejected
PREFIX = "chaos"
# Epochs begin so far ahead of the server's clock. Whatever Redis loses, its clock alone gives lower ones.
AHEAD_MS = 3_600_000
SETTINGS = {
    "PALETTE_SYNC_REDIS__PREFIX": PREFIX,
    "PALETTE_SYNC_REDIS__TIMEOUT": "2s",
    "PALETTE_SYNC_REDIS__CONNECT_TIMEOUT": "2s",
    "PALETTE_SYNC_SERVICE__LEASE_TTL": f"{LEASE}s",
    "PALETTE_SYNC_SERVICE__PALETTE_RATE_LIMITS": "false",
    "PALETTE_SYNC_DEFAULTS__NAME_PREFIX": "shop",  # of both instances, so that their names may collide
    "PALETTE_SYNC_DEFAULTS__REFRESH_INTERVAL": "3s",
    "PALETTE_SYNC_DEFAULTS__VERIFY_INTERVAL": f"{VERIFY}s",
    "PALETTE_SYNC_DEFAULTS__CLUSTER_TIMEOUT": "5s",
    "PALETTE_SYNC_INSTANCES__BRAVO__TOKEN__SOURCE": "secret",
    "PALETTE_SYNC_INSTANCES__BRAVO__TOKEN__ROTATE_EVERY": "40s",
    "PALETTE_SYNC_INSTANCES__BRAVO__TOKEN__OVERLAP": "10s",
}
NAMESPACE = "backstage-system"
# Objects of somebody else, in each cluster.
FOREIGN = (("ConfigMap", "default", "of-somebody-else"), ("ClusterRole", "-", "of-somebody-else"))
# One that has our name and another meaning, in one cluster.
NAMESAKE = ("ClusterRoleBinding", "-", "backstage-read-only-binding")
_BODIES: dict[str, dict[str, Any]] = {
    "ConfigMap": {"data": {"owner": "somebody else"}},
    "ClusterRole": {"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]},
    "ClusterRoleBinding": {
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "of-somebody-else"},
        "subjects": [],
    },
}


class Lab:
    """Starts everything. `violations` collects what its checker notes."""

    def __init__(self, directory: Path, *, daemons: int, sentinel: bool, grace: float, slack: float) -> None:
        self._directory = directory
        self._grace = grace
        self._slack = slack
        self._open = ExitStack()
        self._contexts: list[ExitStack] = [ExitStack() for _ in range(daemons)]
        self._later: list[_Later] = []
        self._informed: dict[str, set[int]] = {}
        self.daemons: list[Daemon | None] = [None] * daemons
        self.stopped: set[int] = set()
        self._running_since = [0.0] * daemons
        self.lock = threading.RLock()
        self.store: Store = (SentinelStore if sentinel else SingleStore)(directory / "redis")
        self.dumps = Dumps(self.store)
        self._epochs_lost = True
        self.world: World
        self.checker: Checker
        self.violations: list[str] = []
        self.contested = ""  # the cluster in which somebody else has an object of our name

    def __enter__(self) -> Self:
        arguments = ("--instances", str(len(INSTANCES)), "--clusters", str(CLUSTERS), "--projects", "4")
        document = self._open.enter_context(simulation(self._directory / "world", *arguments))
        self._open.callback(self.store.kill)
        self.store.start()
        self.world = World(document, self._directory / "world" / "config.toml")
        self.world.all_by_token()
        uids = {one["name"]: [cluster["uid"] for cluster in one["clusters"]] for one in document["instances"]}
        quiet = uids[REQUESTS][:QUIET]
        for uid in self.world.clusters():
            self.prepare(uid, life=None if uid in quiet else TOKEN_LIFE)
        self.contested = uids[REQUESTS][QUIET]
        self._put(self.contested, NAMESAKE)
        self.put_epochs_ahead()
        line = (self._directory / "world" / "seal.keys").read_text()
        watches = {name: Watch(name, set(uids[name]), self._note, slack=self._slack) for name in INSTANCES}
        watches[REQUESTS].quiet = set(quiet)
        self.checker = Checker(
            self.store, PREFIX, [Key.read(line)], watches, self._writes_after, self.violations, self._grace
        )
        for index in range(len(self.daemons)):
            self.start(index)
        return self

    def __exit__(self, *_: object) -> None:
        self.undo_all()
        for index, one in enumerate(self._contexts):
            self.signal(index, signal.SIGCONT)
            one.close()
        self._open.close()

    def _note(self, what: str) -> None:
        self.checker.note(what)

    def _writes_after(self, number: int) -> tuple[int, list[Any]]:
        found = self.world.control("GET", f"/writes?after={number}")
        return found["number"], found["writes"]

    # The world.

    def prepare(self, uid: str, *, life: float | None = TOKEN_LIFE) -> None:
        """Limit the life of a cluster's tokens, and put objects of somebody else there."""
        self.world.control("PATCH", f"/clusters/{uid}", {"token_cap": life})
        for place in FOREIGN:
            self._put(uid, place)

    def _put(self, uid: str, place: tuple[str, str, str]) -> None:
        kind, namespace, name = place
        metadata = {"name": name, **({"namespace": namespace} if namespace != "-" else {})}
        body = {"metadata": metadata, **_BODIES[kind]}
        self.world.control("PUT", f"/clusters/{uid}/kube/{kind}/{namespace}/{name}", body)

    def existing(self) -> list[str]:
        """The uids of all clusters that Palette has."""
        return sorted(uid for watch in self.checker.watches.values() for uid in watch.existing)

    def foreign_objects(self) -> dict[str, Any]:
        """Everything that is not ours, by cluster and object."""
        places = [(uid, place) for uid in self.existing() for place in FOREIGN] + [(self.contested, NAMESAKE)]
        return {
            f"{uid}/{'/'.join(place)}": self.world.control("GET", f"/clusters/{uid}/kube/{'/'.join(place)}")
            for uid, place in places
        }

    def secrets(self) -> dict[str, int]:
        """How many Secrets palette-sync's namespace has, by cluster."""
        found = {uid: self.world.control("GET", f"/clusters/{uid}/kube/Secret") for uid in self.existing()}
        return {uid: len(names.get(NAMESPACE, [])) for uid, names in found.items()}

    def ready(self) -> bool:
        """Whether Redis holds access to every cluster, except the one in which somebody else has our name."""
        records = {uid: one for watch in self.checker.watches.values() for uid, one in dict(watch.view.records).items()}
        working = {uid for uid, one in records.items() if one["access"]["state"] == "ready"}
        current = all(watch.current for watch in self.checker.watches.values())
        return current and set(self.existing()) - {self.contested} <= working and self.contested in records

    # Daemons.

    def config(self, index: int) -> Path:
        return self._directory / "world" / f"daemon-{index}.toml"

    def configure(self, index: int, text: str) -> None:
        """Replace the configuration of a daemon, at once."""
        draft = self.config(index).with_suffix(".draft")
        draft.write_text(text)
        draft.replace(self.config(index))

    def clock(self, index: int) -> Path:
        """The file that says how far a daemon's clock is ahead."""
        return self._directory / "world" / f"clock-{index}"

    def start(self, index: int) -> None:
        with self.lock:
            if self.daemons[index] is None:
                if not self.config(index).exists() or self.config(index).read_text() == BROKEN:
                    self.configure(index, self.world.config.read_text())  # with a broken one it would not start
                code = process.code(self.clock(index))
                context = daemon(self.config(index), code=code, PALETTE_SYNC_REDIS__URL=self.store.url, **SETTINGS)
                started = self.daemons[index] = self._contexts[index].enter_context(context)
                self._running_since[index] = time.monotonic()
                self.checker.tell(f"daemon {index} is process {started.process.pid}")

    def signal(self, index: int, number: signal.Signals) -> None:
        with self.lock:
            one = self.daemons[index]
            if one is not None and one.process.poll() is None:
                one.process.send_signal(number)

    def stop(self, index: int) -> None:
        """Stop a daemon, until `wake`."""
        self.signal(index, signal.SIGSTOP)
        self.stopped.add(index)
        self.knows_no_more(index)

    def wake(self, index: int) -> None:
        self.signal(index, signal.SIGCONT)
        self.stopped.discard(index)
        self._running_since[index] = time.monotonic()

    def ask(self, index: int, *numbers: signal.Signals) -> None:
        """Send signals that a daemon handles, unless it has just begun and a signal would still end it."""
        if self.has_started(index):
            for number in numbers:
                self.signal(index, number)

    def has_started(self, index: int) -> bool:
        """Whether a daemon has read its configuration and handles signals."""
        one = self.daemons[index]
        return one is not None and bool(one.text)

    def restart(self, index: int, number: signal.Signals) -> None:
        """End a daemon by a signal, and start it again once it has ended."""
        with self.lock:
            one, self.daemons[index] = self.daemons[index], None
            if one is None:
                return  # it is ending already
            for sent in (number, signal.SIGCONT):
                with suppress(ProcessLookupError):
                    one.process.send_signal(sent)
            self.stopped.discard(index)
            self.knows_no_more(index)
        with suppress(subprocess.TimeoutExpired):
            one.process.wait(40)
        with self.lock:
            self._contexts[index].close()
            self.start(index)

    def crashed(self) -> list[str]:
        """Daemons that ended although nobody asked them to, with the end of their log."""
        with self.lock:
            gone = [one for one in self.daemons if one is not None and one.process.poll() is not None]
            return [f"exit {one.process.returncode}: {one.text[-2000:]}" for one in gone]

    def unexpected(self) -> list[str]:
        """Bugs that daemons logged."""
        logs = (self._directory / "world").glob("*.log")
        lines = [line for log in logs for line in log.read_text(errors="replace").splitlines()]
        return [line[:3000] for line in lines if '"unexpected_error"' in line or '"pass_failed"' in line]

    # Who remembers what Redis has lost.

    @contextmanager
    def losing(self) -> Iterator[None]:
        """In the block Redis loses something. Note which processes remember what readers hold.

        Redis is full again once one of these has filled it. If none of them is left, nobody can know what was
        published, and the checker begins anew.
        """
        with self.lock:
            announced = self._announced()
            with self.checker.lock:
                for name, watch in self.checker.watches.items():
                    if watch.lost is None:  # otherwise an earlier loss is still to be filled, by those who knew then
                        self._informed[name] = self._knowing(watch, announced)
            try:
                yield
            finally:
                with self.checker.lock:
                    for name, watch in self.checker.watches.items():
                        watch.losing()
                        self._forget_if_lost(name)

    def _knowing(self, watch: Watch, announced: dict[int, Any]) -> set[int]:
        """The daemons that run and remember what readers hold.

        Who wrote it remembers it, and whoever announces that. So does everybody who has run long enough to read it.
        """
        snapshot = watch.view.snapshot
        knowing = {int(snapshot.writer.rpartition(":")[2])} if snapshot is not None else set()
        for pid, document in announced.items():
            memory = document["instances"].get(watch.instance, {}).get("memory")
            if memory is not None and tuple(memory) >= watch.order:
                knowing.add(pid)
        running = {index: one for index, one in enumerate(self.daemons) if one is not None}
        known = {index for index, one in running.items() if one.process.pid in knowing}
        if self.checker.shown_since(watch) > FOLLOWED:
            known |= {index for index in running if self._runs_since(index) > FOLLOWED}
        return known - self.stopped

    def put_epochs_ahead(self) -> None:
        """Set epochs that are ahead of the server's clock, at first and after nobody remembered them."""
        if self._epochs_lost:
            with suppress(redis.RedisError), self.store.client() as client:
                seconds, _ = client.time()
                for name in INSTANCES:
                    client.set(f"{{{PREFIX}:{name}}}:epoch", seconds * 1000 + AHEAD_MS)
                self._epochs_lost = False

    def _announced(self) -> dict[int, Any]:
        """What the processes announce about themselves, by process id."""
        found = {}
        with suppress(redis.RedisError), self.store.client() as client:
            for member, value in client.hgetall(f"{PREFIX}:members").items():
                found[int(member.split(b":")[1])] = json.loads(value.partition(b" ")[2])
        return found

    def somebody_should_know(self, without: int | None = None) -> bool:
        """Whether a daemon (other than `without`) runs that must remember what readers hold, whatever it announces."""
        with self.lock, self.checker.lock:
            running = [index for index, one in enumerate(self.daemons) if one is not None]
            settled = {index for index in running if self._runs_since(index) > STARTED}
            losing = [self._informed[name] for name, watch in self.checker.watches.items() if watch.lost is not None]
            return all(knowing - {without} for knowing in (settled, *losing))

    def _runs_since(self, index: int) -> float:
        return 0.0 if index in self.stopped else time.monotonic() - self._running_since[index]

    def knows_no_more(self, index: int) -> None:
        """A process has ended, or is stopped for longer than its lease."""
        with self.checker.lock:
            for name, knowing in self._informed.items():
                knowing.discard(index)
                self._forget_if_lost(name)

    def _forget_if_lost(self, name: str) -> None:
        watch = self.checker.watches[name]
        if watch.lost is not None and not self._informed[name]:
            self.checker.tell(f"{name}: nobody remembers what Redis has lost")
            self.checker.begin_anew()
            watch.forget(until=time.time() + RELEARN)
            for uid in watch.existing:  # an older copy may hold a token that was replaced since
                self.checker.excuse(uid, RELEARN)
            self.dumps.forget()  # copies from before would seem to be newer
            self._epochs_lost = True

    # Timers.

    def later(self, seconds: float, undo: Callable[[], Any]) -> None:
        """Do something after some seconds, or when the faults end. It may fail because of another fault."""
        one = _Later(seconds, undo)
        self._later.append(one)
        one.timer.start()

    def undo_all(self) -> None:
        """Do at once what `later` has put off."""
        while self._later:
            self._later.pop(0).now()


class _Later:
    def __init__(self, seconds: float, undo: Callable[[], Any]) -> None:
        self._undo = undo
        self._lock = threading.Lock()
        self._done = False
        self.timer = threading.Timer(seconds, self._run)
        self.timer.daemon = True

    def _run(self) -> None:
        with self._lock:
            if not self._done:
                self._done = True
                with suppress(redis.RedisError, OSError, AssertionError):
                    self._undo()

    def now(self) -> None:
        """Do it unless it has been done. Returns once it is."""
        self.timer.cancel()
        self._run()

"""Makes the faults of a schedule happen in a lab. Faults that last are undone by timers, so several of them overlap."""

from __future__ import annotations

import signal
import time
from collections import Counter
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any

import redis

from chaos.lab import BROKEN, CLUSTERS, INSTANCES, LEASE, QUIET
from chaos.schedule import LONGEST, LOSES, FaultKind
from chaos.servers import SentinelStore, SingleStore

if TYPE_CHECKING:
    from chaos.lab import Lab
    from chaos.schedule import Step

# A reload with this changes every record, and takes nothing away.
VARIANT = "\n[defaults]\nskip_metrics_lookup = false\n"
AHEAD = 50.0  # seconds by which a clock is wrong, at most
SPARED = 0.9  # of the faults that would leave nobody who remembers what was published
LIES = {"empty": "empty", "half": "half"}
_PALETTE = {
    "error": {"kind": "status", "status": 500},
    "throttled": {"kind": "status", "status": 429, "headers": {"Retry-After": "1"}},
    "hang": {"kind": "hang"},
    "garbage": {"kind": "garbage"},
    "drop": {"kind": "drop"},
}
_KUBE: dict[str, dict[str, Any]] = {
    "error": {"kind": "status", "status": 503},
    "unauthorized": {"kind": "status", "status": 401},
    "forbidden": {"kind": "status", "status": 403},
    "hang": {"kind": "hang"},
    "drop": {"kind": "drop"},
    "lost-answer": {"kind": "lost-answer"},
    "latency": {"kind": "latency", "seconds": 1.0},
}


class Faults:
    """`counts` says how many faults there were of each kind."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._good = lab.world.config.read_text()
        self.counts: Counter[FaultKind] = Counter()

    def apply(self, step: Step) -> None:
        """Make one fault happen. Returns once it has been undone, or runs by itself."""
        if self._leaves_nobody(step) and step.seconds < SPARED * LONGEST:
            return
        self._lab.put_epochs_ahead()
        self._lab.dumps.keep()
        self._lab.checker.tell(f"fault {step}")
        self.counts[step.kind] += 1
        where, _, what = step.kind.value.partition("-")
        loses = step.kind in LOSES and step.kind is not FaultKind.REDIS_LOST_WRITES
        with suppress(redis.RedisError), self._lab.losing() if loses else nullcontext():
            getattr(self, f"_{where}")(what, step)

    def _leaves_nobody(self, step: Step) -> bool:
        """Whether nobody would be left who remembers what was published. After that, little can be expected."""
        if step.kind in LOSES:
            return not self._lab.somebody_should_know()
        if step.kind in {FaultKind.DAEMON_KILL, FaultKind.DAEMON_TERM, FaultKind.DAEMON_STOP}:
            return not self._lab.somebody_should_know(without=self._index(step))
        return False

    def _index(self, step: Step) -> int:
        return int(step.draw * len(self._lab.daemons))

    # Redis.

    def _redis(self, what: str, step: Step) -> None:
        lab, store = self._lab, self._lab.store
        look = lab.checker.read_published
        if what == "pause":
            store.send(signal.SIGSTOP)
            lab.later(step.seconds, store.calm)
        elif what == "older-dump":
            lab.checker.admit(self._lab.dumps.restore(step.draw, look))
        elif isinstance(store, SentinelStore) and what in {"failover", "master-death"}:
            if what == "failover":
                store.failover()
            else:
                lab.later(step.seconds, store.master_death())
        elif isinstance(store, SingleStore) and what in {"restart", "lost-writes"}:
            if what == "restart":
                store.restart(min(step.seconds, 2.0))
            else:
                lab.checker.admit(store.forget_from_now(look))
                lab.later(step.seconds, lambda: self._lose_writes(store))
        else:
            self._redis_command(what, step)

    def _lose_writes(self, store: SingleStore) -> None:
        with self._lab.losing():
            store.restart(0.0)

    def _redis_command(self, what: str, step: Step) -> None:
        with self._lab.store.client() as client:
            if what == "wipe":
                client.flushall()
            if what == "connections":
                client.client_kill_filter(_type="normal", skipme=True)
            if what == "readonly":
                client.replicaof("127.0.0.1", "1")
                self._lab.later(step.seconds, self._lab.store.calm)
            if what == "oom":
                client.config_set("maxmemory", "1mb")
                self._lab.later(step.seconds, self._lab.store.calm)

    # Daemons.

    def _daemon(self, what: str, step: Step) -> None:
        lab, index = self._lab, self._index(step)
        if what == "kill":
            lab.restart(index, signal.SIGKILL)
        if what == "term":
            lab.later(0.0, lambda: lab.restart(index, signal.SIGTERM))
        if what == "stop":
            self._keep_busy(step)
            lab.stop(index)
            lab.later(LEASE + step.seconds / 2, lambda: lab.wake(index))
        if what == "signals":
            lab.ask(index, *(signal.SIGUSR1, signal.SIGHUP, signal.SIGUSR2) * 3)
        if what == "clock":
            ahead = AHEAD * (2 * (step.draw * len(lab.daemons) % 1) - 1)
            lab.clock(index).write_text(f"{ahead:.1f}")
            lab.later(2 * step.seconds, lambda: lab.clock(index).unlink(missing_ok=True))
        if what == "reload":
            # The operator changes the file everywhere, and reloads one process at first.
            self._configure(self._good + VARIANT, reload=(index,))
            lab.later(step.seconds, lambda: self._configure(self._good))
        if what == "broken-reload" and lab.has_started(index):
            lab.configure(index, BROKEN)
            lab.ask(index, signal.SIGHUP)
            lab.later(step.seconds, lambda: self._configure(self._good))

    def _keep_busy(self, step: Step) -> None:
        """Give everybody much to write to slow clusters, so that whoever is stopped is in the middle of it."""
        for uid in self._restless():
            self._drift(uid)
            self._fault({"target": "kube", "cluster": uid, "kind": "latency", "seconds": 0.3}, 2 * LEASE)
        for index in range(len(self._lab.daemons)):
            self._lab.ask(index, signal.SIGUSR1)
        time.sleep(0.5 + step.draw)

    def _configure(self, text: str, reload: tuple[int, ...] | None = None) -> None:
        everybody = range(len(self._lab.daemons))
        for index in everybody:
            self._lab.configure(index, text)
        for index in everybody if reload is None else reload:
            self._lab.ask(index, signal.SIGHUP)

    # Palette.

    def _palette(self, what: str, step: Step) -> None:
        instances = INSTANCES[int(step.draw * 3) :][:1] or INSTANCES  # the first, the second, or both
        for name in instances:
            if what in _PALETTE:
                self._fault({"target": "palette", "instance": name, **_PALETTE[what]}, step.seconds)
            else:
                change, undo = _changes(what)
                self._change(f"/instances/{name}", change, undo, step.seconds)

    def _change(self, path: str, change: dict[str, Any], undo: dict[str, Any], seconds: float) -> None:
        self._lab.world.control("PATCH", path, change)
        self._lab.later(seconds, lambda: self._lab.world.control("PATCH", path, undo))

    def _fault(self, fault: dict[str, Any], seconds: float) -> None:
        added = self._lab.world.control("POST", "/faults", fault)
        self._lab.later(seconds, lambda: self._lab.world.control("DELETE", f"/faults/{added['id']}"))

    # Clusters.

    def _kube(self, what: str, step: Step) -> None:
        uids = self._restless()
        chosen = [uids[int(step.draw * 1000) % len(uids)]] if step.draw < 0.7 else uids
        for uid in chosen:
            if what in _KUBE:
                if what == "unauthorized":
                    self._lab.checker.excuse(uid, step.seconds)
                self._fault({"target": "kube", "cluster": uid, **_KUBE[what]}, step.seconds)
            if what == "revoked":
                self._lab.checker.revoked(uid)
            if what in {"new-ca", "revoked", "down"}:
                action = {"new-ca": "renew-authority", "revoked": "revoke-tokens", "down": "shut"}[what]
                self._act(uid, action)
            if what == "down":
                self._lab.later(step.seconds, lambda uid=uid: self._act(uid, "open"))  # type: ignore[misc]

    def _act(self, uid: str, action: str) -> None:
        with suppress(OSError):  # it was removed, or is open again already
            self._lab.world.control("POST", f"/clusters/{uid}/{action}")

    def _restless(self) -> list[str]:
        quiet = {uid for watch in self._lab.checker.watches.values() for uid in watch.quiet}
        return [uid for uid in self._lab.existing() if uid not in quiet]

    # The world.

    def _world(self, what: str, step: Step) -> None:
        lab = self._lab
        uids = [uid for uid in self._restless() if uid != lab.contested]
        uid = uids[int(step.draw * len(uids))]
        if what == "drift":
            self._drift(uid)
        if what == "add" and len(uids) < 2 * CLUSTERS:
            self._add_twins(f"twin-{step.number}")
        if what == "remove" and len(uids) > CLUSTERS // 2 - QUIET:
            for watch in lab.checker.watches.values():
                watch.existing.discard(uid)
            lab.world.control("DELETE", f"/clusters/{uid}")

    def _drift(self, uid: str) -> None:
        rules = {"rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]}
        with suppress(OSError):  # it has no role yet
            self._lab.world.control("PATCH", f"/clusters/{uid}/kube/ClusterRole/-/backstage-read-only", rules)

    def _add_twins(self, name: str) -> None:
        """Add a cluster of the same name to each instance."""
        for one in self._lab.world.document["instances"]:
            body = {"instance": one["name"], "project": one["projects"][0]["uid"], "name": name, "oidc": False}
            uid = self._lab.world.control("POST", "/clusters", body)["uid"]
            self._lab.prepare(uid)
            self._lab.checker.watches[one["name"]].existing.add(uid)

    # The end.

    def calm(self) -> None:
        """Undo every fault that still lasts."""
        lab = self._lab
        lab.undo_all()
        lab.store.calm()
        lab.world.control("DELETE", "/faults")
        for name in INSTANCES:
            for what in ("empty", "no-roles", "key-expired"):
                lab.world.control("PATCH", f"/instances/{name}", _changes(what)[1])
        for uid in lab.existing():
            self._act(uid, "open")
        for index in range(len(lab.daemons)):
            lab.clock(index).unlink(missing_ok=True)
            lab.wake(index)
            lab.start(index)
        self._configure(self._good)


def _changes(what: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What changes an instance of Palette, and what changes it back."""
    if what in LIES:
        return {"behaviour": {"listing_lie": LIES[what]}}, {"behaviour": {"listing_lie": "none"}}
    if what == "no-roles":  # lists are empty, and answer 200
        return {"key_permission": "project", "key_projects": []}, {"key_permission": "tenant", "key_projects": None}
    assert what == "key-expired"
    return {"key_active": False}, {"key_active": True}

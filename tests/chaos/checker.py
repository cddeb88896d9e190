"""Watches what is published while faults happen, and notes every broken promise.

It reads Redis as the Backstage adapter does, uses each published token at its cluster, and reads what clusters were
sent, in threads of its own. Nothing in it depends on palette-sync.
"""

from __future__ import annotations

import http.client
import json
import ssl
import threading
import time
from base64 import b64decode
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import redis

from chaos.contract_reader import Refused, verified, verified_changes
from chaos.process import process_of
from chaos.watch import Watch, Write, double_names

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from chaos.contract_reader import Key, Token
    from chaos.servers import Store

LOOK = 0.1  # seconds between two looks at Redis
CHANGES = 50  # entries of the stream of changes that a look reads
WRITES = 0.5  # seconds between two looks at what clusters were sent
PROOF = 2.0  # seconds between two uses of all tokens
PROOF_TIMEOUT = 5.0
SKEW = timedelta(seconds=60)  # by which the clock of a daemon may be wrong
MOST_NOTES = 50
STORY = 200


@dataclass
class Figures:
    """What the checker did, for the report."""

    looks: int = 0
    refused: int = 0
    proofs: int = 0
    unanswered: int = 0
    lapsed: int = 0


@dataclass
class Checker:
    """`writes_after` returns what the API servers were sent beyond a number, and the new number.

    `grace`: seconds that a dead token may stay published: to find out, to replace and to publish it.
    """

    store: Store
    prefix: str
    keys: list[Key]
    watches: dict[str, Watch]
    writes_after: Callable[[int], tuple[int, list[Mapping[str, Any]]]]
    violations: list[str]
    grace: float
    figures: Figures = field(default_factory=Figures)
    story: deque[str] = field(default_factory=lambda: deque(maxlen=STORY))
    lock: threading.RLock = field(default_factory=threading.RLock)
    _dead: dict[tuple[str, str], float] = field(default_factory=dict)
    _excused: dict[str, float] = field(default_factory=dict)
    _revoked: dict[str, datetime] = field(default_factory=dict)
    _number: int = 0
    _looked_at: float = 0.0
    _beginning: int = 0
    _ended: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        for name, step, pause in (
            ("looks", self._look, LOOK),
            ("proofs", self._prove_all, PROOF),
            ("writes", self._read_writes, WRITES),
        ):
            thread = threading.Thread(target=self._repeat, args=(step, pause), name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), f"the checker hangs: {thread.name}"

    def _repeat(self, step: Callable[[], None], pause: float) -> None:
        try:
            while not self._ended.wait(pause):
                step()
        except Exception as error:  # noqa: BLE001 - a bug of the checker must fail the test, not end its thread silently
            self.note(f"the checker failed: {type(error).__name__}: {error}")

    def note(self, what: str) -> None:
        with self.lock:
            if what not in self.violations and len(self.violations) < MOST_NOTES:
                self.violations.append(what)

    def tell(self, what: str) -> None:
        """Add to the story, which a failure prints."""
        self.story.append(f"{datetime.now(UTC):%H:%M:%S.%f} {what}")

    # What is published.

    def key(self, instance: str, name: str) -> str:
        return f"{{{self.prefix}:{instance}}}:{name}"

    def read_published(self, pipe: Any) -> None:
        """Add to a transaction what a look reads."""
        for instance in self.watches:
            for name in ("head", "clusters", "credentials"):
                pipe.hgetall(self.key(instance, name))
            pipe.xrevrange(self.key(instance, "changes"), count=CHANGES)
            pipe.get(self.key(instance, "lease"))

    def _look(self) -> None:
        asked, began = time.time(), self._beginning
        try:
            with self.store.client(timeout=2) as client:
                pipe = client.pipeline(transaction=True)
                self.read_published(pipe)
                found = pipe.execute()
        except (redis.RedisError, OSError):
            with self.lock:  # Redis is away; a reader keeps what it holds
                for watch in self.watches.values():
                    watch.shown_since = None
            return
        answered = time.time()
        with self.lock:
            if began != self._beginning:
                return  # this was read before
            self.figures.looks += 1
            for at, watch in enumerate(self.watches.values()):
                *published, lease = found[5 * at : 5 * at + 5]
                if lease is not None:
                    held = json.loads(lease)
                    process = int(held["holder"].rpartition(":")[2])
                    if watch.see_lease(held["id"], process, since=answered, until=asked):
                        self.tell(f"{watch.instance}: {process} holds the lease")
                self._judge(watch, published)
                if not watch.current:
                    watch.shown_since = None
                elif watch.shown_since is None:
                    watch.shown_since = time.monotonic()
            self._looked_at = asked

    def shown_since(self, watch: Watch) -> float:
        """For how many seconds every look has found what readers hold. 0 while Redis is away."""
        if watch.shown_since is None or time.time() - self._looked_at > 1.0:
            return 0.0
        return time.monotonic() - watch.shown_since

    def begin_anew(self) -> None:
        """What a look has read until now counts no more."""
        self._beginning += 1

    def _judge(self, watch: Watch, found: Sequence[Any]) -> None:
        head, clusters, credentials, changes = found
        place: Any = {"prefix": self.prefix, "instance": watch.instance, "keys": self.keys}
        try:
            watch.see_changes(verified_changes(changes, **place))
            snapshot = verified(head, clusters, credentials, **place)
        except Refused as error:
            self.figures.refused += 1
            self.note(f"{watch.instance}: what is published does not verify: {error}")
            return
        if snapshot is not None:
            if watch.see(snapshot):
                version = f"epoch {snapshot.epoch} version {snapshot.version}"
                self.tell(f"{watch.instance}: Redis holds {version}, by {snapshot.writer}")
            for name in double_names(list(self.watches.values())):
                self.note(f"the name {name} is published twice")

    def admit(self, found: Sequence[Any]) -> None:
        """Redis holds this again, or is about to: the answers to `read_published`."""
        with self.lock:
            for at, watch in enumerate(self.watches.values()):
                place: Any = {"prefix": self.prefix, "instance": watch.instance, "keys": self.keys}
                head, clusters, credentials, changes, _ = found[5 * at : 5 * at + 5]
                snapshot = verified(head, clusters, credentials, **place)
                for order, digests in verified_changes(changes, **place).items():
                    watch.admit(order, digests)
                if snapshot is not None:
                    watch.admit(snapshot.order, snapshot.digests)

    # What clusters were sent.

    def _read_writes(self) -> None:
        number, entries = self.writes_after(self._number)
        with self.lock:
            # What the looks have not reached yet is read again.
            judged = [one for one in entries if one["time"] <= self._looked_at]
            self._number = number - len(entries) + len(judged)
            for one in judged:
                what = f"{one['method']} {one['path']}"
                write = Write(one["time"], one["cluster"], process_of(one["user_agent"]), what)
                self.watches[one["instance"]].see_write(write)

    # Tokens.

    def revoked(self, uid: str) -> None:
        """A fault has made a cluster refuse all tokens that it has issued until now. They may stay until replaced."""
        with self.lock:
            self._revoked[uid] = datetime.now(UTC) + SKEW

    def excuse(self, uid: str, seconds: float) -> None:
        """A fault makes a cluster refuse tokens that nobody could know to be dead, until so many seconds from now."""
        with self.lock:
            self._excused[uid] = max(self._excused.get(uid, 0.0), time.monotonic() + seconds)

    def prove(self) -> dict[str, int | None]:
        """Use each published token once; the statuses by cluster, None where there was no answer."""
        with self.lock:
            used = {
                uid: (record, watch.view.tokens[uid])
                for watch in self.watches.values()
                for uid, record in watch.view.records.items()
                if uid in watch.view.tokens
                and uid in watch.existing
                and record["access"]["state"] in {"ready", "degraded"}
            }
        with ThreadPoolExecutor(8, thread_name_prefix="proof") as pool:
            outcomes = dict(zip(used, pool.map(lambda one: _status(*one), used.values()), strict=True))
        with self.lock:
            self.figures.proofs += len(used)
            self._judge_tokens(used, outcomes)
        return outcomes

    def _prove_all(self) -> None:
        self.prove()

    def _judge_tokens(
        self, used: Mapping[str, tuple[Mapping[str, Any], Token]], outcomes: Mapping[str, int | None]
    ) -> None:
        now = time.monotonic()
        refused: set[tuple[str, str]] = set()
        for uid, (record, token) in used.items():
            self.figures.unanswered += outcomes[uid] is None
            if outcomes[uid] != http.client.UNAUTHORIZED or self._excused.get(uid, 0.0) > now:
                continue
            if _lapsed(token):
                self.figures.lapsed += 1
                continue
            if uid in self._revoked and datetime.fromisoformat(token.document["issued_at"]) <= self._revoked[uid]:
                continue
            seen = (uid, token.document["sealed"])
            refused.add(seen)
            since = self._dead.setdefault(seen, now)
            if now - since > self.grace:
                self.note(f"a dead token of {record['name']} ({uid}) stays published for {self.grace:.0f} s")
        self._dead = {seen: since for seen, since in self._dead.items() if seen in refused}


def _lapsed(token: Token) -> bool:
    expires_at = token.document.get("expires_at")
    return expires_at is not None and datetime.fromisoformat(expires_at) <= datetime.now(UTC)


def _status(record: Mapping[str, Any], token: Token) -> int | None:
    """The status of a request with a published token, address and CA; None if the cluster gives no answer."""
    server = record["server"]
    address = urlsplit(server["url"])
    tls = ssl.create_default_context(cadata=b64decode(server["ca_data"]).decode())
    connection = http.client.HTTPSConnection(address.hostname or "", address.port, timeout=PROOF_TIMEOUT, context=tls)
    try:
        connection.request("GET", "/api/v1/pods?limit=1", headers={"Authorization": f"Bearer {token.token}"})
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()

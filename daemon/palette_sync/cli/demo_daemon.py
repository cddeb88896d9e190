"""The daemon of the demo's last chapter: `palette-sync run` as a separate process, with real signals."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

PATIENCE = 60.0  # seconds to wait for an event before the check fails
_MAIN = "from palette_sync.cli.main import main; main()"


class DaemonProcess:
    """A running daemon, and the events in its log so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._events: list[dict[str, Any]] = []
        self._more = asyncio.Condition()

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def ended(self) -> int:
        async with asyncio.timeout(PATIENCE):
            return await self._process.wait()

    async def event(self, name: str, *, after: int = 0, **fields: Any) -> dict[str, Any] | None:
        """Wait for an event with this name and these fields after line `after` of the log; None if it is late."""

        def find() -> dict[str, Any] | None:
            for event in self._events[after:]:
                if event.get("event") == name and all(event.get(key) == value for key, value in fields.items()):
                    return event
            return None

        try:
            async with asyncio.timeout(PATIENCE), self._more:
                await self._more.wait_for(lambda: find() is not None)
                return find()
        except TimeoutError:
            return None

    def index(self, event: dict[str, Any]) -> int:
        """Return the number of the event's line in the log."""
        return self._events.index(event)

    @property
    def lines(self) -> int:
        return len(self._events)

    async def read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            if line.startswith(b"{"):
                async with self._more:
                    self._events.append(json.loads(line))
                    self._more.notify_all()


@asynccontextmanager
async def run_daemon(config: Path, variables: Mapping[str, str]) -> AsyncIterator[DaemonProcess]:
    """Run `palette-sync run`. At the end of the block it is killed if it still runs."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _MAIN,
        "run",
        "--config",
        str(config),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={
            **os.environ,
            "PALETTE_SYNC_HTTP__LISTEN": "127.0.0.1:0",
            "PALETTE_SYNC_SERVICE__LOG_FORMAT": "json",
            **variables,
        },
        limit=1024 * 1024,
    )
    daemon = DaemonProcess(process)
    reading = asyncio.create_task(daemon.read(), name="daemon-log")
    try:
        yield daemon
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await reading

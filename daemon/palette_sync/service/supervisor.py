"""What the process supervisor is notified of: readiness, one line of status, signs of life, reloads, the end."""

from __future__ import annotations

import asyncio
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import structlog

from palette_sync import __version__
from palette_sync.assembly.store import utc_now
from palette_sync.events import Interrupted, unless, wait_any
from palette_sync.store.redis import StoreUnavailable
from palette_sync.telemetry.status import SERVED, status_line

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from typing import Any

    from palette_sync.service.configuration import ActiveConfiguration
    from palette_sync.service.runners import Runners
    from palette_sync.service.systemd import Notifier

log = structlog.get_logger(__name__)

START_EXTENSION = 30.0  # seconds that the supervisor is asked to wait longer while the daemon starts
REDIS_PAUSE = 2.0  # seconds between two attempts to reach Redis at start-up
INTERVAL = 5.0  # seconds at most between two notifications while something is waited for


class Supervisor:
    """Notifies the supervisor. `ready` is set once every runner leads or stands by."""

    def __init__(self, notifier: Notifier, runners: Runners, configuration: ActiveConfiguration) -> None:
        self.ready = False
        self._notifier = notifier
        self._runners = runners
        self._configuration = configuration
        self._last_line = ""

    async def wait_for_store(self, ping: Callable[[], Coroutine[Any, Any, None]], *, stop: asyncio.Event) -> bool:
        """Wait until Redis answers; return False if `stop` is set first. Raises StoreError if waiting cannot help."""
        logged = False
        extension = asyncio.create_task(self._extend_start(), name="extend-start")
        try:
            while not stop.is_set():
                try:
                    await unless(stop, ping(), name="ping")
                except Interrupted:
                    break
                except StoreUnavailable as error:
                    if not logged:
                        log.warning("waiting_for_store", reason=str(error))
                        logged = True
                    self._notifier.status(f"waiting for Redis: {error}")
                    await wait_any(stop, timeout=REDIS_PAUSE)
                else:
                    return True
            return False
        finally:
            extension.cancel()

    async def _extend_start(self) -> None:
        """Runs beside the attempts: if Redis hangs, one attempt lasts longer than the time that was asked for."""
        while True:
            self._notifier.extend_timeout(START_EXTENSION)
            await asyncio.sleep(INTERVAL)

    async def announce_ready(self) -> None:
        """Send READY once every runner leads or stands by; ask for more time until then."""
        runners = self._runners
        while not all(status.state in SERVED for status in runners.statuses().values()):
            runners.changed.clear()
            self._notifier.extend_timeout(START_EXTENSION)
            self._send_line()
            await wait_any(runners.changed, timeout=INTERVAL)
        self.ready = True
        self._notifier.ready(self._line())
        log.info("daemon_ready", instances=sorted(runners.statuses()), pid=os.getpid(), version=__version__)

    async def watch(self) -> None:
        """Feed the supervisor's watchdog while all runners live, and send the status line when it changes."""
        pause = min(self._notifier.watchdog_interval or INTERVAL, INTERVAL)
        while True:
            if not self._runners.ended():
                self._notifier.watchdog()
            if self.ready:
                self._send_line()
            await asyncio.sleep(pause)

    @contextmanager
    def reload_announced(self) -> Iterator[None]:
        """Send RELOADING before the block and READY after it, but nothing before the first READY."""
        announced = self.ready
        if announced:
            self._notifier.reloading()
        yield
        if announced:
            self._notifier.ready(self._line())

    def stopping(self) -> None:
        self._notifier.stopping()

    def _send_line(self) -> None:
        line = self._line()
        if line != self._last_line:
            self._last_line = line
            self._notifier.status(line)

    def _line(self) -> str:
        rejected = self._configuration.rejected
        prefix = f"the configuration was rejected: {rejected[0]}; " if rejected else ""
        return prefix + status_line(self._runners.statuses(), utc_now())

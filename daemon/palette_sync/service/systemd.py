"""Notifications to systemd, or to any supervisor that speaks sd_notify(3).

A notification is a datagram of `NAME=value` lines to the socket in `NOTIFY_SOCKET`. Sending never raises and never
blocks. Without a supervisor nothing is sent.
"""

from __future__ import annotations

import math
import os
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from palette_sync.core.text import one_line
from palette_sync.telemetry.logs import redact

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LONGEST_STATUS = 200
_MICROSECONDS = 1_000_000


@dataclass(frozen=True, slots=True)
class Notifier:
    """Sends notifications to `address`; sends nothing if that is None.

    `watchdog_interval`: seconds between two calls of `watchdog`, half of what the supervisor allows; None if it does
    not watch this process. Every method returns whether the kernel accepted the datagram.
    """

    address: str | None = None
    watchdog_interval: float | None = None
    monotonic_ns: Callable[[], int] = time.monotonic_ns

    @classmethod
    def from_environment(cls, environ: Mapping[str, str], *, pid: int | None = None) -> Notifier:
        """Read `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`. `pid` is that of this process unless given.

        Supported addresses are a path and an abstract name (`@...`). Any other address counts as no supervisor.
        """
        address = environ.get("NOTIFY_SOCKET", "")
        if not address.startswith(("/", "@")) or len(address) == 1:
            return cls()
        return cls(address, _watchdog_interval(environ, os.getpid() if pid is None else pid))

    def ready(self, status: str) -> bool:
        """Start-up, or a reload, is finished."""
        return self._send("READY=1", _status(status))

    def reloading(self) -> bool:
        """A reload begins; `ready` ends it. `Type=notify-reload` needs the timestamp."""
        return self._send("RELOADING=1", f"MONOTONIC_USEC={self.monotonic_ns() // 1000}")

    def status(self, text: str) -> bool:
        """One line for people, shown by `systemctl status`."""
        return self._send(_status(text))

    def watchdog(self) -> bool:
        return self._send("WATCHDOG=1")

    def stopping(self) -> bool:
        return self._send("STOPPING=1")

    def extend_timeout(self, seconds: float) -> bool:
        """Ask for `seconds` more, from now, before a start, reload or stop counts as failed."""
        if not math.isfinite(seconds) or seconds <= 0:
            return False
        return self._send(f"EXTEND_TIMEOUT_USEC={math.ceil(seconds * _MICROSECONDS)}")

    def _send(self, *lines: str) -> bool:
        if self.address is None:
            return False
        address = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        message = "\n".join(lines).encode(errors="replace")
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
                one.setblocking(False)
                one.sendto(message, address)
        except (OSError, ValueError):  # ValueError: an address with a NUL byte
            return False
        return True


def _status(text: str) -> str:
    """Text from elsewhere as one line: a line break would begin another assignment, such as a second READY."""
    masked = str(redact(None, "status", {"text": text})["text"])
    return "STATUS=" + one_line(masked, LONGEST_STATUS)


def _watchdog_interval(environ: Mapping[str, str], pid: int) -> float | None:
    """Half of `WATCHDOG_USEC`, as sd_watchdog_enabled(3) advises; a `WATCHDOG_PID` of another process turns it off."""
    allowed, watched = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", str(pid))
    if not (allowed.isascii() and allowed.isdigit()) or watched != str(pid) or int(allowed) == 0:
        return None
    return int(allowed) / _MICROSECONDS / 2

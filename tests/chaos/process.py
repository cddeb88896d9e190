"""Prepares a daemon of the lab, inside its process and before its main function.

Its requests to clusters carry its process id, so that the log of the API servers shows which process wrote. Its clock
can be shifted while it runs: the file `clock` holds the seconds by which its wall clock is ahead.
"""

from __future__ import annotations

import os
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import tzinfo

TESTS = Path(__file__).parent.parent
_AGENT = "palette-sync, process "
_PACKAGES = ("palette_sync.", "apscheduler.")


def code(clock: Path) -> str:
    """The Python that a daemon runs before its main function."""
    return f"sys.path.insert(0, {str(TESTS)!r})\nfrom chaos.process import prepare\nprepare({str(clock)!r})"


def prepare(clock: str) -> None:
    """Name this process in its requests to clusters, and let `clock` shift its wall clock."""

    import palette_sync.cli.run
    import palette_sync.kube.transport
    import palette_sync.service.daemon

    palette_sync.kube.transport.USER_AGENT = f"{_AGENT}{os.getpid()}"
    shift, wall = _Shift(Path(clock)).seconds, time.time
    kind = shifted(shift)
    for name, module in list(sys.modules.items()):
        if name.startswith(_PACKAGES) and vars(module).get("datetime") is datetime:
            module.datetime = kind  # type: ignore[attr-defined]
    time.time = lambda: wall() + shift()


def process_of(user_agent: str) -> int:
    """The id of the process that sent a request; 0 for any other client."""
    return int(user_agent.removeprefix(_AGENT)) if user_agent.startswith(_AGENT) else 0


class _Shift:
    """Reads the file again when it was changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._changed_at = 0
        self._seconds = 0.0

    def seconds(self) -> float:
        try:
            changed_at = self._path.stat().st_mtime_ns
            if changed_at != self._changed_at:
                self._seconds = float(self._path.read_text() or 0)
                self._changed_at = changed_at
        except (OSError, ValueError):
            pass  # it is absent, or is being written
        return self._seconds


class _LikeDatetime(type):
    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, datetime)


def shifted(seconds: Callable[[], float]) -> type[datetime]:
    """A class that behaves as `datetime`, and whose `now` is ahead. What it makes are plain datetimes."""

    class Shifted(datetime, metaclass=_LikeDatetime):
        def __new__(cls, *arguments: Any, **named: Any) -> Any:
            return datetime(*arguments, **named)  # noqa: DTZ001 - passed on

        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Any:
            return datetime.now(tz) + timedelta(seconds=seconds())

    return Shifted

"""A standard error that never blocks: lines go into a bounded queue, and a thread writes them.

A pipe that nobody reads would otherwise stop the event loop in the middle of a log line. What does not fit is dropped
and counted; once the reader is back, `log_lines_dropped` says how many lines are missing.
"""

from __future__ import annotations

import io
import os
import sys
import threading
import time
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

log = structlog.get_logger(__name__)

BACKLOG = 2 * 1024 * 1024  # bytes that wait at most
LAST_WORDS = 2.0  # seconds that the end of the process waits for what is not written yet


class LogWriter(io.TextIOBase):
    """A text stream over a file descriptor. `write` returns at once, from every thread.

    What the descriptor answers with an error is raised by the next `write`.
    """

    def __init__(self, descriptor: int, *, backlog: int = BACKLOG) -> None:
        self._descriptor = descriptor
        self._backlog = backlog
        self._waiting: deque[bytes] = deque()
        self._size = 0  # bytes that are not written yet, including those that are being written
        self._unreported = 0
        self._dropped = 0
        self._on_drop: Callable[[int], None] = lambda _count: None
        self._error: OSError | None = None
        self._changed = threading.Condition()
        threading.Thread(target=self._run, name="log-writer", daemon=True).start()

    @property
    def encoding(self) -> str:  # type: ignore[override]  # an attribute of text streams
        return "utf-8"

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def fileno(self) -> int:
        return self._descriptor

    def write(self, text: str) -> int:
        """Queue `text`, which should be a whole line, or drop it. Raises OSError for an earlier failure."""
        data = text.encode(errors="backslashreplace")
        with self._changed:
            if self._error is not None:
                raise self._error
            if self._size + len(data) > self._backlog:
                self._dropped += 1
                self._unreported += 1
                self._on_drop(1)
            elif data:
                self._waiting.append(data)
                self._size += len(data)
                self._changed.notify_all()
        return len(text)

    def count_drops(self, on_drop: Callable[[int], None]) -> None:
        """Call `on_drop` with the number of lines that were dropped so far, and then with 1 for each."""
        with self._changed:
            self._on_drop = on_drop
            on_drop(self._dropped)

    def drain(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds until everything is written; return whether it is."""
        ends_at = time.monotonic() + timeout
        with self._changed:
            return self._changed.wait_for(lambda: not self._size or self._error, ends_at - time.monotonic()) is True

    def _run(self) -> None:
        while self._error is None:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                data = self._waiting.popleft()
            try:
                self._write_all(data)
            except OSError as error:
                with self._changed:
                    self._error = error
                    self._changed.notify_all()
                return
            with self._changed:
                self._size -= len(data)
                missing = 0 if self._waiting else self._unreported
                self._unreported -= missing
                self._changed.notify_all()
            if missing:
                log.warning("log_lines_dropped", count=missing, reason="nobody read the log")

    def _write_all(self, data: bytes) -> None:
        # Not through a file object: its lock would be held while it blocks, and the end of the process needs it.
        while data:
            data = data[os.write(self._descriptor, data) :]


@contextmanager
def standard_error_in_background() -> Iterator[LogWriter]:
    """Replace `sys.stderr` by a LogWriter while the block runs.

    At the end, what is left is waited for briefly. If it cannot be written, `sys.stderr` stays replaced, because the
    interpreter's last words would block too.
    """
    before = sys.stderr
    before.flush()
    writer = LogWriter(before.fileno())
    sys.stderr = writer
    try:
        yield writer
    finally:
        if writer.drain(LAST_WORDS):
            sys.stderr = before

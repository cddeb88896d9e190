"""Signals for the daemon that come while it still starts are kept, not deadly: their default action ends a process.

Imported first, and imports nothing heavy. SIGTERM and SIGINT stay as they are. The mask is lifted once the handlers
stand (`service.signals`); a child process would inherit it, and lifts it for itself (`store.embedded`).
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

KEPT = frozenset({signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2})


def keep_early_signals(argv: Sequence[str]) -> None:
    """Hold back what only `run` understands; to every other command a SIGHUP means what it always means."""
    command = next((word for word in argv[1:] if not word.startswith("-")), None)
    if command == "run":
        signal.pthread_sigmask(signal.SIG_BLOCK, KEPT)

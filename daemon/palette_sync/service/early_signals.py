"""Keeps signals that reach the daemon while it still starts: their default action would end the process.

This module is imported before everything else, so it imports nothing heavy. SIGTERM and SIGINT stay as they are. The
signals are unblocked once their handlers are installed (`service.signals`). A child process inherits the mask and must
lift it itself (`store.embedded`).
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

KEPT = frozenset({signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2})


def keep_early_signals(argv: Sequence[str]) -> None:
    """Block the signals that only `run` handles. For every other command they keep their usual meaning."""
    command = next((word for word in argv[1:] if not word.startswith("-")), None)
    if command == "run":
        signal.pthread_sigmask(signal.SIG_BLOCK, KEPT)

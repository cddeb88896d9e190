"""Keeps signals that reach the daemon while it still starts: their default action would end the process.

This module is imported before everything else, so it imports nothing heavy. SIGTERM and SIGINT end a process that still
starts, except process 1 of a container: for it the kernel drops them while they have their default action, so they are
kept too. Only the start of the interpreter itself comes before. The signals are unblocked once their handlers are
installed (`service.signals`). A child process inherits the mask and must lift it itself (`store.embedded`).
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

KEPT = frozenset({signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2})
KEPT_BY_INIT = frozenset({signal.SIGTERM, signal.SIGINT})


def keep_early_signals(argv: Sequence[str]) -> None:
    """Block the signals that only `run` handles. For every other command they keep their usual meaning."""
    command = next((word for word in argv[1:] if not word.startswith("-")), None)
    if command == "run":
        signal.pthread_sigmask(signal.SIG_BLOCK, KEPT | KEPT_BY_INIT if os.getpid() == 1 else KEPT)

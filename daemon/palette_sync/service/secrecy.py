"""Keeps the process's memory, which holds tokens and API keys, from core files and from other processes of its user."""

from __future__ import annotations

import ctypes
import resource
import sys

_PR_SET_DUMPABLE = 4  # linux/prctl.h


def keep_memory_private() -> None:
    """Allow no core file and, on Linux, no debugger (prctl(2), PR_SET_DUMPABLE).

    A supervisor may have set the same limits; then this changes nothing. A child that runs another program gets rid of
    the second one.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)

"""Keep the memory of this process, which holds secrets, out of core files and away from other processes of its user."""

from __future__ import annotations

import ctypes
import resource
import sys

_PR_SET_DUMPABLE = 4  # prctl(2)


def protect_memory() -> None:
    """Forbid core files. On Linux also forbid other processes of the same user to read or trace this one.

    A debugger then needs root. Child processes begin without the second protection, as execve(2) resets it.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)

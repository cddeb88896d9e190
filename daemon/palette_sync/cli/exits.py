"""Exit codes of every command, as the README documents them."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """`BUSY` is sysexits' EX_TEMPFAIL, `CONFIG` its EX_CONFIG; systemd's RestartPreventExitStatus knows 78."""

    OK = 0
    FAILED = 1
    BUSY = 75
    CONFIG = 78

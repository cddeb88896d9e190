"""Exit codes of every command, as the README documents them."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """`BUSY` is EX_TEMPFAIL and `CONFIG` EX_CONFIG of sysexits.h. The systemd unit does not restart after 78."""

    OK = 0
    FAILED = 1
    BUSY = 75
    CONFIG = 78

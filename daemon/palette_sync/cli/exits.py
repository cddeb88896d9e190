"""Exit codes of every command, as the README documents them."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """`USAGE` is what typer ends with for wrong arguments. `BUSY` is EX_TEMPFAIL and `CONFIG` EX_CONFIG of sysexits.h.
    The systemd unit does not restart after 78. docs/operations.md says what each code means for each command.
    """

    OK = 0
    FAILED = 1
    USAGE = 2
    CHANGES = 2  # only of `plan --detailed-exitcode`, where wrong arguments end with 1
    BUSY = 75
    CONFIG = 78

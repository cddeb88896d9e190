"""How much is read from Redis at most, so that nobody who can write there fills this process's memory."""

from __future__ import annotations

import re
from dataclasses import dataclass

INSTANCE = re.compile(r"[a-z][a-z0-9_]{0,63}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Bounds:
    """`reply`: bytes of one answer of the server. `fields`: of one hash. The others are bytes of one value.

    What is beyond a bound is refused as a whole, and counts as absent.
    """

    instances: int = 1_000
    fields: int = 20_000
    reply: int = 128 * 1024 * 1024
    record: int = 64 * 1024
    document: int = 16 * 1024
    status: int = 4 * 1024 * 1024


BOUNDS = Bounds()

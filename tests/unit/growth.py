"""Measures how the work on an input grows with its length, which is the same on a slow and on a fast machine."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def growth(work: Callable[[int], object], size: int, *, times: int) -> float:
    """Return how many times more CPU time `work` takes for `times * size` than for `size`; the best of three runs each.

    The result is about `times` where the work is linear, and about `times` squared where it is quadratic. Tests that
    measure carry the marker `explore`: they need seconds, and quiet ones.
    """

    def spent(length: int) -> float:
        begun = time.process_time()
        work(length)
        return time.process_time() - begun

    return min(spent(times * size) for _ in range(3)) / min(spent(size) for _ in range(3))

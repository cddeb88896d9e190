"""How the work on a text grows with the text, which holds on any machine."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def growth(work: Callable[[int], object], size: int, *, times: int) -> float:
    """How many times the processor's time a text takes that is `times` as long, by the best of three of each.

    That is `times` itself where the work is linear, and its square where every beginning is searched to the end.
    """

    def spent(length: int) -> float:
        begun = time.process_time()
        work(length)
        return time.process_time() - begun

    return min(spent(times * size) for _ in range(3)) / min(spent(size) for _ in range(3))

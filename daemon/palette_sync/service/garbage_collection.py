"""Python's cyclic collector in a process that holds thousands of records for weeks.

As it is set by default it walks all of them several times in each pass, and stands still for a quarter of a second each
time: half of what a quiet pass over ten thousand clusters took. Nearly everything here is freed by reference counts. So
young objects are looked at less often, and what a pass left behind is not looked at again: it is set aside
(`gc.freeze`), where it is still freed once nobody refers to it. What is set aside as part of a cycle would stay for
good; so that is done only while nobody works, and everything is looked through once a day.
"""

from __future__ import annotations

import gc
import time

# Objects, then collections of the generation before. A young collection takes about a millisecond.
THRESHOLDS = (10_000, 10, 100)
LOOK_THROUGH = 24 * 3600.0  # seconds


def look_seldom() -> None:
    """For every command, before it loads its modules: that alone makes a hundred thousand objects."""
    gc.set_threshold(*THRESHOLDS)


class Collector:
    """One for the daemon. `begin` when all modules are loaded, `rest` whenever nothing is at work."""

    def __init__(self) -> None:
        self._looked_through = time.monotonic()

    def begin(self) -> None:
        gc.collect()
        gc.freeze()

    def rest(self) -> None:
        if time.monotonic() - self._looked_through > LOOK_THROUGH:
            self._looked_through = time.monotonic()
            gc.unfreeze()
        gc.collect()
        gc.freeze()

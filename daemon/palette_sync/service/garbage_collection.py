"""Python's cyclic garbage collector, tuned for a process that holds thousands of records for weeks.

With its default settings the collector walks all records several times in each pass and stops the process for a quarter
of a second each time: half of the duration of a quiet pass over ten thousand clusters. Reference counts free nearly
everything here, so the collector may run less often. What a pass leaves behind is moved to the permanent generation
(`gc.freeze`), which the collector does not walk; reference counts still free it there. Only cycles in that generation
would stay for good. So objects are frozen only while no pass runs, and all of them are collected once a day.
"""

from __future__ import annotations

import gc
import time

# Objects, then collections of the generation before. A young collection takes about a millisecond.
THRESHOLDS = (10_000, 10, 100)
FULL_COLLECTION = 24 * 3600.0  # seconds between two collections of everything, frozen objects included


def collect_less_often() -> None:
    """For every command, before it imports its modules: the import alone makes a hundred thousand objects."""
    gc.set_threshold(*THRESHOLDS)


class IdleCollector:
    """Collects garbage while the daemon is idle. Call `start` once all modules are imported."""

    def __init__(self) -> None:
        self._last_full = time.monotonic()

    def start(self) -> None:
        gc.collect()
        gc.freeze()

    def collect(self) -> None:
        """Call it whenever no pass runs."""
        if time.monotonic() - self._last_full > FULL_COLLECTION:
            self._last_full = time.monotonic()
            gc.unfreeze()
        gc.collect()
        gc.freeze()

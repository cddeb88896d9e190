"""Run palette-sync in this process, and measure how late its event loop comes: `python -m bench.probe OUT ARGUMENTS`.

A timer that wakes every 5 ms notes how much later than asked it was called. What another process on the same core took
shows as lag too, so beside it stands how much of it this thread itself was computing.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

PERIOD = 0.005


class LagProbe:
    """Samples of (when it was due, lag, seconds that the thread ran meanwhile), in the loop that it was started in."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.samples: list[tuple[float, float, float]] = []
        self._due = loop.time() + PERIOD
        self._ran = time.thread_time()
        loop.call_at(self._due, self._wake)

    def _wake(self) -> None:
        now, ran = self._loop.time(), time.thread_time()
        lag = now - self._due
        self.samples.append((self._due, lag, min(lag, ran - self._ran)))
        self._ran = ran
        self._due = now + PERIOD
        self._loop.call_at(self._due, self._wake)


def summary(samples: list[list[float]], since: float, until: float) -> dict[str, float]:
    """Percentiles in ms of what fell due between two moments of the monotonic clock.

    Weighted by time: a lag of one second keeps two hundred timers waiting, not one.
    """
    found: dict[str, float] = {}
    meant = [sample for sample in samples if since <= sample[0] <= until]
    for column, name in enumerate(("lag", "own"), start=1):
        lags = sorted(sample[column] for sample in meant)
        found[f"{name}_max"] = lags[-1] * 1000 if lags else 0.0
        for percent in (50, 99):
            found[f"{name}_p{percent}"] = percentile(lags, percent / 100) * 1000
    return found


def percentile(lags: list[float], share: float) -> float:
    """The lag that a moment chosen at random meets in `share` of all cases; `lags` are sorted."""
    left = share * sum(PERIOD + lag for lag in lags)
    for lag in lags:
        left -= PERIOD + lag
        if left <= 0:
            return lag
    return lags[-1] if lags else 0.0


def main() -> None:
    out, *arguments = sys.argv[1:]
    probes: list[LagProbe] = []

    class Policy(asyncio.DefaultEventLoopPolicy):
        def new_event_loop(self) -> asyncio.AbstractEventLoop:
            loop = super().new_event_loop()
            probes.append(LagProbe(loop))
            return loop

    asyncio.set_event_loop_policy(Policy())
    sys.argv = ["palette-sync", *arguments]
    from palette_sync.cli.main import main as run

    try:
        run()
    finally:
        if probes:
            Path(out).write_text(json.dumps(probes[-1].samples))


if __name__ == "__main__":
    main()

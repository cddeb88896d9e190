"""Run palette-sync in this process, and measure the lag of its event loop: `python -m bench.probe OUT ARGUMENTS`.

A timer that is due every 5 ms records how late it is called. Other processes on the same core cause lag too, so each
sample also records how long this thread itself was running.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

PERIOD = 0.005


class LagProbe:
    """Takes samples in the loop that it is given: (due time, lag, seconds that this thread ran meanwhile)."""

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
    """Return percentiles in ms of the samples that were due between two times of the monotonic clock.

    They are weighted by time: a lag of one second delays two hundred timers, not one.
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
    """Return the lag that is not exceeded at `share` of all points in time; `lags` are sorted."""
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

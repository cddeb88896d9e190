"""The page over ten thousand clusters: how much longer it takes than over one page of them, and what it holds up.

Both are served by this process, over loopback. Each request finds the analysis of the last one too old, so that all of
the work is in it.
"""

from __future__ import annotations

import asyncio
import gc
import time
from datetime import timedelta
from statistics import median
from typing import TYPE_CHECKING

import aiohttp

from bench.probe import LagProbe, summary
from bench.rows import Row
from builders import MINUTE, NOW, head, records, sealed_credential
from page_source import Source, served
from palette_sync.core.model import ClusterMemory, InstanceState
from palette_sync.page.query import PAGE_SIZE

if TYPE_CHECKING:
    from bench.lab import Lab

MANY = 10_000
TIMES = 15
REQUESTS = {"first page": "/", "filter": "/?name=-0042", "sort": "/?sort=expiry&reverse=1"}


def page(lab: Lab) -> list[Row]:
    lab.say(f"the page over {MANY:,} clusters")
    few, _ = asyncio.run(_measure(PAGE_SIZE))
    many, lag = asyncio.run(_measure(MANY))
    lab.facts["page"] = {"few_ms": _ms(few), "many_ms": _ms(many), "lag": lag}
    base = few["first page"]
    beside = f"first page over {PAGE_SIZE} clusters {base * 1000:.0f} ms; median of {TIMES}"
    rows = [
        Row(
            f"page over {MANY:,} clusters: {name}",
            many[name] / base,
            "x",
            budget,
            note=f"CPU: {many[name] * 1000:.0f} ms, {beside}",
        )
        for name, budget in (("first page", 10.0), ("filter", 10.0), ("sort", 10.0))
    ]
    note = (
        f"own work of the loop, the longest of {TIMES * len(REQUESTS)} requests; the rest is done in a thread. With "
        f"all that ran beside it: {lag['lag_max']:.0f} ms"
    )
    what = f"page over {MANY:,} clusters: what else the daemon does waits"
    return [*rows, Row(what, lag["own_max"], "ms", 20.0, note=note)]


async def _measure(clusters: int) -> tuple[dict[str, float], dict[str, float]]:
    """Return the CPU seconds of each request, and how late other work of the event loop was meanwhile."""
    some = records(clusters)
    state = InstanceState(
        head=head(),
        records=some,
        credentials={uid: sealed_credential() for uid in some},
        memory={uid: ClusterMemory(verified_at=NOW - MINUTE, desired="as-configured") for uid in some},
    )
    source, took = Source(state), {}
    async with served(source) as url, aiohttp.ClientSession() as session:
        await _get(session, url + "/")  # templates are compiled once
        gc.collect()
        gc.freeze()  # as the daemon does whenever it is idle
        probe, since = LagProbe(asyncio.get_running_loop()), time.monotonic()
        for name, path in REQUESTS.items():
            found = []
            for _ in range(TIMES):
                source.time += timedelta(minutes=1)
                begun = time.process_time()
                await _get(session, url + path)
                found.append(time.process_time() - begun)
            took[name] = median(found)
        lag = summary([list(sample) for sample in probe.samples], since, time.monotonic())
    return took, lag


async def _get(session: aiohttp.ClientSession, url: str) -> None:
    async with session.get(url) as answer:
        answer.raise_for_status()
        await answer.read()


def _ms(took: dict[str, float]) -> dict[str, float]:
    return {name: round(seconds * 1000, 1) for name, seconds in took.items()}

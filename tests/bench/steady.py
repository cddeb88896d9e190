"""The steady state: quiet passes, one change among thousands, restarts, memory.

The published snapshot is generated (`published`), because a cold start of ten thousand clusters takes minutes and says
nothing about these. Palette is simulated with every cluster. Their API servers listen, and must receive no request.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from bench.lab import PROJECTS, UNLIMITED
from bench.processes import BenchError, peak_rss_of
from bench.rows import Row, pages
from palette_sync.store.scripts import Script

if TYPE_CHECKING:
    from bench.lab import Lab, World
    from bench.processes import Daemon

WARM = 2  # passes before the measurement begins
CHANGES = 5
NEVER = "1000d"


@dataclass
class Steady:
    """What a daemon did that started with a published snapshot."""

    clusters: int
    ready: float
    kube: int
    palette: float
    cpu: float
    walls: list[float]
    rss: list[float]
    peak: float
    publish_ms: list[float]
    bytes_changed: float
    bytes_quiet: float
    record: int
    bound: int


def observe(lab: Lab, clusters: int, *, passes: int, every: str) -> Steady:
    """Publish, start a daemon, wait for quiet passes, then change one cluster per pass. Raises BenchError."""
    with lab.valkey() as url, lab.world(clusters, redis_url=url) as world:
        lab.say(f"publishing {clusters:,} clusters")
        world.process.ask(do="publish")
        world.requests()
        settings = {"DEFAULTS__REFRESH_INTERVAL": every, "DEFAULTS__VERIFY_INTERVAL": NEVER, **UNLIMITED}
        with world.daemon(**settings) as process:
            process.wait_for("daemon_ready", within=60)
            ready = time.monotonic() - process.started
            lab.say(f"quiet passes over {clusters:,} clusters")
            process.wait_for("pass_finished", count=WARM, within=120)
            first, cpu = world.requests(), process.cpu
            rss = []
            for number in range(passes):
                finished = process.wait_for("pass_finished", count=WARM + 1 + number, within=120)
                if finished["due"] or finished["changed"]:
                    raise BenchError(f"a pass that should be quiet was not: {finished}")
                rss.append(process.rss)
            cpu, asked = process.cpu - cpu, world.requests()
            lab.say(f"one cluster changed among {clusters:,}")
            changed, quiet, took = _changes(world, process)
            peak = peak_rss_of(process.pid)
            kube = first["kube"] + asked["kube"] + world.requests()["kube"]
            walls = [event["duration_s"] for event in process.events("pass_finished")[WARM : WARM + passes]]
            process.stop()
        record = _record_size(world)
    return Steady(
        clusters=clusters,
        ready=ready,
        kube=kube,
        palette=asked["palette"] / passes,
        cpu=cpu / passes,
        walls=walls,
        rss=rss,
        peak=peak,
        publish_ms=took,
        bytes_changed=changed,
        bytes_quiet=quiet,
        record=record,
        bound=_listing_bound(clusters),
    )


def _listing_bound(clusters: int) -> int:
    """Pages of each project, pages of the tenant scope, and three more. The simulator deals clusters out in turn."""
    tenant_scoped = 1
    in_projects = clusters - tenant_scoped
    sizes = [in_projects // PROJECTS + (number < in_projects % PROJECTS) for number in range(PROJECTS)]
    return sum(pages(size) for size in sizes) + pages(clusters) + 3


def _changes(world: World, process: Daemon) -> tuple[float, float, list[float]]:
    """Return bytes to Redis for one change, bytes for a pass without one, and the server's ms for each publication."""
    uids = world.process.ask(do="clusters")
    publish = Script.load("publish.lua").sha
    world.store.config_set("slowlog-log-slower-than", 0)
    world.store.config_set("slowlog-max-len", 100_000)
    at, before = len(process.events("pass_finished")), _received(world)
    process.wait_for("pass_finished", count=at + CHANGES, within=120)
    passed = len(process.events("pass_finished")) - at
    quiet = (_received(world) - before) / passed
    changed: list[float] = []
    took: list[float] = []  # ms
    for number in range(CHANGES):
        world.store.slowlog_reset()
        at, before = len(process.events("pass_finished")), _received(world)
        world.process.ask(do="tags", uid=uids[number * 7], tags=[f"bench:{number}"])
        # A pass that has already listed the clusters does not see the change; the next one does.
        while not sum(event["changed"] for event in process.events("pass_finished")[at:]):
            process.wait_for("pass_finished", count=len(process.events("pass_finished")) + 1, within=120)
        passed = len(process.events("pass_finished")) - at
        changed.append(_received(world) - before - passed * quiet)
        took += [entry["duration"] / 1000 for entry in world.store.slowlog_get(100_000) if _is_version(entry, publish)]
    if len(took) != CHANGES:
        raise BenchError(f"{CHANGES} changes made {len(took)} versions")
    return median(changed), quiet, took


def _received(world: World) -> float:
    info: dict[str, Any] = world.store.info("stats")
    return float(info["total_net_input_bytes"])


def _is_version(entry: dict[str, Any], sha: str) -> bool:
    words = bytes(entry["command"]).split()
    return words[:1] == [b"EVALSHA"] and words[1] == sha.encode() and b"version" in words[:24]


def _record_size(world: World) -> int:
    values = world.store.hvals("{palette-sync:alpha}:clusters")
    return int(median(len(value) for value in values))


def quiet(lab: Lab) -> list[Row]:
    """A hundred passes over a thousand clusters on which nothing is due, which would also show a memory leak."""
    found = observe(lab, 1000, passes=100, every="250ms")
    lab.facts["quiet_1000"] = _facts(found)
    return [
        Row("quiet pass of 1,000 clusters: Kubernetes requests", found.kube, "", 0.0),
        Row(
            "quiet pass of 1,000 clusters: Palette requests",
            found.palette,
            "",
            found.bound,
            note=f"the budget is the pages of {PROJECTS} projects, those of the tenant scope, and 3",
        ),
        Row(
            "quiet pass of 1,000 clusters: CPU of the daemon",
            found.cpu * 1000,
            "ms",
            150.0,
            note=f"mean of {len(found.rss)} passes, with everything that ran between them",
        ),
        Row(
            "memory over 100 passes of 1,000 clusters: growth",
            _growth(found.rss),
            "MB",
            3.0,
            note=f"{found.rss[0]:.1f} MB, finally {found.rss[-1]:.1f} MB: mean of the last ten passes minus that of "
            "passes 10 to 20",
        ),
    ]


def ten_thousand(lab: Lab) -> list[Row]:
    passes = 100 if lab.full else 15
    found = observe(lab, 10_000, passes=passes, every="2s")
    lab.facts["quiet_10000"] = _facts(found)
    rows = [
        Row("restart with 10,000 clusters published: until READY", found.ready, "s", 3.0, note="from exec"),
        Row("restart with 10,000 clusters published: requests to clusters", found.kube, "", 0.0),
        Row(
            "one cluster changed among 10,000: bytes to Redis for it",
            found.bytes_changed,
            "B",
            4.0 * found.record,
            note=f"the record has {found.record:,} B, its change and history entries go with it; budget: four times "
            f"the record. A pass without a change sends {found.bytes_quiet:,.0f} B",
        ),
        Row(
            "one cluster changed among 10,000: publish at the server",
            max(found.publish_ms),
            "ms",
            5.0,
            note=f"longest of {len(found.publish_ms)} by the slow log; median {median(found.publish_ms):.2f} ms",
        ),
        Row(
            "memory of 10,000 clusters, steady: RSS",
            found.rss[-1],
            "MB",
            300.0,
            note=f"after {len(found.rss)} passes; the peak was {found.peak:.0f} MB",
        ),
    ]
    if lab.full:
        rows.append(Row("memory over 100 passes of 10,000 clusters: growth", _growth(found.rss), "MB", 10.0))
    return rows


def by_size(lab: Lab) -> list[Row]:
    """Quiet passes at sizes in between, for the figure only."""
    for clusters in (2000, 5000):
        lab.facts[f"quiet_{clusters}"] = _facts(observe(lab, clusters, passes=8, every="1s"))
    return []


def _growth(rss: list[float]) -> float:
    """The last tenth of the passes against the second; memory of the start is not growth."""
    ten = max(1, len(rss) // 10)
    return sum(rss[-ten:]) / ten - sum(rss[ten : 2 * ten]) / ten


def _facts(found: Steady) -> dict[str, float]:
    return {
        "clusters": found.clusters,
        "cpu_ms": found.cpu * 1000,
        "wall_s": median(found.walls),
        "palette_requests": found.palette,
        "rss_mb": found.rss[-1],
        "peak_rss_mb": found.peak,
        "ready_s": found.ready,
        "bytes_quiet": found.bytes_quiet,
        "bytes_changed": found.bytes_changed,
    }

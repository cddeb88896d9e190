"""Cold passes: what giving access to a cluster costs, and how close a pass comes to the limit of the network."""

from __future__ import annotations

import json
import subprocess
import time
from typing import TYPE_CHECKING

from bench.lab import UNLIMITED, cold_pass
from bench.processes import COMMAND, BenchError, environment, worker
from bench.rows import Row, limits_floor, serial_floor

if TYPE_CHECKING:
    from bench.lab import ColdPass, Lab, World

LATENCY = 0.05
CONCURRENCY = 32
TRIES = 3
PLUGIN_SECONDS = 136  # what the in-process plugin needs for 50 clusters
PER_SECOND, BURST = 10, 50  # Palette's documented limit for kubeconfigs, and for its dashboard


def cost(lab: Lab) -> list[Row]:
    """CPU time of the daemon per cluster against that of a bare client. They run in turns; the best of each counts."""
    clusters = 600 if lab.full else 300
    ours: list[ColdPass] = []
    bare: list[dict[str, float]] = []
    with lab.valkey() as url:
        for turn in range(TRIES):
            lab.say(f"cold pass of {clusters} clusters beside a bare client, {turn + 1} of {TRIES}")
            with lab.world(clusters, redis_url=url) as world:
                ours.append(cold_pass(world, verify=True, **UNLIMITED))
            with (
                lab.world(clusters, redis_url=url) as world,
                worker("bare_client", directory=str(world.directory), concurrency=CONCURRENCY) as client,
            ):
                bare.append(client.hear())
    best, yardstick = min(ours, key=lambda one: one.cpu), min(bare, key=lambda one: one["cpu_s"])
    if best.kube + clusters != yardstick["requests"]:
        raise BenchError(f"the bare client makes {yardstick['requests']} requests, the daemon {best.kube + clusters}")
    bare_ms = yardstick["cpu_s"] / clusters * 1000
    lab.facts["cold"] = {
        "cpu_ms_per_cluster": best.cpu_ms,
        "bare_cpu_ms_per_cluster": bare_ms,
        "simulator_cpu_ms_per_cluster": min(one.world_cpu for one in ours) / clusters * 1000,
        "kube_requests_per_cluster": best.kube / clusters,
        "verify_cpu_ms_per_cluster": min(one.verify_cpu for one in ours) / clusters * 1000,
        "verify_kube_requests_per_cluster": best.verify_kube / clusters,
    }
    return [
        Row(
            "cold pass: CPU of the daemon per cluster, against a bare aiohttp client",
            best.cpu_ms / bare_ms,
            "x",
            1.6,
            floor=1.0,
            note=f"{best.cpu_ms:.2f} ms against {bare_ms:.2f} ms for the same {best.kube // clusters} requests and the "
            f"kubeconfig; listing, planning, sealing and publishing included; best of {TRIES}",
        )
    ]


def fifty(lab: Lab) -> list[Row]:
    """`palette-sync once` as a user experiences it, from the command to the next prompt."""
    clusters = 50
    walls: list[tuple[float, float]] = []
    with lab.valkey() as url:
        for turn in range(TRIES):
            lab.say(f"cold pass of {clusters} clusters at 50 ms, {turn + 1} of {TRIES}")
            with lab.world(clusters, redis_url=url, latency=LATENCY) as world:
                walls.append(_once(world))
    wall, passed = min(walls)
    return [
        Row(
            f"cold pass of {clusters} clusters at 50 ms per request: wall",
            wall,
            "s",
            3.0,
            floor=serial_floor(clusters * 13, latency=LATENCY, concurrency=CONCURRENCY),
            note=f"the whole command; its pass takes {passed:.2f} s (in-process plugin: {PLUGIN_SECONDS} s); "
            f"Palette's documented limits kept; best of {TRIES}",
        )
    ]


def _once(world: World) -> tuple[float, float]:
    """Return the seconds of the process, and of its pass."""
    world.forget_published()
    started = time.monotonic()
    done = subprocess.run(
        [COMMAND, "once", "--json", "--config", world.config],
        capture_output=True,
        env=environment(),
        check=False,
    )
    wall = time.monotonic() - started
    if done.returncode:
        raise BenchError(f"once ended with {done.returncode}: {done.stderr.decode()[-500:]}")
    return wall, json.loads(done.stdout)["passes"][0]["duration_s"]


def thousand(lab: Lab) -> list[Row]:
    """A thousand clusters at 50 ms without Palette's limits: wall time against the floor, and event-loop lag."""
    clusters = 1000
    tries: list[ColdPass] = []
    with lab.valkey() as url:
        for turn in range(TRIES):
            lab.say(f"cold pass of {clusters:,} clusters at 50 ms, limits lifted, {turn + 1} of at most {TRIES}")
            with lab.world(clusters, redis_url=url, latency=LATENCY) as world:
                tries.append(cold_pass(world, lag=True, SERVICE__CONCURRENCY=str(CONCURRENCY), **UNLIMITED))
            if _within(tries[-1]):
                break
    best = min(tries, key=lambda one: one.wall)
    calm = min(tries, key=lambda one: one.lag["lag_p99"])
    floor = serial_floor(best.kube + best.palette, latency=LATENCY, concurrency=CONCURRENCY)
    return [
        Row(
            f"cold pass of {clusters:,} clusters at 50 ms, limits lifted: wall against the floor",
            best.wall / floor,
            "x",
            1.3,
            floor=1.0,
            note=f"{best.wall:.1f} s; floor {floor:.1f} s = {best.kube + best.palette:,} calls x 50 ms / {CONCURRENCY}"
            f" at once; CPU: daemon {best.cpu:.1f} s, simulator {best.world_cpu:.1f} s; try {len(tries)} of {TRIES}",
        ),
        Row(
            f"event-loop lag during that cold pass of {clusters:,}: p99",
            calm.lag["lag_p99"],
            "ms",
            50.0,
            note=f"p50 {calm.lag['lag_p50']:.1f}, longest {calm.lag['lag_max']:.0f} ms; "
            f"p99 of what the loop itself computed meanwhile {calm.lag['own_p99']:.1f} ms",
        ),
    ]


def _within(one: ColdPass) -> bool:
    floor = serial_floor(one.kube + one.palette, latency=LATENCY, concurrency=CONCURRENCY)
    return one.wall <= 1.3 * floor and one.lag["lag_p99"] <= 50


def limited(lab: Lab) -> list[Row]:
    """The same under Palette's documented limits, which the simulator enforces: a request too many would get a 429."""
    clusters = 1000
    lab.say(f"cold pass of {clusters:,} clusters at 50 ms under Palette's limits")
    with lab.valkey() as url, lab.world(clusters, redis_url=url, latency=LATENCY, limits=True) as world:
        found = cold_pass(world, log=True)
    listing = limits_floor(found.palette - clusters, per_second=PER_SECOND, burst=BURST)
    floor = listing + limits_floor(clusters, per_second=PER_SECOND, burst=BURST)
    refused = sum(status == 429 for *_, status in found.log)
    spans = _spans(found.log)
    typical, late = spans[len(spans) // 2], spans[int(len(spans) * 0.99)]
    calls = found.kube // clusters
    return [
        Row(
            f"cold pass of {clusters:,} clusters under Palette's documented limits: wall against them",
            found.wall / floor,
            "x",
            1.1,
            floor=1.0,
            note=f"{found.wall:.1f} s; listing and {clusters:,} kubeconfigs alone take {floor:.1f} s; 429s: "
            f"{refused}. Nothing else waits: from its kubeconfig on a cluster took {typical:.2f} s, p99 {late:.2f} "
            f"s, where {calls} calls of 50 ms make {calls * LATENCY:.2f} s",
        ),
    ]


def _spans(log: list[tuple[float, str, str, str, int]]) -> list[float]:
    """Return the seconds from the kubeconfig to the last response of each cluster, sorted."""
    fetched = {path.split("/")[3]: when for when, _, _, path, _ in log if path.endswith("/adminKubeconfig")}
    last = {cluster: when for when, target, cluster, _, _ in log if target == "kube"}
    return sorted(last[uid] - fetched[uid] for uid in last)


def growth(lab: Lab) -> list[Row]:
    """CPU time and memory of cold passes at growing sizes, without latency: only the daemon takes time."""
    sizes = (1000, 2000, 5000, 10_000) if lab.full else (1000, 10_000)
    found: dict[int, ColdPass] = {}
    with lab.valkey() as url:
        for size in sizes:
            lab.say(f"cold pass of {size:,} clusters, no latency")
            with lab.world(size, redis_url=url) as world:
                found[size] = cold_pass(world, within=900, **UNLIMITED)
    small, large = found[sizes[0]], found[sizes[-1]]
    lab.facts["cold_by_size"] = {
        str(size): {"cpu_s": one.cpu, "wall_s": one.wall, "rss_mb": one.rss, "palette": one.palette, "kube": one.kube}
        for size, one in found.items()
    }
    return [
        Row(
            f"growth from {sizes[0]:,} to {sizes[-1]:,} clusters: CPU of the cold pass",
            large.cpu / small.cpu,
            "x",
            11.0,
            floor=10.0,
            note=f"{small.cpu:.1f} s to {large.cpu:.1f} s; wall {small.wall:.0f} s to {large.wall:.0f} s beside a "
            f"simulator that takes {large.world_cpu:.0f} s",
        ),
        Row(
            f"growth from {sizes[0]:,} to {sizes[-1]:,} clusters: memory after the cold pass",
            large.rss / small.rss,
            "x",
            11.0,
            note=f"{small.rss:.0f} MB to {large.rss:.0f} MB",
        ),
    ]

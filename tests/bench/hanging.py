"""Clusters that hang and clusters that refuse, among clusters that work: those must not feel the others.

Times are shortened to make the measurement short: a cluster has 5 s to answer and a token lives for 75 s. Against
the defaults (15 s) and tokens of ten minutes that is harder, since a token's life holds fewer timeouts.
"""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from bench.lab import UNLIMITED
from bench.processes import BenchError, until
from bench.rows import Row

if TYPE_CHECKING:
    from bench.lab import Lab, World

CLUSTERS, HANG, REFUSE = 1000, 500, 300
HEALTHY = CLUSTERS - HANG - REFUSE
LATENCY = 0.1
LIFE = 75.0  # seconds of a token
OBSERVED = 1.2 * LIFE  # seconds
SETTINGS = {
    "DEFAULTS__CLUSTER_TIMEOUT": "5s",
    "DEFAULTS__REFRESH_INTERVAL": "60s",
    "DEFAULTS__VERIFY_INTERVAL": "30s",
    **UNLIMITED,
}
CREDENTIALS = "{palette-sync:alpha}:credentials"


def hanging(lab: Lab) -> list[Row]:
    lab.say(f"{HEALTHY} clusters alone")
    with lab.valkey() as url, lab.world(HEALTHY, redis_url=url, latency=LATENCY, token_cap=LIFE) as world:
        alone, *_ = _observe(lab, world, observed=0.0)
    lab.say(f"{HEALTHY} clusters among {HANG} that hang and {REFUSE} that refuse")
    with lab.valkey() as url, lab.world(CLUSTERS, redis_url=url, latency=LATENCY, token_cap=LIFE) as world:
        world.process.ask(do="break", hang=HANG, refuse=REFUSE)
        among, lapsed, least = _observe(lab, world, observed=OBSERVED)
    lab.facts["hanging"] = {"alone_s": alone, "among_s": among, "lapsed": lapsed, "least_left_s": least}
    what = f"{HEALTHY} clusters among {HANG} that hang and {REFUSE} that refuse"
    return [
        Row(
            f"{what}: until all are ready, against the time alone",
            among / alone,
            "x",
            2.0,
            floor=1.0,
            note=f"{among:.1f} s against {alone:.1f} s, on an empty store, at {LATENCY * 1000:.0f} ms per request",
        ),
        Row(
            f"{what}: tokens that lapse",
            lapsed,
            "",
            0.0,
            note=f"in {OBSERVED:.0f} s, in which every token of {LIFE:.0f} s is renewed at least once; the least that "
            f"one had left was {least:.0f} s",
        ),
    ]


def _observe(lab: Lab, world: World, *, observed: float) -> tuple[float, int, float]:
    """Return the seconds until all healthy clusters are published, how many tokens lapsed, and the least time left."""
    world.forget_published()
    with world.daemon(**SETTINGS) as process:
        process.wait_for("daemon_ready")
        begun = time.monotonic()
        until(lambda: world.store.hlen(CREDENTIALS) >= HEALTHY, within=300, what="access to all healthy clusters")
        took = time.monotonic() - begun
        lapsed: set[str] = set()
        least = LIFE
        lab.say(f"tokens of {LIFE:.0f} s, for {observed:.0f} s")
        while time.monotonic() - begun - took < observed:
            left = _seconds_left(world)
            lapsed |= {uid for uid, seconds in left.items() if seconds <= 0}
            least = min([least, *left.values()])
            time.sleep(0.5)
        if len(left := _seconds_left(world)) != HEALTHY:
            raise BenchError(f"{len(left)} clusters have tokens, not {HEALTHY}")
        process.stop()
    return took, len(lapsed), least


def _seconds_left(world: World) -> dict[str, float]:
    now = datetime.now(UTC)
    found = world.store.hgetall(CREDENTIALS)
    return {
        uid.decode(): (datetime.fromisoformat(json.loads(value)["expires_at"]) - now).total_seconds()
        for uid, value in found.items()
    }

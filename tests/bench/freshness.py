"""Freshness: how long a cluster that becomes Running takes to be published, with the default intervals."""

from __future__ import annotations

import json
import random
import time
from statistics import median
from typing import TYPE_CHECKING

from bench.lab import UNLIMITED
from bench.processes import BenchError
from bench.rows import Row

if TYPE_CHECKING:
    from bench.lab import Lab, World

CLUSTERS = 1000
NEW = 24  # clusters that become Running, one after the other
SPAN = 90.0  # seconds in which they do, one in each even part of it
PATIENCE = 90.0  # seconds until one must be published
KEY = "{palette-sync:alpha}:clusters"


def freshness(lab: Lab) -> list[Row]:
    """A thousand clusters in ten projects, peeks and listings at their defaults."""
    draw = random.Random(1)
    moments = [(number + draw.random()) * SPAN / NEW for number in range(NEW)]
    with lab.valkey() as url, lab.world(CLUSTERS, redis_url=url) as world:
        lab.say(f"publishing {CLUSTERS:,} clusters")
        world.process.ask(do="publish")
        uids: list[str] = world.process.ask(do="add", count=NEW, state="Provisioning")
        with world.daemon(DEFAULTS__VERIFY_INTERVAL="1000d", **UNLIMITED) as process:
            process.wait_for("pass_finished", within=120)
            lab.say(f"{NEW} clusters become Running within {SPAN:g} s")
            before, begun = len(world.process.ask(do="searches")), time.monotonic()
            running: dict[str, float] = {}
            took: dict[str, float] = {}
            waiting = list(zip(moments, uids, strict=True))
            while len(took) < NEW:
                now = time.monotonic() - begun
                while waiting and waiting[0][0] <= now:
                    _, uid = waiting.pop(0)
                    world.process.ask(do="run", uid=uid)
                    running[uid] = time.monotonic()
                took |= _published(world, {uid: at for uid, at in running.items() if uid not in took})
                if now > SPAN + PATIENCE:
                    raise BenchError(f"{NEW - len(took)} clusters were not published")
                time.sleep(0.05)
            searches = world.process.ask(do="searches")[before:]
            process.stop()
    waits = sorted(took.values())
    return [
        Row(
            "a cluster becomes Running: until published, median",
            median(waits),
            "s",
            20.0,
            note=f"{NEW} of {CLUSTERS:,} clusters, intervals at their defaults",
        ),
        Row("a cluster becomes Running: until published, p99", waits[-1], "s", 40.0, note="the longest"),
        Row(
            "peeks: requests to Palette in an hour",
            (len(searches) - 1) * 3600 / (searches[-1] - searches[0]),
            "",
            130.0,
            note=f"from {len(searches)} in {searches[-1] - searches[0]:.0f} s, with a tenant-wide key",
        ),
    ]


def _published(world: World, running: dict[str, float]) -> dict[str, float]:
    """Seconds from Running to a published token, for each cluster that has one by now."""
    if not running:
        return {}
    found = world.store.hmget(KEY, list(running))
    now = time.monotonic()
    return {
        uid: now - at
        for (uid, at), raw in zip(running.items(), found, strict=True)
        if raw is not None and json.loads(raw)["access"]["state"] == "ready"
    }

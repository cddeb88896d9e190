"""How long an instance has no leader after the process that led it was killed."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Any

import redis

from bench.processes import Daemon, daemon, until
from bench.rows import Row, shown

if TYPE_CHECKING:
    from pathlib import Path

    from bench.lab import Lab

LEASE_TTL = 5.0  # seconds
KILLS = 6


def takeover(lab: Lab) -> list[Row]:
    """Kill the leader again and again, at moments that are spread over the time between two renewals of its lease."""
    lab.say(f"takeover after {KILLS} kills")
    with lab.valkey() as url, lab.world(20, redis_url=url) as world, redis.Redis.from_url(url) as client:
        world.process.ask(do="publish")
        pauses = [number / KILLS * LEASE_TTL / 3 for number in range(KILLS)]
        took = [_killed(client, world.config, pause=pause) for pause in pauses]
    return [
        Row(
            f"takeover after a kill -9, the longest of {KILLS}, against lease_ttl",
            max(took) / LEASE_TTL,
            "x",
            1.5,
            note=f"{shown(min(took), 's')} to {shown(max(took), 's')} with lease_ttl = {LEASE_TTL:g} s; "
            f"two daemons, 20 clusters",
        )
    ]


def _killed(client: redis.Redis, config: Path, *, pause: float) -> float:
    """Return the seconds from the kill to the next lease."""
    ttl = f"{LEASE_TTL:g}s"
    with daemon(config, SERVICE__LEASE_TTL=ttl) as one, daemon(config, SERVICE__LEASE_TTL=ttl) as two:
        for run in (one, two):
            run.wait_for("daemon_ready")
        leader = until(lambda: _leader(client, one, two), within=60, what="the first lease")
        (other,) = {one.pid, two.pid} - {leader}
        (standby,) = [run for run in (one, two) if run.pid == other]
        standby.wait_for("standing_by")
        time.sleep(2 * LEASE_TTL / 5 + pause)  # both have looked at each other
        os.kill(leader, signal.SIGKILL)
        killed_at = time.monotonic()
        until(lambda: _leader(client, standby), within=60, what="the takeover")
        return time.monotonic() - killed_at


def _leader(client: redis.Redis, *runs: Daemon) -> int | None:
    """The process id of the one among the daemons that holds the lease."""
    for key in client.scan_iter("{*}:lease"):
        value: Any = client.get(key)
        for run in runs:
            if value and f':{run.pid}"'.encode() in value:
                return run.pid
    return None

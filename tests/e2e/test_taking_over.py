"""A resync whose leader ends in the middle of it is finished by the next leader, which answers whoever asked."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

from e2e.command import COMMAND, environment
from e2e.daemon import daemon

if TYPE_CHECKING:
    from collections.abc import Callable

    from e2e.conftest import World

VARIABLES = {"PALETTE_SYNC_SERVICE__LEASE_TTL": "3s", "PALETTE_SYNC_SERVICE__CONCURRENCY": "1"}
SLOW = {"target": "kube", "kind": "latency", "seconds": 0.5}


def test_a_resync_that_sigterm_interrupts_is_answered_by_the_next_leader(
    world_of: Callable[..., World], redis: dict[str, str]
) -> None:
    world = world_of("--instances", "1", "--clusters", "8")
    world.all_by_token()
    variables = {**redis, **VARIABLES}
    with daemon(world.config, **variables) as first:
        first.wait_for("pass_finished", access={"ready": 8})
        with daemon(world.config, **variables) as second:
            second.wait_for("daemon_ready")
            fault = world.control("POST", "/faults", SLOW)
            leader, other = (first, second) if first.status("alpha")["state"] == "leading" else (second, first)
            command = [str(COMMAND), "resync", "--config", str(world.config), "--json"]
            asking = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment(**redis))
            leader.wait_for("request_received", action="resync")

            assert leader.stop() == 0
            leader.wait_for("request_passed_on", action="resync")
            other.wait_for("request_received", action="resync")
            world.control("DELETE", f"/faults/{fault['id']}")
            out, _ = asking.communicate(timeout=50)

            assert asking.returncode == 0
            assert json.loads(out)["alpha"]["due"] == 8
            assert other.events("pass_finished", due=8)
            assert other.stop() == 0


def test_a_resync_that_nobody_takes_over_is_reported(world_of: Callable[..., World], redis: dict[str, str]) -> None:
    world = world_of("--instances", "1", "--clusters", "8")
    world.all_by_token()
    with daemon(world.config, **redis, **VARIABLES) as run:
        run.wait_for("pass_finished", access={"ready": 8})
        world.control("POST", "/faults", SLOW)
        command = [str(COMMAND), "resync", "--config", str(world.config), "--wait", "12"]
        asking = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment(**redis))
        run.wait_for("request_received", action="resync")
        assert run.stop() == 0
        out, _ = asking.communicate(timeout=50)

    assert asking.returncode == 1
    assert "passed it on to the next leader, and no daemon has taken it over; ask again" in " ".join(out.split())

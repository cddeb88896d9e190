"""Tokens that live for seconds are rotated for a minute, and no reader ever sees a dead one."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING

import pytest

from e2e.daemon import daemon, until
from e2e.published import reader

if TYPE_CHECKING:
    from collections.abc import Callable

    from e2e.conftest import World

SECONDS = float(os.environ.get("PALETTE_SYNC_SOAK_SECONDS", "60"))
LIFE = 20  # seconds that the API servers grant
CLUSTERS = 50


@pytest.mark.timeout(SECONDS + 120)
async def test_short_lived_tokens_are_rotated_and_no_reader_sees_a_dead_one(
    world_of: Callable[..., World], redis: dict[str, str]
) -> None:
    world = world_of("--instances", "1", "--clusters", str(CLUSTERS))
    world.all_by_token()
    for uid in world.clusters():
        world.control("PATCH", f"/clusters/{uid}", {"token_cap": LIFE})
    reads, begun = 0, time.monotonic()
    # An interval far beyond the test: nothing but the tokens' own time wakes the daemon.
    with daemon(world.config, PALETTE_SYNC_DEFAULTS__REFRESH_INTERVAL="1h", **redis) as run:
        first = await asyncio.to_thread(run.wait_for, "pass_finished", access={"ready": CLUSTERS})
        async with reader(world.config, **redis) as look:
            ends_at = time.monotonic() + SECONDS
            while time.monotonic() < ends_at or reads <= 5:
                state = await look.state()
                assert len(state.records) == CLUSTERS
                assert {record.access.state.value for record in state.records.values()} == {"ready"}
                assert await look.refused(state) == []
                reads += 1
        left = min(run.metric("palette_sync_token_first_lapse_seconds").values())
        known = run.events("pass_finished", action="known")
        assert run.stop() == 0

    took = time.monotonic() - begun
    rotations = sum(world.issued().values()) - CLUSTERS
    assert first["due"] == CLUSTERS
    # Renewal comes between a quarter (shared passes) and two thirds of a life, so each token was renewed by then.
    assert rotations >= CLUSTERS * int(SECONDS / (LIFE * 2 / 3) - 1)
    assert rotations <= CLUSTERS * (took / (LIFE / 4) + 1)
    assert 0 < left < LIFE
    assert not any(one["palette_requests"] and not one["due"] for one in known), "nothing was listed"


async def test_an_api_server_that_caps_validity_is_obeyed(
    world_of: Callable[..., World], redis: dict[str, str]
) -> None:
    world = world_of("--instances", "1", "--clusters", "6")
    world.all_by_token()
    capped = world.clusters()[0]
    world.control("PATCH", f"/clusters/{capped}", {"token_cap": 900})
    with daemon(world.config, **redis) as run:
        await asyncio.to_thread(run.wait_for, "pass_finished", access={"ready": 6})
        wakes = run.status("alpha")["wakes_at"]
        assert run.stop() == 0

    async with reader(world.config, **redis) as look:
        credentials = (await look.state()).credentials
    for uid, one in credentials.items():
        assert one.expires_at is not None
        life = (one.expires_at - one.issued_at).total_seconds()
        assert life == pytest.approx(900 if uid == capped else 86_400, abs=2)
        assert life / 3 - 1 <= (one.renew_at - one.issued_at).total_seconds() <= life * 2 / 3
    assert wakes <= credentials[capped].renew_at.strftime("%Y-%m-%dT%H:%M:%SZ")


async def test_a_renewal_that_fails_keeps_the_living_token_and_raises_the_alarm(
    world_of: Callable[..., World], redis: dict[str, str]
) -> None:
    world = world_of("--instances", "1", "--clusters", "2")
    world.all_by_token()
    for uid in world.clusters():
        world.control("PATCH", f"/clusters/{uid}", {"token_cap": 30})
    with daemon(world.config, **redis) as run:
        await asyncio.to_thread(run.wait_for, "pass_finished", access={"ready": 2})
        # A status that is not retried: retries could last longer than the token.
        world.control("POST", "/faults", {"target": "palette", "kind": "status", "status": 403})

        failed = await asyncio.to_thread(run.wait_for, "cluster_changed", reason="KubeconfigForbidden")
        assert failed["action"] == ["failed", "updated"]
        await asyncio.to_thread(until, lambda: "degraded" in run.status("alpha")["access"])  # published by then
        async with reader(world.config, **redis) as look:
            state = await look.state()
            assert "degraded" in {record.access.state.value for record in state.records.values()}
            assert await look.refused(state) == []
        await asyncio.to_thread(until, lambda: run.status("alpha")["renewals_failing"] >= 1)
        status = run.status("alpha")
        assert 0 < status["first_lapse_s"] < 30
        assert run.metric("palette_sync_renewals_failing")['palette_instance="alpha"'] >= 1

        world.control("DELETE", "/faults")
        await asyncio.to_thread(until, lambda: run.status("alpha")["access"] == {"ready": 2})
        assert run.status("alpha")["renewals_failing"] == 0
        assert run.stop() == 0

"""Daemons on a Redis Cluster: passes, restart, takeover, requests, a slot that moves, and a server that dies."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from clusters import clustered, prefix_with
from e2e.command import Ran, palette_sync
from e2e.daemon import daemon, until
from e2e.published import reader

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from e2e.conftest import World

SHARED = {f"{{p}}:{what}": 0 for what in ("instances", "owner", "names", "members")}
PREFIX = prefix_with("e2e-", {**SHARED, "{{p}:alpha}": 0, "{{p}:bravo}": 2})
LASTING = {"PALETTE_SYNC_SERVICE__LEASE_TTL": "6s"}
LED = {"leading"}


async def ran(*arguments: str | Path, **variables: str) -> Ran:
    return await asyncio.to_thread(partial(palette_sync, *arguments, **variables))


async def happens(holds: Callable[[], Any]) -> Any:
    return await asyncio.to_thread(until, holds)


async def test_daemons_work_on_a_cluster_and_lose_only_the_instance_of_a_server_that_dies(
    world_of: Callable[..., World], tmp_path: Path
) -> None:
    world = world_of("--instances", "2", "--clusters", "6")
    config = world.config
    async with clustered(tmp_path) as servers:
        redis = {"PALETTE_SYNC_REDIS__URL": servers.url, "PALETTE_SYNC_REDIS__PREFIX": PREFIX, **LASTING}
        with daemon(config, **redis) as first:
            for name in ("alpha", "bravo"):
                await asyncio.to_thread(first.wait_for, "pass_finished", instance=name, access={"ready": 3})
            issued = world.issued()
            with daemon(config, **redis) as second:
                await asyncio.to_thread(second.wait_for, "daemon_ready")
                assert await asyncio.to_thread(first.stop) == 0
                await happens(lambda: {second.status(name).get("state") for name in ("alpha", "bravo")} == LED)
                assert (await ran("resync", "--config", config, **redis)).code == 0
                assert (await ran("reload", "--config", config, **redis)).code == 0

                await servers.move(f"{{{PREFIX}:bravo}}", to=servers.all[1])
                moved = await ran("resync", "--config", config, "--instance", "bravo", "--json", **redis)
                assert moved.document["bravo"]["ok"], moved.out
                assert (await ran("clusters", "--config", config, **redis)).code == 0
                assert await asyncio.to_thread(second.stop) == 0

        with daemon(config, **redis) as run:
            await happens(lambda: {run.status(name).get("state") for name in ("alpha", "bravo")} == LED)
            await servers.all[1].kill()
            await happens(lambda: run.status("bravo")["state"] == "storeless")
            assert servers.all[1].address in run.status("bravo")["detail"] or "slot" in run.status("bravo")["detail"]
            asked = await ran("resync", "--config", config, "--instance", "alpha", "--json", **redis)
            assert asked.document["alpha"]["ok"], asked.out
            assert run.status("alpha")["state"] == "leading"
            seen = await ran("status", "--from", "redis", "--config", config, "--json", **redis)
            assert {name: one["state"] for name, one in seen.document["instances"].items()} == {
                "alpha": "led",
                "bravo": "storeless",
            }
            assert (await ran("clusters", "--config", config, **redis)).err.count("bravo is missing below") == 1

            await servers.all[1].start()
            await servers.settle()
            await happens(lambda: run.status("bravo")["state"] == "leading")
            async with reader(config, **redis) as look:
                for name in ("alpha", "bravo"):
                    state = await look.state(name)
                    assert state.trusted
                    assert len(state.records) == 3
                    assert await look.refused(state) == []
            assert await asyncio.to_thread(run.stop) == 0
    assert world.issued() == issued

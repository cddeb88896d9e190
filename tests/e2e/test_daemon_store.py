"""Redis that is away, dies, or comes back empty under a running daemon; a daemon that dies; two of them at once."""

from __future__ import annotations

import asyncio
import signal
import socket
from typing import TYPE_CHECKING

import pytest

from e2e.command import palette_sync
from e2e.daemon import ValkeyProcess, daemon, until
from e2e.published import reader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from e2e.conftest import World

QUICK = {"PALETTE_SYNC_SERVICE__LEASE_TTL": "2s"}
# For tests of who leads: longer than a busy machine can delay the renewal of a lease.
LASTING = {"PALETTE_SYNC_SERVICE__LEASE_TTL": "8s"}


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[ValkeyProcess]:
    server = ValkeyProcess(tmp_path / "valkey")
    yield server
    server.kill()


async def test_redis_that_comes_back_empty_is_filled_from_memory_and_no_token_is_issued(
    world_of: Callable[..., World], valkey: ValkeyProcess
) -> None:
    world = world_of("--instances", "1", "--clusters", "6")
    redis = {"PALETTE_SYNC_REDIS__URL": valkey.url, **QUICK}
    valkey.start()
    with daemon(world.config, **redis) as run:
        await asyncio.to_thread(run.wait_for, "pass_finished", access={"ready": 6})
        issued = world.issued()
        async with reader(world.config, **redis) as look:
            before = await look.state()

        valkey.kill()
        await asyncio.to_thread(run.wait_for, "store_away")
        assert run.status("alpha")["state"] == "storeless"
        assert run.status("alpha")["first_lapse_s"] > 0
        assert run.get("/readyz")[0] == 200
        assert run.get("/livez")[0] == 200
        run.send(signal.SIGUSR1)  # answered once Redis is back
        valkey.start()

        await asyncio.to_thread(run.wait_for, "store_refilled")
        await asyncio.to_thread(run.wait_for, "store_back")
        await asyncio.to_thread(run.wait_for, "pass_finished", due=6, count=2)
        async with reader(world.config, **redis) as look:
            after = await look.state()
            assert await look.refused(after) == []
        assert run.stop() == 0

    assert after.trusted
    assert after.records == before.records
    assert world.issued() == issued


async def test_a_killed_daemon_is_replaced_and_every_cluster_has_access_in_the_end(
    world_of: Callable[..., World], redis: dict[str, str]
) -> None:
    world = world_of("--instances", "1", "--clusters", "12", "--latency", "50ms")
    world.all_by_token()
    variables = {**redis, **QUICK, "PALETTE_SYNC_SERVICE__CONCURRENCY": "4"}
    with daemon(world.config, **variables) as run:
        run.wait_for("token_issued", count=2)
        run.send(signal.SIGKILL)
        assert run.end() == -signal.SIGKILL

    with daemon(world.config, **variables) as run:
        await asyncio.to_thread(run.wait_for, "pass_finished", access={"ready": 12})
        async with reader(world.config, **redis) as look:
            assert await look.refused(await look.state()) == []
        assert run.stop() == 0


def test_a_second_daemon_stands_by_and_takes_over_without_touching_a_cluster(
    world_of: Callable[..., World], redis: dict[str, str]
) -> None:
    world = world_of("--instances", "2", "--clusters", "6")
    variables = {**redis, **LASTING}
    with daemon(world.config, **variables) as first:
        for name in ("alpha", "bravo"):
            first.wait_for("pass_finished", instance=name)
        with daemon(world.config, supervised=True, **variables) as second:
            second.wait_for("daemon_ready")
            assert {one["state"] for one in second.status()["instances"].values()} == {"standby"}
            assert second.get("/readyz")[0] == 200
            assert second.metric("palette_sync_token_first_lapse_seconds") == {}
            assert set(first.metric("palette_sync_leading").values()) == {1}
            assert set(second.metric("palette_sync_leading").values()) == {0}
            busy = palette_sync("once", "--config", world.config, **redis)
            assert busy.code == 75
            writes, asked = world.writes(), world.requests("kube")

            assert first.stop() == 0
            for name in ("alpha", "bravo"):
                second.wait_for("pass_finished", instance=name)

            assert {one["state"] for one in second.status()["instances"].values()} == {"leading"}
            assert (world.writes(), world.requests("kube")) == (writes, asked)
            assert second.stop() == 0


def test_a_daemon_that_was_stopped_for_longer_than_its_lease_writes_nothing_and_stands_by(
    world_of: Callable[..., World], redis: dict[str, str]
) -> None:
    world = world_of("--instances", "1", "--clusters", "4")
    variables = {**redis, **LASTING}
    with daemon(world.config, **variables) as first:
        first.wait_for("pass_finished")
        first.send(signal.SIGSTOP)
        with daemon(world.config, **variables) as second:
            second.wait_for("pass_finished")
            first.send(signal.SIGCONT)
            first.send(signal.SIGUSR1)
            first.wait_for("lease_lost")
            until(lambda: first.status("alpha")["state"] == "standby")
            assert second.status("alpha")["state"] == "leading"
            second.send(signal.SIGUSR1)
            second.wait_for("pass_finished", due=4)
            assert second.stop() == 0
        first.wait_for("pass_finished", due=4, count=2)
        assert first.stop() == 0


def test_start_up_asks_for_more_time_while_redis_hangs(world_of: Callable[..., World]) -> None:
    """Redis accepts connections and never answers, like a stopped process."""
    world = world_of("--instances", "1", "--clusters", "1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        redis = {
            "PALETTE_SYNC_REDIS__URL": f"redis://127.0.0.1:{silent.getsockname()[1]}",
            "PALETTE_SYNC_REDIS__TIMEOUT": "60s",
        }
        with daemon(world.config, supervised=True, **redis) as run:
            until(lambda: len(run.sent("EXTEND_TIMEOUT_USEC")) >= 2)
            assert run.events("waiting_for_store") == [], "it still waits for the first answer"
            assert run.stop() == 0


def test_start_up_waits_for_redis_and_notifies_the_supervisor(
    world_of: Callable[..., World], valkey: ValkeyProcess
) -> None:
    world = world_of("--instances", "1", "--clusters", "2")
    redis = {"PALETTE_SYNC_REDIS__URL": valkey.url}
    with daemon(world.config, supervised=True, watchdog=2.0, **redis) as run:
        run.wait_for("waiting_for_store")
        assert until(lambda: run.sent("STATUS"))[0].startswith("waiting for Redis: ping: Redis at ")
        until(lambda: run.sent("EXTEND_TIMEOUT_USEC"))
        assert run.sent("READY") == []
        assert run.get("/livez")[0] == 200
        assert run.get("/readyz")[0] == 503
        assert run.metric("palette_sync_leading") == {'palette_instance="alpha"': 0}
        assert palette_sync("status", "--config", world.config, PALETTE_SYNC_HTTP__LISTEN=run.url[7:]).code == 1

        valkey.start()
        run.wait_for("pass_finished", access={"ready": 2})
        until(lambda: run.sent("READY"))
        until(lambda: len(run.sent("WATCHDOG")) > 2)
        until(lambda: any("1 instances, 2 clusters (2 ready)" in line for line in run.sent("STATUS")))
        assert run.get("/readyz")[0] == 200
        assert run.metric("palette_sync_leading") == {'palette_instance="alpha"': 1}
        assert run.stop() == 0
        assert run.sent("STOPPING") == ["1"]


def test_sigterm_while_waiting_for_redis_ends_it(world_of: Callable[..., World], valkey: ValkeyProcess) -> None:
    world = world_of("--instances", "1", "--clusters", "1")
    with daemon(world.config, PALETTE_SYNC_REDIS__URL=valkey.url) as run:
        run.wait_for("waiting_for_store")
        assert run.stop() == 0
        assert run.events("daemon_stopped")


def test_a_login_that_redis_refuses_ends_the_start(world_of: Callable[..., World], tmp_path: Path) -> None:
    world = world_of("--instances", "1", "--clusters", "1")
    server = ValkeyProcess(tmp_path / "valkey", password="right")
    server.start()
    try:
        wrong = server.url.replace(":right@", ":canary-wrong@")
        with daemon(world.config, PALETTE_SYNC_REDIS__URL=wrong) as run:
            assert run.end() == 1
            assert "refuses the login" in run.text
            assert "canary-wrong" not in run.text
    finally:
        server.kill()

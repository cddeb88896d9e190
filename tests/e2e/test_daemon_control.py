"""Requests to a running daemon: `resync`, `reload`, `status`, its endpoint; and no secret in any answer."""

from __future__ import annotations

import asyncio
import json
import signal
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from redis import Redis

from e2e.command import Ran, palette_sync
from e2e.daemon import ValkeyProcess, daemon, until
from e2e.published import reader
from palette_sync.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Callable

    from e2e.conftest import World


def test_resync_and_reload_reach_the_daemon_and_return_the_result(
    world_of: Callable[..., World], redis: dict[str, str]
) -> None:
    world = world_of("--instances", "2", "--clusters", "6")
    with daemon(world.config, **redis) as run:
        for name in ("alpha", "bravo"):
            run.wait_for("pass_finished", instance=name)

        asked = palette_sync("resync", "--config", world.config, **redis)
        assert asked.code == 0, asked.err
        assert "alpha: 3 ready; version" in asked.out
        assert "3 worked on, 0 changed" in asked.out
        assert run.events("request_received", action="resync")[0]["by"]

        one = palette_sync("resync", "--config", world.config, "--instance", "bravo", "--json", **redis)
        assert list(one.document) == ["bravo"]
        assert one.document["bravo"]["ok"]
        assert one.document["bravo"]["due"] == 3

        whole = world.config.read_text()
        world.config.write_text(whole.replace("[instances.bravo]", '[instances.bravo]\ntitle = "Renamed"'))
        assert palette_sync("reload", "--config", world.config, **redis).code == 0
        until(lambda: run.events("config_reloaded", changed=["bravo"]))

        world.control("POST", "/faults", {"target": "palette", "instance": "alpha", "kind": "status", "status": 401})
        failed = palette_sync("resync", "--config", world.config, "--json", **redis)
        assert failed.code == 1
        assert not failed.document["alpha"]["ok"]
        assert failed.document["bravo"]["ok"]
        assert run.stop() == 0


def test_the_caller_of_a_rejected_reload_gets_its_problems(
    world_of: Callable[..., World], redis: dict[str, str], tmp_path: Path
) -> None:
    world = world_of("--instances", "1", "--clusters", "1")
    mine = tmp_path / "mine.toml"
    mine.write_text(world.config.read_text())
    with daemon(world.config, **redis) as run:
        run.wait_for("pass_finished")
        world.config.write_text(world.config.read_text() + "\n[service]\ngrace = '1h'\n")

        rejected = palette_sync("reload", "--config", mine, **redis)

        assert rejected.code == 1
        assert "grace must be shorter than deadline" in rejected.out
        assert run.stop() == 0


def text_of(ran: Ran) -> str:
    """What the only daemon answered."""
    (answer,) = ran.document.values()
    return str(answer["text"])


def test_a_reload_that_deselects_every_cluster_needs_a_permission(
    world_of: Callable[..., World], redis: dict[str, str]
) -> None:
    world = world_of("--instances", "1", "--projects", "2", "--clusters", "6")
    with daemon(world.config, **redis) as run:
        run.wait_for("pass_finished", access={"ready": 6})
        with world.config.open("a") as file:
            file.write('[defaults]\ninclude_projects = ["paymnets"]\n[instances.alpha.rbac]\n')

        rejected = palette_sync("reload", "--config", world.config, "--json", **redis)
        shown = palette_sync("clusters", "--config", world.config, "--json", **redis)
        allowed = palette_sync("reload", "--allow-prune", "--config", world.config, "--json", **redis)

        pattern = 'include_projects: "paymnets" matches no project; is "payments" meant?'
        assert rejected.code == 1
        assert "deselect 5 of 6 published clusters" in text_of(rejected)
        assert pattern in text_of(rejected)
        assert "reload --allow-prune" in text_of(rejected)
        assert len(shown.document["alpha"]["clusters"]) == 6
        assert allowed.code == 0
        assert pattern in text_of(allowed)
        run.wait_for("pass_finished", clusters=1)
        assert run.stop() == 0


def test_a_cluster_that_vanished_goes_with_the_second_tick_and_not_with_resyncs(
    world_of: Callable[..., World], redis: dict[str, str]
) -> None:
    world = world_of("--instances", "1", "--projects", "1", "--clusters", "6")
    slow = {"PALETTE_SYNC_DEFAULTS__PRUNE_CONFIRM": "2s", "PALETTE_SYNC_DEFAULTS__REFRESH_INTERVAL": "1h"}
    with daemon(world.config, **redis, **slow) as run:
        run.wait_for("pass_finished", access={"ready": 6})
        clusters = world.document["instances"][0]["clusters"]
        world.control("DELETE", f"/clusters/{next(one['uid'] for one in clusters if one['project'])}")
        for _ in range(3):
            palette_sync("resync", "--config", world.config, **redis)
        assert (
            len(palette_sync("clusters", "--config", world.config, "--json", **redis).document["alpha"]["clusters"])
            == 6
        )
        assert run.stop() == 0
    with daemon(world.config, **redis, **slow | {"PALETTE_SYNC_DEFAULTS__REFRESH_INTERVAL": "1s"}) as run:
        run.wait_for("cluster_changed", reason="Disappeared")
        assert run.stop() == 0


def test_allow_prune_drops_what_is_held(world_of: Callable[..., World], redis: dict[str, str]) -> None:
    world = world_of("--instances", "1", "--clusters", "12")
    with daemon(world.config, **redis) as run:
        run.wait_for("pass_finished", access={"ready": 12})
        for uid in world.clusters()[:8]:
            world.control("DELETE", f"/clusters/{uid}")
        held = palette_sync("resync", "--config", world.config, "--json", **redis)
        assert held.code == 1, "what is held is not done"
        assert held.document["alpha"]["held"] == 8
        assert ", 8 held (`palette-sync resync --allow-prune` drops them)" in held.document["alpha"]["text"]
        assert run.wait_for("prune_held")["held"] == 8
        assert run.status("alpha")["prune_held"] == 8
        assert run.metric("palette_sync_prune_held") == {'palette_instance="alpha"': 8.0}
        shown = " ".join(palette_sync("clusters", "--config", world.config, **redis).out.split())
        assert shown.count("PruneHeld") == 8
        listen = {"PALETTE_SYNC_HTTP__LISTEN": run.url.removeprefix("http://")}
        stands = palette_sync("status", "--config", world.config, **redis, **listen)
        assert "no longer lists 8 clusters, whose records are held" in " ".join((stands.out + stands.err).split())

        allowed = palette_sync("resync", "--allow-prune", "--config", world.config, "--json", **redis)

        assert allowed.document["alpha"]["access"] == {"ready": 4}
        assert run.status("alpha")["prune_held"] == 0
        assert run.stop() == 0


def test_a_missing_answer_is_reported_with_what_to_check(world_of: Callable[..., World], redis: dict[str, str]) -> None:
    world = world_of("--instances", "1", "--clusters", "1")

    alone = palette_sync("resync", "--config", world.config, "--wait", "1s", **redis)
    assert alone.code == 1
    assert "is `palette-sync run` up" in alone.out
    wrong = palette_sync("resync", "--config", world.config, "--wait", "soon", **redis)
    assert wrong.code == 2
    assert "is not a duration" in wrong.err
    nowhere = palette_sync("status", "--config", world.config, PALETTE_SYNC_HTTP__LISTEN="127.0.0.1:1")
    assert nowhere.code == 1
    assert "check that `palette-sync run` is running there" in nowhere.err
    world.config.write_text(world.config.read_text() + '\n[http]\nlisten = ""\n')
    closed = palette_sync("status", "--config", world.config)
    assert closed.code == 78
    assert "the daemon serves no status; set [http] listen" in closed.err


def test_a_reload_without_a_daemon_is_not_sent(
    world_of: Callable[..., World], redis: dict[str, str], valkey_url: str
) -> None:
    world = world_of("--instances", "1", "--clusters", "1")

    alone = palette_sync("reload", "--config", world.config, "--allow-prune", **redis)

    assert alone.code == 1
    assert "nobody was asked" in alone.err
    with Redis.from_url(valkey_url) as client:
        prefix = redis["PALETTE_SYNC_REDIS__PREFIX"]
        assert client.xlen(f"{prefix}:control") == 0, "a daemon that starts soon would carry it out"


def test_status_shows_how_it_stands(world_of: Callable[..., World], redis: dict[str, str]) -> None:
    world = world_of("--instances", "2", "--clusters", "6")
    with daemon(world.config, **redis) as run:
        for name in ("alpha", "bravo"):
            run.wait_for("pass_finished", instance=name)
            # Its own tick looks it up, which may come after the first pass.
            until(lambda name=name: "api_key_expires_at" in run.status(name))
        until(run.idle)
        listen = {"PALETTE_SYNC_HTTP__LISTEN": run.url.removeprefix("http://")}

        shown = palette_sync("status", "--config", world.config, **listen)
        assert shown.code == 0, shown.err
        assert "alpha" in shown.out
        assert "3 ready" in shown.out
        assert "2036-01-13" in shown.out, "the end of the API key"
        document = palette_sync("status", "--config", world.config, "--json", **listen).document
        assert document["instances"]["alpha"]["state"] == "leading"
        assert document["problems"] == []

        assert run.get("/metrics")[0] == 200
        assert run.metric("palette_sync_clusters")['palette_instance="alpha",state="ready"'] == 3.0
        verified = 'palette_instance="alpha",reason="Verified",state="ready"'
        assert run.metric("palette_sync_clusters_by_reason")[verified] == 3.0
        assert run.metric("palette_sync_api_key_expiry_timestamp_seconds")['palette_instance="alpha"'] > 1.8e9
        exported = {line.partition("{")[0] for line in run.get("/metrics")[1].splitlines() if not line.startswith("#")}
        declared = {one._name for one in Metrics()._gauges if "_held_" not in one._name}  # set while something is held
        assert declared - exported == set(), "a gauge that nobody sets"
        assert run.get("/nothing")[0] == 404
        assert run.stop() == 0


def test_an_address_that_is_taken_is_reported(world_of: Callable[..., World], redis: dict[str, str]) -> None:
    world = world_of("--instances", "1", "--clusters", "1")
    with daemon(world.config, **redis) as run:
        taken = {**redis, "PALETTE_SYNC_HTTP__LISTEN": run.url.removeprefix("http://")}
        with daemon(world.config, **taken) as second:
            assert second.end() == 1
            assert "choose another address" in second.events("fatal")[0]["problems"][0]
        run.wait_for("daemon_ready")  # before its handlers are installed, SIGTERM ends it at once
        assert run.stop() == 0


def test_a_palette_that_is_down_from_the_start_is_not_ready(
    world_of: Callable[..., World], redis: dict[str, str]
) -> None:
    world = world_of("--instances", "2", "--clusters", "4")
    world.control("POST", "/faults", {"target": "palette", "instance": "alpha", "kind": "status", "status": 401})
    with daemon(world.config, supervised=True, **redis) as run:
        run.wait_for("pass_finished", instance="bravo", access={"ready": 2}, level="info")
        run.wait_for("pass_finished", instance="alpha", level="warning")
        run.wait_for("daemon_ready")
        code, text = run.get("/readyz")
        assert code == 503
        assert text.startswith("alpha: no snapshot was published or read yet")
        assert run.get("/livez")[0] == 200
        until(lambda: any("alpha: " in line for line in run.sent("STATUS")))

        world.control("DELETE", "/faults")
        run.send(signal.SIGUSR1)
        until(lambda: run.get("/readyz")[0] == 200)
        assert run.stop() == 0


@pytest.fixture
def secret_redis(tmp_path: Path) -> ValkeyProcess:
    return ValkeyProcess(tmp_path / "valkey", password="canary-redis-password")


def process_list() -> str:
    """All command lines on this machine, as `ps` shows them."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it ended meanwhile
            lines.append(path.read_text(errors="replace"))
    return "\n".join(lines)


async def test_no_secret_shows_in_log_metrics_status_or_process_list(
    world_of: Callable[..., World], secret_redis: ValkeyProcess
) -> None:
    world = world_of("--instances", "2", "--clusters", "8")
    secret_redis.start()
    redis = {
        "PALETTE_SYNC_REDIS__URL": secret_redis.url,
        "PALETTE_SYNC_SERVICE__LOG_LEVEL": "debug",
        "PALETTE_SYNC_SERVICE__LEASE_TTL": "5s",  # when it expires, the daemon notices that Redis is down
    }
    canaries = {"canary-redis-password"}
    for file in (*world.config.parent.glob("*.api-key"), world.config.parent / "seal.keys"):
        canaries.update(word for word in file.read_text().split() if len(word) > 20)
    try:
        with daemon(world.config, supervised=True, **redis) as run:
            for name in ("alpha", "bravo"):
                await asyncio.to_thread(run.wait_for, "pass_finished", instance=name)
            # Everything that can go wrong with a kubeconfig and an answer, so that it shows in errors.
            world.control("POST", "/faults", {"target": "palette", "kind": "garbage", "path": "Kubeconfig"})
            for uid in world.clusters(oidc=False)[:2]:
                world.control("POST", f"/clusters/{uid}/revoke-tokens")
            run.send(signal.SIGUSR1)
            for name in ("alpha", "bravo"):
                await asyncio.to_thread(run.wait_for, "pass_finished", action="list", instance=name, count=2)
            secret_redis.kill()
            for name in ("alpha", "bravo"):
                await asyncio.to_thread(run.wait_for, "store_away", instance=name)
            secret_redis.start()
            for name in ("alpha", "bravo"):
                await asyncio.to_thread(run.wait_for, "store_back", instance=name)
            run.send(signal.SIGUSR2)
            await asyncio.to_thread(run.wait_for, "state_dump_task")
            await asyncio.to_thread(until, run.idle)
            async with reader(world.config, **redis) as look:
                for name in ("alpha", "bravo"):
                    state = await look.state(name)
                    canaries.update(look.token(state, state.records[uid]).reveal() for uid in state.credentials)
            shown = {
                "log": run.text,
                "metrics": run.get("/metrics")[1],
                "status": run.get("/status.json")[1],
                "readyz": run.get("/readyz")[1],
                "supervisor": json.dumps([run.sent("STATUS"), run.notified]),
                "process list": process_list(),
            }
            run.send(signal.SIGTERM)
            await asyncio.to_thread(run.end)
            shown["log to the end"] = run.text
    finally:
        secret_redis.kill()

    assert len(canaries) > 6
    found = [(where, secret[:6]) for where, text in shown.items() for secret in canaries if secret in text]
    assert found == []
    assert "PRIVATE KEY" not in "".join(shown.values())
    assert "client-key-data" not in "".join(shown.values())

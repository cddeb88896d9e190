"""What the operator sees: incidents in `status`, one cluster, the past, and as a user with few rights."""

from __future__ import annotations

import json
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from e2e.command import COMMAND, FOREGROUND, Ran, environment, palette_sync
from e2e.daemon import Daemon, ValkeyProcess, daemon, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from e2e.conftest import World


def status(run: Daemon, config: Path, *arguments: str) -> Ran:
    return palette_sync(
        "status", "--config", config, *arguments, PALETTE_SYNC_HTTP__LISTEN=run.url.removeprefix("http://")
    )


def problems(run: Daemon) -> dict[str, dict[str, Any]]:
    """The problems of the daemon by reason."""
    return {one["reason"]: one for one in run.status()["problems"]}


def by_token(world: World) -> str:
    """The uid of a cluster whose access is a token."""
    return world.clusters(oidc=False)[0]


def test_palette_down_a_rejected_configuration_and_a_held_prune_are_told_with_what_to_do(
    world_of: Callable[..., World], redis: dict[str, str]
) -> None:
    world = world_of("--instances", "2", "--clusters", "12")
    with daemon(world.config, **redis, PALETTE_SYNC_DEFAULTS__REFRESH_INTERVAL="2s") as run:
        for name in ("alpha", "bravo"):
            run.wait_for("pass_finished", instance=name)
        until(run.idle)
        well = status(run, world.config)
        assert (well.code, well.out.splitlines()[0].partition(": ")[2]) == (0, "all is well")
        assert status(run, world.config, "--live").out == "live\n"

        for cluster in world.document["instances"][0]["clusters"][:3]:
            world.control("DELETE", f"/clusters/{cluster['uid']}")
        world.control("POST", "/faults", {"target": "palette", "instance": "bravo", "kind": "status", "status": 503})
        until(lambda: problems(run).keys() >= {"PruneHeld", "ListingFailed"})
        whole = world.config.read_text()
        world.config.write_text(whole + "[broken\n")
        assert palette_sync("reload", "--config", world.config, **redis).code == 1, "it reaches the daemon all the same"

        told = status(run, world.config)

        assert told.code == 1
        assert told.out.splitlines()[0].endswith(" problems")
        assert "ConfigRejected since 20" in told.out
        assert "It goes on with the configuration that it read before." in told.out
        assert "run: palette-sync check\n" in told.out
        assert "alpha: PruneHeld" in told.out
        assert "run: palette-sync resync --allow-prune --instance alpha\n" in told.out
        assert "bravo: ListingFailed since 20" in told.out
        assert "HTTP 503" in told.out
        assert "Next at " in told.out
        assert "run: palette-sync check --instance bravo\n" in told.out
        assert status(run, world.config, "--live").code == 0, "a restart would not help"
        assert run.get("/readyz") == (200, "ok\n")
        assert run.metric("palette_sync_config_last_reload_successful") == {"": 0}
        failing = run.metric("palette_sync_scopes_failing")['palette_instance="bravo"']
        assert failing == len(run.status("bravo")["scopes_failing"]) > 1
        assert run.stop() == 0


def test_a_token_that_lapsed_is_told_by_the_name_of_its_cluster(
    world_of: Callable[..., World], redis: dict[str, str]
) -> None:
    world = world_of("--instances", "1", "--clusters", "2")
    world.all_by_token()
    uid = world.clusters()[0]
    world.control("PATCH", f"/clusters/{uid}", {"token_cap": 5})
    assert palette_sync("once", "--config", world.config, **redis).code == 0
    world.control("POST", f"/clusters/{uid}/shut")

    listed = until(lambda: ran if (ran := palette_sync("clusters", "--config", world.config, **redis)).code else None)

    assert "1 failed, 1 ready" in listed.out.splitlines()[0]
    assert "TokenLapsed" in listed.out
    told = palette_sync("status", "--from", "redis", "--config", world.config, "--json", **redis)
    (lapsed,) = (one for one in told.document["problems"] if one["reason"] == "TokenLapsed")
    assert lapsed["text"] == f"the token of 1 cluster has lapsed: {lapsed['clusters'][0]}"
    assert lapsed["command"] == f"palette-sync show {lapsed['clusters'][0]}"
    shown = palette_sync("show", lapsed["clusters"][0], "--config", world.config, **redis)
    assert (shown.code, "failed (TokenLapsed) since" in shown.out) == (1, True)


def test_once_is_not_well_while_a_cluster_waits_for_its_next_attempt(
    world_of: Callable[..., World], redis: dict[str, str]
) -> None:
    world = world_of("--instances", "1", "--clusters", "2")
    world.all_by_token()
    assert palette_sync("once", "--config", world.config, **redis).code == 0
    world.control("POST", f"/clusters/{world.clusters()[0]}/shut")

    first = palette_sync("once", "--resync", "--config", world.config, **redis)
    assert first.code == 1
    again = palette_sync("once", "--config", world.config, "--json", **redis)

    assert again.document["passes"][0]["due"] == 0, "the cluster waits for its next attempt"
    assert again.code == 1, "and is wrong nevertheless"
    (problem,) = again.document["problems"]
    assert problem["reason"] == "Unreachable"
    assert problem["next_at"] > problem["since"]
    name = problem["clusters"][0]
    assert problem["command"] == f"palette-sync show {name}"

    shown = palette_sync("show", name, "--config", world.config, **redis)
    assert "degraded (Unreachable) since" in shown.out
    assert "next try" in shown.out
    assert "ready → degraded" in shown.out
    listed = palette_sync("clusters", "--state", "degraded", "-o", "name", "--config", world.config, **redis)
    assert (listed.out, listed.code) == (f"{name}\n", 0)


def test_redis_lost_is_told_by_the_daemon_and_by_whoever_asks_redis(
    world_of: Callable[..., World], tmp_path: Path
) -> None:
    world = world_of("--instances", "1", "--clusters", "2")
    server = ValkeyProcess(tmp_path / "valkey")
    server.start()
    redis = {"PALETTE_SYNC_REDIS__URL": server.url}
    try:
        with daemon(world.config, **redis, PALETTE_SYNC_SERVICE__LEASE_TTL="2s") as run:
            run.wait_for("pass_finished")
            seen = palette_sync("status", "--from", "redis", "--config", world.config, **redis)
            assert (seen.code, "all is well" in seen.out, "led" in seen.out) == (0, True, True)
            server.kill()
            until(lambda: run.status("alpha").get("state") == "storeless")

            told = status(run, world.config)

            assert told.code == 1
            assert "alpha: StoreUnavailable since 20" in told.out
            assert "Redis cannot be used: " in told.out
            assert "It keeps everything in memory and publishes once Redis is back." in told.out
            until(lambda: run.metric("palette_sync_store_errors_total").get('palette_instance="alpha"', 0) >= 1)
            away = palette_sync("status", "--from", "redis", "--config", world.config, **redis)
            assert away.code == 1
            assert "Redis cannot be used" in away.err
    finally:
        server.kill()


def test_nobody_leads_is_seen_in_redis(world_of: Callable[..., World], redis: dict[str, str]) -> None:
    world = world_of("--instances", "1", "--clusters", "2")
    assert palette_sync("once", "--config", world.config, **redis).code == 0

    told = palette_sync("status", "--from", "redis", "--config", world.config, "--json", **redis)

    assert told.code == 1
    assert [one["reason"] for one in told.document["problems"]] == ["NobodyLeads"]
    assert told.document["instances"]["alpha"]["state"] == "unled"


def two_versions(world: World, redis: dict[str, str], tmp_path: Path) -> tuple[str, tuple[str | Path, ...]]:
    """Publish, change a tag, publish again. Return the changed cluster's uid, and options that find Redis without a
    configuration.
    """
    assert palette_sync("once", "--config", world.config, **redis).code == 0
    uid = by_token(world)
    world.control("PATCH", f"/clusters/{uid}", {"tags": ["new:tag"]})
    assert palette_sync("once", "--config", world.config, **redis).code == 0
    url, prefix = redis["PALETTE_SYNC_REDIS__URL"], redis["PALETTE_SYNC_REDIS__PREFIX"]
    return uid, ("--config", tmp_path / "none.toml", "--redis", url, "--prefix", prefix)


def test_the_past_is_read_without_secrets_and_without_a_configuration(
    world_of: Callable[..., World], redis: dict[str, str], tmp_path: Path
) -> None:
    _, where = two_versions(world_of("--instances", "1", "--clusters", "2"), redis, tmp_path)

    history = palette_sync("history", "--since", "1h", *where)
    assert history.code == 0, history.err
    assert "unverified: no seal key" in history.err
    assert history.out.count("published") == 2
    assert "palette.tags" in history.out
    newest = json.loads(palette_sync("history", *where, "--json", "--limit", "1").out)[0]
    assert newest["changed"]["palette.tags"][1] == ["new:tag"]

    differs = palette_sync("diff", str(newest["version"] - 1), str(newest["version"]), *where)
    assert f"~ {newest['name']}" in differs.out
    assert 'palette.tags: ["' in differs.out
    assert "2 clusters" in palette_sync("at", str(newest["version"] - 1), *where).out
    beyond = palette_sync("at", "999", *where)
    assert (beyond.code, "there is no version 999" in beyond.err) == (1, True)


def test_clusters_are_found_without_secrets_and_without_a_configuration(
    world_of: Callable[..., World], redis: dict[str, str], tmp_path: Path
) -> None:
    uid, where = two_versions(world_of("--instances", "1", "--clusters", "2"), redis, tmp_path)

    found = palette_sync("clusters", "--tag", "new:*", *where, "--json").document["alpha"]
    assert [one["uid"] for one in found["clusters"]] == [uid]
    assert found["trusted"] is None, "not verified is not trusted"
    token = found["clusters"][0]["now"]["token"]
    assert token["expires_at"] > token["renew_at"] > token["issued_at"]

    unknown = palette_sync("show", "alpha-nobody", *where)
    assert (unknown.code, "no published cluster" in unknown.err) == (1, True)
    assert palette_sync("history", "alpha-nobody", *where).code == 1
    assert palette_sync("show", uid, *where, "--json").document[0]["history"][0]["details"] == "palette.tags"


@pytest.mark.parametrize("command", ["status", "clusters", "history", "events"])
def test_without_any_place_to_look_the_missing_file_is_named(command: str, tmp_path: Path) -> None:
    nowhere = palette_sync(command, "--config", tmp_path / "none.toml")

    assert nowhere.code == 78, nowhere.out
    assert "there is no such file" in nowhere.err


def test_changes_are_followed_until_interrupted(world_of: Callable[..., World], redis: dict[str, str]) -> None:
    world = world_of("--instances", "1", "--clusters", "2")
    assert palette_sync("once", "--config", world.config, **redis).code == 0
    with subprocess.Popen(
        [*FOREGROUND, COMMAND, "events", "--follow", "--json", "--config", world.config],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(**redis),
    ) as process:
        assert process.stdout is not None
        assert {json.loads(process.stdout.readline())["what"] for _ in range(2)} == {"published"}
        world.control("PATCH", f"/clusters/{by_token(world)}", {"tags": ["new:tag"]})
        assert palette_sync("once", "--config", world.config, **redis).code == 0

        event = json.loads(process.stdout.readline())

        assert (event["what"], event["details"]) == ("changed", "palette.tags")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=40)


def test_the_status_is_watched(world_of: Callable[..., World], redis: dict[str, str]) -> None:
    world = world_of("--instances", "1", "--clusters", "1")
    assert palette_sync("once", "--config", world.config, **redis).code == 0
    arguments = ("status", "--from", "redis", "--watch", "--interval", "100ms", "--config", world.config)
    with subprocess.Popen(
        [*FOREGROUND, COMMAND, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(**redis),
    ) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        again = next(line for line in process.stdout if line == first)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=40)

    assert "palette-sync, as Redis has it: 1 problem" in again


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("status", "--from", "nowhere"), "neither daemon nor redis"),
        (("status", "--url", "host:1"), "http://"),
        (("status", "--watch", "--interval", "soon"), "is not a duration"),
        (("clusters", "--state", "fine"), "is not one of"),
        (("clusters", "--sort", "size"), "is not one of"),
        (("clusters", "-o", "xml"), "is not one of"),
        (("history", "--since", "soon"), "is not a duration"),
        (("reload", "--wait", "soon"), "is not a duration"),
    ],
)
def test_wrong_arguments_end_with_2(arguments: tuple[str, ...], words: str) -> None:
    ran = palette_sync(*arguments, COLUMNS="300")

    assert ran.code == 2
    assert words in ran.err

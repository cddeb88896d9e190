"""The page of running daemons: the one that leads, the one that stands by, and what happens while Redis is away."""

from __future__ import annotations

import html
import re
import signal
import urllib.request
from typing import TYPE_CHECKING

from e2e.daemon import Daemon, ValkeyProcess, daemon, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from e2e.conftest import World


def text(run: Daemon, path: str = "/") -> str:
    """The words of a page."""
    status, found = run.get(path)
    assert status == 200, found
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", found)).split())


def test_the_leader_and_the_standby_show_what_is_wrong_and_one_cluster(
    world_of: Callable[..., World], redis: dict[str, str]
) -> None:
    world = world_of("--instances", "1", "--clusters", "8")
    world.all_by_token()
    lost, kept = [cluster["uid"] for cluster in world.document["instances"][0]["clusters"]][:5], world.clusters()[-1]
    with daemon(world.config, **redis, PALETTE_SYNC_DEFAULTS__REFRESH_INTERVAL="1s") as leader:
        leader.wait_for("pass_finished", instance="alpha")
        until(leader.idle)
        assert "Nothing is wrong" in text(leader)
        assert "8 ready" in text(leader)

        for uid in lost:
            world.control("DELETE", f"/clusters/{uid}")
        until(lambda: leader.status("alpha").get("prune_held"))
        with daemon(world.config, **redis) as standby:
            standby.wait_for("standing_by", instance="alpha")
            for run in (leader, standby):
                words = text(run)
                assert "Something is wrong" in words
                assert "Palette no longer lists 5 clusters" in words
                assert "palette-sync resync --allow-prune --instance alpha" in words
                assert "8 ready" in words
            words = text(standby)
            assert "Another process leads; this is what Redis holds." in words
            assert f"held by process {leader.process.pid} " in words

            for run in (leader, standby):
                words = text(run, f"/clusters/alpha/{kept}")
                assert "ServiceAccount backstage-sa" in words
                assert "the token is renewed" in words
                assert "published Verified" in words


def test_what_happened_survives_a_restart_and_a_standby_shows_it(
    world_of: Callable[..., World], redis: dict[str, str]
) -> None:
    world = world_of("--instances", "1", "--clusters", "3")
    world.all_by_token()
    with daemon(world.config, **redis) as first:
        first.wait_for("pass_finished", instance="alpha")
        until(first.idle)
        first.send(signal.SIGUSR1)
        first.wait_for("pass_finished", count=2, instance="alpha")
        until(first.idle)
        assert first.stop() == 0
    with daemon(world.config, **redis) as leader:
        leader.wait_for("pass_finished", instance="alpha")
        with daemon(world.config, **redis) as standby:
            standby.wait_for("standing_by", instance="alpha")
            for run in (leader, standby):
                words = text(run, "/timeline")
                assert "); 3 published; " in words
                assert "resync asked by SIGUSR1" in words
                assert "published Verified" in words, "the changes of clusters, with their reason"


def test_the_configuration_in_force_is_shown_without_secrets(
    world_of: Callable[..., World], redis: dict[str, str]
) -> None:
    world = world_of("--instances", "1", "--clusters", "1")
    secrets = [line for line in world.config.with_name("seal.keys").read_text().split() if len(line) > 20]
    with daemon(world.config, **redis, PALETTE_SYNC_INSTANCES__ALPHA__TITLE="by variable") as run:
        run.wait_for("pass_finished", instance="alpha")
        words = text(run, "/configuration")
        assert f"file {world.config} " in words
        assert "title by variable variable PALETTE_SYNC_INSTANCES__ALPHA__TITLE" in words
        assert "keys ******** " in words
        assert not [one for one in secrets if one in words]

        world.config.write_text(world.config.read_text() + "\nnonsense = 1\n")
        run.send(signal.SIGHUP)
        run.wait_for("config_rejected")
        words = text(run, "/configuration")
        assert "A newer configuration was rejected" in words
        assert "nonsense" in words
        assert "title by variable variable" in words


def test_while_redis_is_away_the_page_shows_what_is_known(world_of: Callable[..., World], tmp_path: Path) -> None:
    world = world_of("--instances", "1", "--clusters", "3")
    valkey = ValkeyProcess(tmp_path / "valkey")
    valkey.start()
    uid = world.clusters()[0]
    with daemon(world.config, PALETTE_SYNC_REDIS__URL=valkey.url) as run:
        run.wait_for("pass_finished", instance="alpha")
        until(run.idle)
        valkey.kill()
        until(lambda: run.status("alpha").get("state") == "storeless")

        words = text(run)
        assert "Redis cannot be used" in words
        assert "palette-sync check" in words
        assert "3 ready" in words
        assert "Redis does not answer, so the history is unknown." in text(run, f"/clusters/alpha/{uid}")


def test_who_has_the_token_starts_a_resync_through_the_page(
    world_of: Callable[..., World], redis: dict[str, str], tmp_path: Path
) -> None:
    world = world_of("--instances", "1", "--clusters", "3")
    token = tmp_path / "page-token"
    token.write_text("canary-token-of-the-page\n")
    token.chmod(0o600)
    with daemon(world.config, **redis, PALETTE_SYNC_HTTP__TOKEN_FILE=str(token)) as run:
        run.wait_for("pass_finished", instance="alpha")
        until(run.idle)
        assert run.get("/")[0] == 401

        url = f"{run.url}/instances/alpha/resync"
        headers = {"Authorization": f"Bearer {token.read_text().strip()}"}
        with urllib.request.urlopen(urllib.request.Request(url, b"", headers)):
            run.wait_for("request_received", instance="alpha", by="page", allow_prune=False)
        assert run.wait_for("pass_finished", count=2, instance="alpha")["due"] == 3
        assert "canary-token" not in run.text

"""The commands that act on one cluster: resync, rotate, pause, resume, kubeconfig; with a daemon that answers."""

from __future__ import annotations

import json
import stat
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from e2e.command import palette_sync
from e2e.daemon import daemon

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from e2e.command import Ran
    from e2e.conftest import World


def test_one_cluster_is_looked_at_rotated_paused_and_resumed(
    world_of: Callable[..., World], redis: dict[str, str]
) -> None:
    world = world_of("--instances", "2", "--clusters", "4")
    world.all_by_token()
    uid = world.document["instances"][0]["clusters"][0]["uid"]
    with daemon(world.config, **redis) as run:
        for name in ("alpha", "bravo"):
            run.wait_for("pass_finished", instance=name)

        def asked(*arguments: str) -> Ran:
            return palette_sync(*arguments, "--config", world.config, **redis)

        (row,) = asked("show", uid, "--json").document
        name = row["name"]

        looked = asked("resync", f"alpha/{name}")
        assert (looked.code, looked.out) == (0, f"alpha: {name}: ready (Verified); nothing changed; version 2\n")

        before = world.issued()
        rotated = asked("rotate", name, "--revoke", "--json")
        assert rotated.code == 0, rotated.out
        document = rotated.document
        assert (document["ok"], document["uid"], document["instance"]) == (True, uid, "alpha")
        assert document["text"].endswith("the former one is revoked")
        assert {one: count for one, count in world.issued().items() if count != before[one]} == {uid: before[uid] + 1}

        paused = asked("pause", uid, "--for", "2h", "--reason", "it moves")
        assert paused.code == 0, paused.out
        assert "paused by " in paused.out
        writes = world.writes()[uid]
        assert run.metric("palette_sync_clusters_paused")['palette_instance="alpha"'] == 1
        assert run.status("alpha")["paused"] == 1
        seen = {
            "status": asked("status", "--url", run.url).out,
            "status --from redis": asked("status", "--from", "redis").out,
            "clusters": asked("clusters", "--paused").out,
            "show": asked("show", name).out,
            "history": asked("history", name).out,
            "page": run.get(f"/clusters/alpha/{uid}")[1],
        }
        assert {what: "it moves" in text for what, text in seen.items()} == dict.fromkeys(seen, True)
        assert f"run: palette-sync resume {name}\n" in seen["status"]
        assert asked("clusters", "--paused", "-o", "name").out == f"{name}\n"
        refused = asked("rotate", name)
        assert (refused.code, "palette-sync resume" in refused.out) == (1, True)
        assert asked("resync", "--instance", "alpha").code == 0
        assert world.writes()[uid] == writes

        resumed = asked("resume", name)
        assert (resumed.code, "resumed; ready (Verified)" in resumed.out) == (0, True)
        assert asked("clusters", "--paused", "-o", "name").out == ""
        assert run.stop() == 0


def test_a_name_that_fits_none_or_several_is_answered_with_what_is_near(
    world_of: Callable[..., World], redis: dict[str, str]
) -> None:
    world = world_of("--instances", "1", "--clusters", "2")
    assert palette_sync("once", "--config", world.config, **redis).code == 0
    listed = palette_sync("clusters", "-o", "json", "--config", world.config, **redis).document
    one = listed["alpha"]["clusters"][0]

    for command in (("resync",), ("rotate",), ("resume",), ("pause", "--reason", "r"), ("kubeconfig",)):
        ran = palette_sync(*command, f"{one['name']}x", "--config", world.config, **redis)
        assert (ran.code, ran.out) == (1, "")
        assert "unknown cluster" in ran.err
        assert one["name"] in ran.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("pause", "c"),
        ("pause", "c", "--reason", " "),
        ("pause", "c", "--reason", "r", "--for", "soon"),
        ("pause", "c", "--reason", "r", "--for", "0s"),
        ("pause", "c", "--reason", "r", "--for", "400d"),
        ("rotate", "c", "--wait", "soon"),
        ("resync", "c", "--allow-prune"),
        ("kubeconfig", "c", "--output", "-", "--json"),
    ],
)
def test_wrong_arguments_end_with_2(arguments: tuple[str, ...]) -> None:
    assert palette_sync(*arguments).code == 2


def test_no_daemon_and_no_seal_key_are_reported(world_of: Callable[..., World], redis: dict[str, str]) -> None:
    world = world_of("--instances", "1", "--clusters", "1")
    assert palette_sync("once", "--config", world.config, **redis).code == 0
    (name,) = palette_sync("clusters", "-o", "name", "--config", world.config, **redis).out.split()

    alone = palette_sync("pause", name, "--reason", "r", "--wait", "1s", "--config", world.config, **redis)
    assert (alone.code, "no daemon answered" in alone.out) == (1, True)
    url, prefix = redis["PALETTE_SYNC_REDIS__URL"], redis["PALETTE_SYNC_REDIS__PREFIX"]
    for command in (("rotate", name), ("kubeconfig", name)):
        ran = palette_sync(*command, "--redis", url, "--prefix", prefix, "--config", world.config.with_name("none"))
        assert (ran.code, "no seal key" in ran.err) == (78, True)
        assert "`palette-sync check` shows what is wrong" in ran.err, "the file may have keys, and not be valid"


def test_a_kubeconfig_is_written_once_for_its_owner_and_works(
    world_of: Callable[..., World], redis: dict[str, str], tmp_path: Path
) -> None:
    world = world_of("--instances", "1", "--clusters", "2")
    world.all_by_token()
    assert palette_sync("once", "--config", world.config, **redis).code == 0
    uid = world.clusters()[1]
    (row,) = palette_sync("show", uid, "--json", "--config", world.config, **redis).document
    file = tmp_path / "it.kubeconfig"

    def written(*arguments: str | Path) -> Ran:
        return palette_sync("kubeconfig", uid, *arguments, "--config", world.config, **redis)

    ran = written("--output", file)
    assert (ran.code, ran.out) == (0, "")
    assert "holds the token of" in ran.err
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    document: dict[str, Any] = yaml.load(file.read_text(), Loader=yaml.CSafeLoader)
    token = document["users"][0]["user"]["token"]
    assert document["clusters"][0]["cluster"]["server"] == row["server"]["url"]
    assert token not in ran.err

    before = file.read_text()
    again = written("--output", file)
    assert (again.code, "File exists" in again.err) == (1, True)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    assert written("--output", tmp_path / "link").code == 1
    assert not (tmp_path / "elsewhere").exists()
    assert file.read_text() == before

    printed = written("--output", "-")
    assert yaml.load(printed.out, Loader=yaml.CSafeLoader) == document
    assert "standard output holds the token" in printed.err
    with_json = written("--output", tmp_path / "other", "--json")
    assert json.loads(with_json.out)["file"] == str(tmp_path / "other")
    assert token not in with_json.out

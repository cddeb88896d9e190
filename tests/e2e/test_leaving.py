"""`release` and `forget` as commands: what they print, their exit codes, and what is left in Redis."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis

from e2e.command import palette_sync
from e2e.daemon import daemon

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from e2e.conftest import World


@pytest.fixture
def world(world_of: Callable[..., World], redis: dict[str, str]) -> World:
    made = world_of("--instances", "2", "--projects", "2", "--clusters", "4")
    made.all_by_token()
    assert palette_sync("once", "--config", made.config, **redis).code == 0
    return made


@pytest.fixture
def connection(valkey_url: str) -> Iterator[Any]:
    with Redis.from_url(valkey_url) as client:
        yield client


def keys(connection: Any, redis: dict[str, str], instance: str) -> set[bytes]:
    return set(connection.keys(f"{{{redis['PALETTE_SYNC_REDIS__PREFIX']}:{instance}}}:*"))


def clusters_of(world: World, instance: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = next(one for one in world.document["instances"] if one["name"] == instance)[
        "clusters"
    ]
    return found


def managed(world: World, uid: str) -> list[str]:
    """The objects of a cluster that carry our default names."""
    kinds = ("Namespace", "ServiceAccount", "Secret", "ClusterRole", "ClusterRoleBinding")
    found = [world.control("GET", f"/clusters/{uid}/kube/{kind}") for kind in kinds]
    return [name for names in found for listed in names.values() for name in listed if name.startswith("backstage-")]


def test_one_instance_is_left_and_forgotten(world: World, redis: dict[str, str], connection: Any) -> None:
    uids = [one["uid"] for one in clusters_of(world, "alpha")]
    for uid in uids:
        world.control("PATCH", f"/clusters/{uid}", {"termination_delay": 0})
    others = {one["uid"]: managed(world, one["uid"]) for one in clusters_of(world, "bravo")}

    shown = palette_sync("release", "--config", world.config, "--instance", "alpha", **redis)
    assert shown.code == 0, shown.err
    assert shown.out.count("delete Secret backstage-sa-token: palette-sync made it") == len(uids)
    assert "Nothing was changed." in shown.out
    assert all(managed(world, uid) for uid in uids)

    done = palette_sync("release", "--config", world.config, "--instance", "alpha", "--yes", "--json", **redis)
    assert done.code == 0, done.err
    assert {one["uid"] for one in done.document["instances"]["alpha"]} == set(uids)
    assert all(managed(world, uid) == [] for uid in uids)
    assert {uid: managed(world, uid) for uid in others} == others
    again = palette_sync("release", "--config", world.config, "--instance", "alpha", **redis)
    assert "No cluster is published." in again.out

    refused = palette_sync("forget", "alpha", "--config", world.config, "--yes", **redis)
    assert refused.code == 1
    assert "is in the configuration" in refused.err
    text = world.config.read_text()
    former = world.config.with_name("bravo.toml")
    former.write_text(text[text.index("[instances.bravo]") :])

    assert "Nothing was deleted." in palette_sync("forget", "alpha", "--config", former, **redis).out
    assert keys(connection, redis, "alpha")
    forgotten = palette_sync("forget", "alpha", "--config", former, "--yes", **redis)
    assert forgotten.code == 0, forgotten.err
    assert keys(connection, redis, "alpha") == set()
    assert connection.smembers(f"{redis['PALETTE_SYNC_REDIS__PREFIX']}:instances") == {b"bravo"}
    assert keys(connection, redis, "bravo")


def test_an_instance_that_was_not_left_is_forgotten_with_a_remark(
    world: World, redis: dict[str, str], connection: Any
) -> None:
    text = world.config.read_text()
    former = world.config.with_name("bravo.toml")
    former.write_text(text[text.index("[instances.bravo]") :])

    ran = palette_sync("forget", "alpha", "--config", former, "--yes", "--json", **redis)
    again = palette_sync("forget", "alpha", "--config", former, "--yes", **redis)
    left = palette_sync("forget", "bravo", "--config", world.config.with_name("absent.toml"), "--yes", **redis)

    number = len(clusters_of(world, "alpha"))
    assert ran.document == {"instance": "alpha", "clusters": number, "tokens": number, "deleted": True}
    assert keys(connection, redis, "alpha") == set()
    assert (again.code, left.code) == (1, 1)
    assert "is not published; published are bravo" in again.err
    assert "correct --config" in left.err


def test_a_cluster_is_named_and_an_unknown_one_refused(world: World, redis: dict[str, str]) -> None:
    (one, other) = clusters_of(world, "alpha")[:2]
    name = f"alpha-{one['name']}"

    unknown = palette_sync("release", "--config", world.config, "--cluster", "nobody", "--yes", **redis)
    world.control("POST", "/faults", {"target": "kube", "kind": "drop", "cluster": other["uid"]})
    failed = palette_sync("release", "--config", world.config, "--cluster", other["uid"], "--yes", **redis)
    named = palette_sync("release", "--config", world.config, "--cluster", name, "--yes", **redis)

    assert unknown.code == failed.code == 1
    assert "nobody: no published or listed cluster has this name or uid" in unknown.err
    assert "the records of these clusters stay" in failed.err
    assert named.code == 0, named.err
    assert f"alpha: {name}" in named.out
    assert managed(world, one["uid"]) in ([], ["backstage-system"]), "the namespace may still be ending"


def test_an_instance_that_is_not_configured_any_more_is_left_with_its_address_and_key(
    world: World, redis: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = world.config.read_text()
    former = world.config.with_name("bravo.toml")
    former.write_text(text[text.index("[instances.bravo]") :])
    alpha = tomllib.loads(text)["instances"]["alpha"]
    key = world.config.parent / alpha["api_key_file"]
    uids = [one["uid"] for one in clusters_of(world, "alpha")]
    for uid in uids:
        world.control("PATCH", f"/clusters/{uid}", {"termination_delay": 0})
    flags = ("--config", former, "--instance", "alpha", "--url", alpha["url"], "--api-key-file", key)
    trust = {"PALETTE_SYNC_INSTANCES__ALPHA__CA_FILE": str(alpha["ca_file"])} if "ca_file" in alpha else {}

    missing = palette_sync("release", "--config", former, "--instance", "alpha", **redis)
    half = palette_sync("release", *flags[:-2], **redis)
    unnamed = palette_sync("release", "--config", former, *flags[4:], **redis)
    here = tmp_path / "here"
    here.mkdir()
    (here / "key").write_text(key.read_text())
    monkeypatch.chdir(here)  # a file on the command line is relative to the working directory
    done = palette_sync("release", *flags[:-1], "key", "--yes", **redis, **trust)

    assert "not in the configuration" in missing.err
    assert f"Left {len(uids)} clusters; " in done.out
    assert (half.code, unnamed.code) == (2, 2)
    assert done.code == 0, done.err
    assert all(managed(world, uid) == [] for uid in uids)
    assert key.read_text().strip() not in done.out + done.err


def test_a_cluster_that_is_not_published_any_more_is_left_beside_a_daemon(world: World, redis: dict[str, str]) -> None:
    one = clusters_of(world, "alpha")[0]
    world.control("PATCH", f"/clusters/{one['uid']}", {"termination_delay": 0})
    world.control("POST", "/faults", {"target": "kube", "kind": "drop", "cluster": one["uid"]})
    excluding = {"PALETTE_SYNC_DEFAULTS__EXCLUDE_PROJECTS": f'["{one["project"]}"]'}
    assert palette_sync("once", "--config", world.config, **redis, **excluding).code == 0
    assert managed(world, one["uid"])
    world.control("DELETE", "/faults")

    with daemon(world.config, **redis, **excluding) as run:
        run.wait_for("pass_finished", instance="alpha")
        shown = palette_sync("release", "--config", world.config, "--unpublished", **redis, **excluding)
        done = palette_sync(
            *("release", "--config", world.config, "--cluster", one["name"], "--yes", "--json"), **redis, **excluding
        )

    assert shown.code == 0, shown.err
    assert f"alpha: {one['name']}\n  delete Secret backstage-sa-token" in shown.out
    assert done.code == 0, done.err
    (left,) = done.document["instances"]["alpha"]
    assert (left["uid"], left["published"], left["error"]) == (one["uid"], False, "")
    assert managed(world, one["uid"]) == []

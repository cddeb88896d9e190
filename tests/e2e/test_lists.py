"""The forms of lists, and the completion of names in a shell."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest
import yaml
from redis import Redis

from e2e.command import COMMAND, environment, palette_sync

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from e2e.conftest import World


def complete(words: str, **variables: str) -> list[str]:
    """What bash would offer for the last word."""
    given = {"_PALETTE_SYNC_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    done = subprocess.run(
        [COMMAND], capture_output=True, text=True, timeout=50, check=True, env=environment(**(given | variables))
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_every_list_has_every_form(world_of: Callable[..., World], redis: dict[str, str]) -> None:
    world = world_of("--instances", "1", "--clusters", "3")
    where = ("--config", world.config)
    assert palette_sync("once", *where, **redis).code == 0
    names = set(palette_sync("clusters", "-o", "name", *where, **redis).out.split())
    assert len(names) == 3
    newest = str(palette_sync("clusters", *where, "--json", **redis).document["alpha"]["version"])

    for command in (("clusters",), ("history",), ("events",), ("at", newest), ("diff", newest, newest)):
        by_json = palette_sync(*command, *where, "-o", "json", **redis)
        by_yaml = palette_sync(*command, *where, "-o", "yaml", **redis)
        by_name = palette_sync(*command, *where, "-o", "name", **redis)
        wide = palette_sync(*command, *where, "-o", "wide", **redis)
        assert {by_json.code, by_yaml.code, by_name.code, wide.code} == {0}, command
        lines = [json.loads(line) for line in by_json.out.splitlines()] if command == ("events",) else by_json.document
        assert yaml.load(by_yaml.out, yaml.CSafeLoader) == json.loads(json.dumps(lines)), command
        assert set(by_name.out.split()) == (set() if command[0] == "diff" else names), command
        assert command[0] == "diff" or all(uid in wide.out for uid in world.clusters()), command


def test_names_are_completed_from_redis(world_of: Callable[..., World], redis: dict[str, str]) -> None:
    world = world_of("--instances", "2", "--clusters", "4")
    assert palette_sync("once", "--config", world.config, **redis).code == 0
    names = palette_sync("clusters", "-o", "name", "--config", world.config, **redis).out.split()
    found = {"PALETTE_SYNC_CONFIG": str(world.config), **redis}

    assert complete("palette-sync show ", **found) == sorted(names)
    assert complete("palette-sync show alpha-", **found) == sorted(one for one in names if one.startswith("alpha-"))
    assert complete("palette-sync clusters --instance b", **found) == ["bravo"]
    assert complete(f"palette-sync history --config {world.config} bravo", **redis) == sorted(
        one for one in names if one.startswith("bravo")
    )


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_no_name_that_a_shell_could_run_is_completed(redis: dict[str, str], tmp_path: Path, shell: str) -> None:
    """Completion verifies no record, so whoever can write to Redis chooses the names."""
    url = redis["PALETTE_SYNC_REDIS__URL"]
    hostile = [
        "a$(id)",
        "a`id`",
        "a\\$(id)",
        "a;id",
        "a'id'",
        'a"id"',
        "a b",
        "a\nb",
        "-a",
        "--yes",
        "a|id",
        "a\u202eb",
    ]
    records = {str(number): json.dumps({"name": name}) for number, name in enumerate(["a-good.one_1", *hostile])}
    with Redis.from_url(url) as client:
        prefix = redis.get("PALETTE_SYNC_REDIS__PREFIX", "palette-sync")
        client.sadd(f"{prefix}:instances", "alpha")
        client.hset(f"{{{prefix}:alpha}}:clusters", mapping=records)
    words = f"palette-sync show --config {tmp_path / 'config.toml'} "
    asked = {"_PALETTE_SYNC_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": words}

    found = complete(words, **redis, **asked)

    expected = {"bash": "a-good.one_1", "zsh": "_arguments '*: :((\"a-good.one_1\"))'"}
    assert " ".join(found) == expected[shell]


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "embedded://", "nonsense"])
def test_without_a_redis_nothing_is_completed_and_nothing_is_said(tmp_path: Path, url: str) -> None:
    config = tmp_path / "config.toml"

    assert complete(f"palette-sync show --config {config} x", PALETTE_SYNC_REDIS__URL=url) == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_there_is_a_completion_for(shell: str) -> None:
    shown = palette_sync(_PALETTE_SYNC_COMPLETE=f"source_{shell}")

    assert "palette-sync" in shown.out
    assert f"complete_{shell}" in shown.out

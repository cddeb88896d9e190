"""Commands on terminals of 80 and 160 columns, and without colour: what is to be copied is not broken or cut off."""

from __future__ import annotations

import json
import re
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from e2e.command import palette_sync, simulation
from e2e.terminal import on_terminal, shown

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOOKS = [
    pytest.param(80, {}, id="80 columns"),
    pytest.param(160, {}, id="160 columns"),
    pytest.param(80, {"NO_COLOR": "1"}, id="NO_COLOR"),
    pytest.param(80, {"TERM": "dumb"}, id="a dumb terminal"),
]
COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-9]")


@dataclass(frozen=True)
class Published:
    """A published world in which one cluster is unreachable. `names`: of all clusters; `lost`: of that one."""

    where: tuple[str | Path, ...]
    redis: dict[str, str]
    names: list[str]
    lost: str
    version: int


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, valkey_url: str) -> Iterator[Published]:
    folder = tmp_path_factory.mktemp("a-folder-whose-name-is-longer-than-any-that-somebody-would-type")
    redis = {"PALETTE_SYNC_REDIS__URL": valkey_url, "PALETTE_SYNC_REDIS__PREFIX": f"terminals-{folder.name[-1]}"}
    with simulation(folder, "--instances", "1", "--clusters", "4") as document:
        where = ("--config", folder / "config.toml")
        assert palette_sync("once", *where, **redis).code == 0
        uid = next(one["uid"] for one in document["instances"][0]["clusters"] if not one["oidc"])
        request = urllib.request.Request(f"{document['control_url']}/clusters/{uid}/shut", method="POST", data=b"")
        urllib.request.urlopen(request, timeout=10).close()
        assert palette_sync("once", "--resync", *where, **redis).code == 1
        listed: dict[str, Any] = palette_sync("clusters", *where, "--json", **redis).document["alpha"]
        yield Published(
            where,
            redis,
            [one["name"] for one in listed["clusters"]],
            next(one["name"] for one in listed["clusters"] if one["uid"] == uid),
            listed["version"],
        )


@pytest.mark.parametrize(
    "command",
    [
        ("clusters", "-o", "wide"),
        ("history",),
        ("history", "-o", "wide"),
        ("events",),
        ("at", "VERSION"),
        ("once", "--resync"),
        ("plan", "--resync"),
        ("release",),
    ],
    ids=" ".join,
)
def test_a_list_shows_whole_names_on_80_columns(published: Published, command: tuple[str, ...]) -> None:
    assert_names_are_whole(published, command, columns=80, look={})


@pytest.mark.parametrize(("columns", "look"), LOOKS)
def test_the_clusters_are_shown_with_whole_names(published: Published, columns: int, look: dict[str, str]) -> None:
    assert_names_are_whole(published, ("clusters",), columns=columns, look=look)


def assert_names_are_whole(
    published: Published, command: tuple[str, ...], *, columns: int, look: dict[str, str]
) -> None:
    words = [str(published.version) if word == "VERSION" else word for word in command]

    terminal = shown([*words, *published.where], columns=columns, **published.redis, **look)

    named = [name for name in published.names if name in terminal.text]
    expected = [published.lost] if command[0] in {"once", "plan"} else published.names
    assert set(named) >= set(expected), terminal.text
    assert "…" not in terminal.text
    assert not (look and COLOUR.search(terminal.raw))


@pytest.mark.parametrize(("columns", "look"), LOOKS)
def test_the_status_and_the_check_show_whole_commands(published: Published, columns: int, look: dict[str, str]) -> None:
    status = ("status", "--from", "redis", *published.where)
    problems = palette_sync(*status, "--json", **published.redis).document["problems"]

    terminal = shown(status, columns=columns, **published.redis, **look)
    checked = shown(("check", *published.where), columns=columns, **published.redis, **look)

    commands = [one["command"] for one in problems if one.get("command")]
    assert f"palette-sync show {published.lost}" in commands
    for command in commands:
        assert f"  run: {command}" in terminal.lines
    assert any(line.endswith(f"palette-sync plan --config {published.where[1]}") for line in checked.lines)
    for line in [*terminal.lines, *checked.lines]:
        assert line.count("`") % 2 == 0, "a command in a sentence is broken over lines"


@pytest.mark.parametrize("columns", [80, 160])
def test_one_cluster_and_the_configuration_show_whole_urls_and_paths(published: Published, columns: int) -> None:
    known = palette_sync("show", published.lost, *published.where, "--json", **published.redis).document[0]

    one = shown(("show", published.lost, *published.where), columns=columns, **published.redis)
    configuration = shown(("config", "show", *published.where), columns=columns, **published.redis)

    for copied in (known["server"]["url"], known["uid"], known["name"]):
        assert copied in one.text
    assert f"# {published.where[1]}:" in configuration.text
    assert f"read from {published.where[1]}".removesuffix("config.toml") in configuration.text
    assert f'prefix = "{published.redis["PALETTE_SYNC_REDIS__PREFIX"]}"' in configuration.text


def test_the_commands_that_the_demo_prints_at_its_end_can_be_copied_and_run(tmp_path: Path) -> None:
    with on_terminal("demo", "--keep", columns=80, folder=tmp_path) as terminal:
        terminal.wait_for("the simulator's control API", within=150)
        lines = terminal.text.partition("still running")[2].splitlines()
        commands = [line.strip() for line in lines if " --config " in line]
        assert len(commands) == 3, terminal.text
        config = commands[0].partition(" --config ")[2]
        listed = palette_sync("clusters", "--config", config, "--json")
        assert json.loads(listed.out).keys() == {"alpha", "bravo"}
        (control,) = (line for line in lines if "curl -s http" in line)
        assert control.strip().endswith("# the simulator's control API")
        terminal.interrupt()
        assert terminal.end() == 0, terminal.text
    for line in terminal.lines:
        assert line.count("`") % 2 == 0, line

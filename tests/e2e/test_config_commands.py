"""`config init`, `config show` and `config example`, as a new user runs them."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from e2e.command import COMMAND, Ran, environment, palette_sync
from e2e.terminal import on_terminal
from palette_sync.config import load

if TYPE_CHECKING:
    from pathlib import Path

URL = "https://palette.example"


def config(folder: Path, *arguments: str, **variables: str) -> Ran:
    done = subprocess.run(
        [COMMAND, "config", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
        stdin=subprocess.DEVNULL,
        env=environment(**variables),
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def mode(file: Path) -> int:
    return file.stat().st_mode & 0o777


def test_init_takes_options_writes_a_configuration_and_names_what_is_left_to_do(tmp_path: Path) -> None:
    ran = config(tmp_path, "init", "--url", URL, "--instance", "lab", "--mode", "auto")

    assert ran.code == 0, ran.err
    assert sorted(one.name for one in tmp_path.iterdir()) == ["config.toml", "seal.keys"]
    assert mode(tmp_path / "seal.keys") == 0o600
    assert "umask 077; cat > lab.api-key" in ran.out
    assert ran.out.splitlines()[-1].endswith("palette-sync check --config config.toml")
    (tmp_path / "lab.api-key").write_text("some-key-1")
    settings = load(tmp_path / "config.toml", environ={})
    assert (settings.instances["lab"].url, settings.instances["lab"].auth.mode) == (URL, "auto")


def test_init_overwrites_nothing(tmp_path: Path) -> None:
    assert config(tmp_path, "init", "--url", URL).code == 0
    before = {one: one.read_bytes() for one in tmp_path.iterdir()}

    again = config(tmp_path, "init", "--url", URL)
    beside = config(tmp_path, "init", "--url", URL, "--out", "other.toml", "--seal-keys-file", "seal.keys")

    assert again.code == 1
    assert "config.toml: exists already" in again.err
    assert "seal.keys: exists already; use it with --seal-keys-file seal.keys" in again.err
    assert beside.code == 0
    assert 'keys_file = "seal.keys"' in (tmp_path / "other.toml").read_text()
    assert {one: one.read_bytes() for one in before} == before


def test_init_leaves_nothing_behind_if_it_cannot_write(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    ran = config(tmp_path, "init", "--url", URL, "--out", "file/config.toml", "--seal-keys-file", "seal.keys")

    assert ran.code == 1
    assert "the configuration cannot be written" in ran.err
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "--url is missing; there is no terminal to ask on"),
        (("--url", "http://x"), "--url: must be"),
        (("--url", URL, "--mode", "magic"), "--mode: must be"),
        (("--url", URL, "--instance", "A"), "--instance: is not an instance name"),
        (("--url", URL, "--redis-url", "redis://:hush@x"), "--redis-url: holds a password"),
        (("--url", URL, "--redis-url", "redis://x/0?password=hush"), "--redis-url: holds a password"),
    ],
)
def test_init_refuses_wrong_options_and_writes_nothing(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    ran = config(tmp_path, "init", *arguments)

    assert ran.code == 2
    assert words in ran.err
    assert "hush" not in ran.err
    assert list(tmp_path.iterdir()) == []


def test_init_asks_on_a_terminal_and_shows_no_secret(tmp_path: Path) -> None:
    with on_terminal("config", "init", folder=tmp_path) as terminal:
        for question, answer in (
            ("A name for the Palette instance", "Prod"),
            ("is not an instance name", "prod"),
            ("The URL of Palette's API", URL),
            ("Its API key (hidden", "canary-key-1"),
            ("Access to clusters", ""),
            ("The URL of Redis", "redis://user:word@cache:6379/1"),
        ):
            terminal.wait_for(question)
            if "hidden" in question:
                terminal.wait_until_hidden()
            terminal.send(answer)
        assert terminal.end() == 0, terminal.text

    assert "canary-key-1" not in terminal.text
    assert "wrote prod.api-key  (only its owner can read it)" in terminal.text
    assert {one.name: mode(one) for one in tmp_path.iterdir() if one.name != "config.toml"} == {
        "prod.api-key": 0o600,
        "redis.url": 0o600,
        "seal.keys": 0o600,
    }
    settings = load(tmp_path / "config.toml", environ={})
    assert settings.instances["prod"].api_key.get_secret_value() == "canary-key-1"
    assert settings.redis.url.get_secret_value() == "redis://user:word@cache:6379/1"
    assert "word" not in (tmp_path / "config.toml").read_text()


def test_init_for_programs(tmp_path: Path) -> None:
    document: dict[str, Any] = config(tmp_path, "init", "--url", URL, "--json").document

    assert document["written"] == ["seal.keys", "config.toml"]
    assert document["to_write"] == ["prod.api-key"]
    assert document["next"].endswith(" check --config config.toml")


def test_show_names_where_values_come_from_and_masks_secrets(tmp_path: Path) -> None:
    assert config(tmp_path, "init", "--url", URL).code == 0
    (tmp_path / "prod.api-key").write_text("canary-key-1")
    variables = {"PALETTE_SYNC_REDIS__URL": "redis://:canary-word@cache/1"}

    shown = config(tmp_path, "show", "--config", "config.toml", **variables)
    changed = config(tmp_path, "show", "--config", "config.toml", "--changed", "--json", **variables)

    line = next(
        number for number, one in enumerate((tmp_path / "config.toml").read_text().splitlines(), 1) if "url =" in one
    )
    assert shown.code == 0
    assert f'url = "{URL}"  # config.toml:{line}\n' in shown.out
    assert 'url = "redis://********@cache/1"  # variable PALETTE_SYNC_REDIS__URL\n' in shown.out
    assert 'refresh_interval = "10m"  # default\n' in shown.out
    assert "canary" not in shown.out + changed.out
    found = {one["key"]: one for one in changed.document}
    assert found["instances.prod.url"] == {
        "key": "instances.prod.url",
        "value": URL,
        "from": "file",
        "where": "config.toml",
        "line": line,
    }
    assert found["seal.keys"]["secret_file"] == "seal.keys"
    assert all(one["from"] != "default" for one in found.values())


def test_show_of_a_wrong_configuration_names_its_problems(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[service]\nspeed = 1\n")

    ran = config(tmp_path, "show", "--config", "config.toml")

    assert ran.code == 78
    assert "service.speed: is unknown" in ran.err


def test_the_example_is_printed_and_can_be_used(tmp_path: Path) -> None:
    printed = palette_sync("config", "example")
    (tmp_path / "config.toml").write_text(printed.out)
    (tmp_path / "prod.api-key").write_text("some-key-1")
    (tmp_path / "seal.keys").write_text(palette_sync("seal-key").out)

    shown = config(tmp_path, "show", "--config", "config.toml", "--json")

    assert shown.code == 0, shown.err
    assert {one["key"]: one["value"] for one in json.loads(shown.out)}["instances.prod.api_key"] == "********"


def test_a_daemon_that_cannot_start_says_so_in_the_form_of_its_log(tmp_path: Path) -> None:
    wrong = tmp_path / "config.toml"
    wrong.write_text("[service]\nspeed = 1\n")

    piped = palette_sync("run", "--config", wrong)
    for_people = palette_sync("run", "--config", wrong, PALETTE_SYNC_SERVICE__LOG_FORMAT="console")

    (line,) = piped.err.splitlines()
    event = json.loads(line)
    assert (piped.code, event["event"], event["level"]) == (78, "fatal", "error")
    assert event["reason"] == "the configuration cannot be used"
    assert any("service.speed: is unknown" in one for one in event["problems"])
    assert "  " + str(wrong) + ": service.speed: is unknown" in for_people.err

"""The systemd unit, by systemd's own tools where they are, and against what the daemon promises."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from deploy.unit_file import DROP_IN, UNIT, section
from palette_sync.cli.exits import Exit
from palette_sync.cli.main import DEFAULT_CONFIG, app
from palette_sync.config.settings import ServiceSettings
from palette_sync.core.durations import parse_duration

COMMAND = Path(sys.executable).with_name("palette-sync")
EXPOSURE = 15  # tenths; systemd calls below 20 "OK"

ANALYZE = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is missing: apt-get install systemd")


@pytest.fixture
def service() -> dict[str, str]:
    return section(UNIT, "Service")


def installed(tmp_path: Path, *drop_ins: Path) -> Path:
    """The unit as an installation has it, with the command of these tests: systemd looks whether it exists."""
    text, count = re.subn(r"(?m)^ExecStart=\S+", f"ExecStart={COMMAND}", UNIT.read_text())
    assert count == 1
    unit = tmp_path / UNIT.name
    unit.write_text(text)
    for drop_in in drop_ins:
        folder = tmp_path / f"{UNIT.name}.d"
        folder.mkdir()
        shutil.copy(drop_in, folder)
    return unit


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    assert ANALYZE is not None
    return subprocess.run([ANALYZE, *map(str, arguments)], capture_output=True, text=True, timeout=30, check=False)


def version() -> int:
    found = re.match(r"systemd (\d+)", analyze("--version").stdout)
    assert found
    return int(found.group(1))


@needs_systemd
def test_systemd_finds_nothing_to_say_about_the_unit(tmp_path: Path) -> None:
    said = analyze("verify", "--man=no", installed(tmp_path))

    assert (said.returncode, said.stdout, said.stderr) == (0, "", "")


@needs_systemd
def test_systemd_would_tell_a_key_that_it_does_not_know(tmp_path: Path) -> None:
    """That the silence above means something."""
    unit = installed(tmp_path)
    unit.write_text(unit.read_text().replace("ProtectHome=yes", "ProtectHomes=yes"))

    assert "ProtectHomes" in analyze("verify", "--man=no", unit).stderr


@needs_systemd
def test_systemd_knows_the_reload_type_where_the_drop_in_is_meant_for(tmp_path: Path) -> None:
    said = analyze("verify", "--man=no", installed(tmp_path, DROP_IN))

    if version() >= 253:
        assert (said.returncode, said.stdout, said.stderr) == (0, "", "")
    else:
        assert "notify-reload" in said.stderr


@needs_systemd
def test_the_unit_exposes_little(tmp_path: Path) -> None:
    unit = installed(tmp_path)
    said = analyze("security", "--offline=true", f"--threshold={EXPOSURE}", unit)

    assert said.returncode == 0, said.stdout


def test_the_unit_starts_a_command_that_exists(service: dict[str, str]) -> None:
    program, name, *options = shlex.split(service["ExecStart"])

    assert Path(program).is_absolute()
    assert Path(program).name == COMMAND.name
    command = get_command(app)
    assert name in command.commands
    assert options == ["--config", str(DEFAULT_CONFIG)]
    command.commands[name].make_context(name, list(options), parent=command.make_context("palette-sync", [name]))


def test_systemd_waits_longer_than_the_daemon_takes(service: dict[str, str]) -> None:
    stop = ServiceSettings()

    assert stop.grace < stop.deadline < parse_duration(service["TimeoutStopSec"])


def test_only_the_daemon_is_asked_to_end(service: dict[str, str]) -> None:
    """SIGTERM to all would end an embedded Valkey before the last write."""
    assert service["KillMode"] == "mixed"
    assert "KillSignal" not in service


def test_a_wrong_configuration_is_not_tried_again(service: dict[str, str]) -> None:
    assert service["Restart"] == "on-failure"
    assert service["RestartPreventExitStatus"] == str(int(Exit.CONFIG))


def test_a_reload_is_a_hangup_that_old_systemd_understands(service: dict[str, str]) -> None:
    assert service["Type"] == "notify"
    assert service["ExecReload"] == "/bin/kill -HUP $MAINPID"

    assert section(DROP_IN, "Service") == {"Type": "notify-reload", "ReloadSignal": "SIGHUP", "ExecReload": ""}


def test_the_watchdog_does_not_bark_at_a_drain(service: dict[str, str]) -> None:
    """It is fed at half its time, for the last time just before a drain that may take up to the deadline."""
    assert parse_duration(service["WatchdogSec"]) / 2 > ServiceSettings().deadline


def test_credentials_are_named_as_the_configuration_reads_them(
    service: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loaded as systemd hands them over, they make a whole configuration with the smallest file."""
    from palette_sync.config import load
    from palette_sync.store.seal import SealKeys

    values = {
        "instances__prod__api_key": "canary-api-key",
        "redis__url": "redis://palette-sync-writer:canary@localhost/0",
        "seal__keys": SealKeys.generate_line("k"),
    }
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    named = [line.split(":") for line in service["LoadCredential"].splitlines()]
    for name, source in named:
        assert source == f"/etc/palette-sync/credentials/{name}"
        (credentials / name).write_text(values.pop(name))
    assert not values
    config = tmp_path / "config.toml"
    config.write_text('[instances.prod]\nurl = "https://api.spectrocloud.com"\n')

    settings = load(config, environ={"CREDENTIALS_DIRECTORY": str(credentials)})

    assert settings.instances["prod"].api_key.get_secret_value() == "canary-api-key"
    assert settings.redis.url.get_secret_value().startswith("redis://palette-sync-writer:")


def test_no_secret_can_reach_a_core_file_or_the_units_environment(service: dict[str, str]) -> None:
    assert service["LimitCORE"] == "0"
    assert service["Environment"] == "HOME=%S/palette-sync"
    assert not {"EnvironmentFile", "SetCredential", "PassEnvironment"} & set(service)


def test_the_unit_reaches_no_link_local_address(service: dict[str, str]) -> None:
    """The metadata services of clouds."""
    assert "link-local" in service["IPAddressDeny"].split()

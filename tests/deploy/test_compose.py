"""`docker-compose.yml`: its schema, its two cases, and that what it names exists. No engine is needed."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from deploy.places import ROOT, documents
from deploy.users_server import PLACEHOLDER, USERS, WRITER, serving
from e2e.command import environment, simulation
from e2e.daemon import until
from palette_sync.cli.main import app
from palette_sync.config import load
from palette_sync.config.settings import ServiceSettings
from palette_sync.core.durations import parse_duration
from palette_sync.store.redis import Store
from palette_sync.store.seal import SealKeys
from palette_sync.store.server import server_facts

COMPOSE = ROOT / "docker-compose.yml"
LIVE, DEMO = "live", "demo"


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    (document,) = documents(COMPOSE)
    return dict(document["services"])


def of_profile(services: dict[str, dict[str, Any]], profile: str) -> set[str]:
    return {name for name, one in services.items() if profile in one["profiles"]}


def test_it_is_a_compose_file() -> None:
    checker = Path(sys.executable).with_name("check-jsonschema")
    ran = subprocess.run(
        [checker, "--builtin-schema", "vendor.compose-spec", COMPOSE],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_each_service_belongs_to_one_case_alone(services: dict[str, dict[str, Any]]) -> None:
    """So the demo never starts a daemon without configuration, nor the daemon a simulator."""
    assert of_profile(services, LIVE) == {"redis", "palette-sync"}
    assert of_profile(services, DEMO) == {"demo-redis", "simulator", "demo"}
    assert all(len(one["profiles"]) == 1 for one in services.values())
    for name, one in services.items():
        for other in one.get("depends_on", {}):
            assert services[other]["profiles"] == one["profiles"], name
    volumes = {
        profile: {
            str(volume).split(":")[0] for name in of_profile(services, profile) for volume in _volumes(services, name)
        }
        for profile in (LIVE, DEMO)
    }
    assert not volumes[LIVE] & volumes[DEMO]


def _volumes(services: dict[str, dict[str, Any]], name: str) -> list[str]:
    return [one["source"] if isinstance(one, dict) else one for one in services[name].get("volumes", [])]


def test_plain_commands_mean_the_real_case() -> None:
    lines = [line for line in (ROOT / ".env").read_text().splitlines() if line and not line.startswith("#")]

    assert lines == [f"COMPOSE_PROFILES={LIVE}"]


def test_every_container_is_confined(services: dict[str, dict[str, Any]]) -> None:
    for name, one in services.items():
        assert one["read_only"] is True, name
        assert one["cap_drop"] == ["ALL"], name
        assert one["security_opt"] == ["no-new-privileges:true"], name
        assert not {"privileged", "cap_add", "network_mode", "pid", "devices"} & one.keys(), name
        assert one.get("user", "65532").split(":")[0] not in {"0", "root"}, name


def test_nothing_is_published_beyond_this_machine(services: dict[str, dict[str, Any]]) -> None:
    published = [port for one in services.values() for port in one.get("ports", [])]

    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_every_service_has_a_health_check(services: dict[str, dict[str, Any]]) -> None:
    """That of the image asks the daemon; the others need one of their own."""
    daemons = {"palette-sync", "demo"}
    assert {name for name, one in services.items() if "healthcheck" in one} == services.keys() - daemons


def test_secrets_are_files_and_never_variables(services: dict[str, dict[str, Any]]) -> None:
    for one in services.values():
        for name, value in one.get("environment", {}).items():
            assert name in {"PALETTE_SYNC_SECRETS_DIR", "PALETTE_SYNC_CONFIG", "PALETTE_SYNC_HTTP__LISTEN"}
            assert "@" not in value
        assert "env_file" not in one


def test_a_stop_lasts_longer_than_the_daemon_takes(services: dict[str, dict[str, Any]]) -> None:
    stop = ServiceSettings()
    for name in ("palette-sync", "demo"):
        assert stop.grace < stop.deadline < parse_duration(services[name]["stop_grace_period"])
        assert services[name]["init"] is True


def test_images_are_pinned_and_ours_is_built_here(services: dict[str, dict[str, Any]]) -> None:
    for name, one in services.items():
        if "build" in one:
            assert one["pull_policy"] == "build", name
            assert (ROOT / one["build"]["context"] / one["build"]["dockerfile"]).is_file()
        else:
            _, _, tag = one["image"].partition(":")
            assert tag[:1].isdigit(), name


def test_what_the_simulator_is_asked_for_it_understands(services: dict[str, dict[str, Any]]) -> None:
    name, *arguments = services["simulator"]["command"]
    command = get_command(app).commands[name]

    context = command.make_context(name, list(arguments))

    given = context.params
    assert given["host"] in services, "the name by which the network knows it"
    assert given["redis_url"].removeprefix("redis://").split(":")[0] in services
    folder = services["demo"]["environment"]["PALETTE_SYNC_CONFIG"].removesuffix("/config.toml")
    assert str(given["out"]) == folder
    assert services["simulator"]["volumes"] == [f"demo:{folder}"]
    assert services["demo"]["volumes"] == [f"demo:{folder}:ro"]


def test_the_simulator_counts_as_healthy_only_while_it_serves(
    services: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    form, program, option, code = services["simulator"]["healthcheck"]["test"]
    assert (form, program, option) == ("CMD", "python", "-c")
    assert code.count("/var/lib/palette-sync") == 1
    code = code.replace("/var/lib/palette-sync", str(tmp_path))

    def healthy() -> bool:
        ran = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, timeout=20, check=False, env=environment()
        )
        return ran.returncode == 0

    assert not healthy()
    with simulation(tmp_path, "--clusters", "1"):
        until(healthy)  # it has two seconds to answer, so an engine asks again too
    assert not healthy(), "what an earlier run left behind is no sign of life"


def options_of(services: dict[str, dict[str, Any]], name: str) -> list[str]:
    """The options of the server, with paths left out that only the container has."""
    program, *options = services[name]["command"]
    assert program == "valkey-server"
    pairs = [options[i : i + 2] for i in range(0, len(options), 2)]
    return [word for pair in pairs if pair[0] != "--aclfile" for word in pair]


def test_the_servers_options_are_those_that_check_asks_for(
    services: dict[str, dict[str, Any]], seal_keys: SealKeys
) -> None:
    users = USERS.read_text().replace(f"{WRITER} on {PLACEHOLDER}", f"{WRITER} on nopass")
    with serving(users, *options_of(services, "redis")) as socket:

        async def facts() -> Any:
            async with Store.open(f"unix://{WRITER}:any@{socket}", prefix="palette-sync", sealer=seal_keys) as store:
                return await server_facts(store.link, store.keys)

        found = asyncio.run(facts())
    assert (found.eviction, found.append_only, found.denied) == ("noeviction", True, ())


def test_the_folders_of_the_real_case_make_a_whole_configuration(
    services: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    """As docs/install.md has them filled."""
    mounts = {one["target"]: one for one in services["palette-sync"]["volumes"]}
    assert all(one["read_only"] and one["bind"] == {"create_host_path": False} for one in mounts.values())
    given = dict(services["palette-sync"]["environment"])
    assert given["PALETTE_SYNC_SECRETS_DIR"] in mounts
    (tmp_path / "config.toml").write_text('[instances.prod]\nurl = "https://api.spectrocloud.com"\n')
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "instances__prod__api_key").write_text("canary\n")
    (secrets / "redis__url").write_text("redis://palette-sync-writer:canary@redis:6379/0\n")
    (secrets / "seal__keys").write_text(SealKeys.generate_line("k") + "\n")

    settings = load(tmp_path / "config.toml", environ={**given, "PALETTE_SYNC_SECRETS_DIR": str(secrets)})

    assert settings.instances["prod"].api_key.get_secret_value() == "canary"
    assert settings.http.listen.startswith("0.0.0.0:")
    ports = services["palette-sync"]["ports"][0].rsplit(":", 1)
    assert ports[-1] == settings.http.listen.rpartition(":")[2]


def _compose() -> list[str] | None:
    """The client of compose, if there is one; it needs no engine to read a file."""
    for command in (["docker", "compose"], ["docker-compose"]):
        try:
            ran = subprocess.run([*command, "version"], capture_output=True, timeout=20, check=False)
        except OSError:
            continue
        if ran.returncode == 0:
            return command
    return None


@pytest.mark.parametrize(("arguments", "profile"), [([], LIVE), (["--profile", DEMO], DEMO)])
def test_compose_itself_chooses_the_case(
    services: dict[str, dict[str, Any]], arguments: list[str], profile: str
) -> None:
    command = _compose()
    if command is None:
        pytest.skip("docker compose is missing: install Docker's compose plugin")
    ran = subprocess.run(
        [*command, "--project-directory", ROOT, "-f", COMPOSE, *arguments, "config", "--format", "json"],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")},
    )

    assert json.loads(ran.stdout)["services"].keys() == of_profile(services, profile)

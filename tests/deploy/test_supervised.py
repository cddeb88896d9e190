"""The daemon as the files of `deploy/` start, ask and stop it: by the unit's lines, and by the image's."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from deploy.dockerfile import last
from deploy.installation import Installation, installation, started
from deploy.unit_file import UNIT, section
from e2e.command import COMMAND, Ran, environment
from e2e.daemon import Supervisor, until
from palette_sync.core.durations import parse_duration

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Installation]:
    with installation(tmp_path) as one:
        yield one


def ran(command: list[str], variables: dict[str, str]) -> Ran:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=30, check=False, env=environment(**variables)
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def test_systemd_starts_reloads_watches_and_stops_it(place: Installation, tmp_path: Path) -> None:
    service = section(UNIT, "Service")
    command = [str(COMMAND), *shlex.split(service["ExecStart"])[1:]]
    command[-1] = str(place.config)
    stop = parse_duration(service["TimeoutStopSec"]).total_seconds()
    with tempfile.TemporaryDirectory(prefix="notify-") as folder, Supervisor(Path(folder) / "s") as supervisor:
        variables = {
            "NOTIFY_SOCKET": supervisor.address,
            "WATCHDOG_USEC": "1000000",
            "CREDENTIALS_DIRECTORY": str(place.secrets),
            "PALETTE_SYNC_HTTP__LISTEN": "127.0.0.1:0",
        }
        with started(command, variables, log=tmp_path / "log") as run:
            supervisor.hear("READY")
            supervisor.hear("WATCHDOG")

            reload = shlex.split(service["ExecReload"].replace("$MAINPID", str(run.process.pid)))
            subprocess.run(reload, check=True, timeout=10)
            supervisor.hear("RELOADING")
            notified = supervisor.hear("READY")
            assert "STATUS" in notified

            run.send(signal.SIGTERM)
            supervisor.hear("STOPPING")
            assert run.end(within=stop) == 0, run.text


def test_the_image_starts_asks_and_stops_it(place: Installation, tmp_path: Path) -> None:
    """With the variables of the compose file; signals as the engine sends them.

    The daemon takes a free port, and the health command is given the port that the daemon's log names.
    """
    program = [str(COMMAND), *last("ENTRYPOINT").array[1:]]
    health = [str(COMMAND), *last("HEALTHCHECK").array[1:]]
    variables = {
        "PALETTE_SYNC_CONFIG": str(place.config),
        "PALETTE_SYNC_SECRETS_DIR": str(place.secrets),
        "PALETTE_SYNC_HTTP__LISTEN": "0.0.0.0:0",
    }
    with started([*program, *last("CMD").array], variables, log=tmp_path / "log") as run:
        port = run.url.rpartition(":")[2]
        variables["PALETTE_SYNC_HTTP__LISTEN"] = f"0.0.0.0:{port}"
        run.wait_for("pass_finished")  # readiness needs something that is published
        asked = ran(health, variables)
        assert asked.code == 0, asked.err
        assert asked.out == "live\n"

        run.send(signal.Signals[last("STOPSIGNAL").rest])
        assert run.end() == 0, run.text
        assert ran(health, variables).code == 1, "unhealthy once it has stopped"
        canaries = [file.read_text().strip() for file in place.secrets.iterdir()]
        assert not [one for one in canaries if one in run.text + asked.out]


PID_ONE = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child=SIGKILL"]


@pytest.mark.skipif(sys.platform != "linux", reason="PID namespaces are Linux's")
def test_it_obeys_as_the_first_process_too(place: Installation, tmp_path: Path) -> None:
    """In Kubernetes it is PID 1, to which the kernel delivers only signals that have a handler."""
    if subprocess.run([*PID_ONE, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no PID namespace may be made here: run as root, or allow user namespaces")
    variables = {
        "PALETTE_SYNC_CONFIG": str(place.config),
        "PALETTE_SYNC_SECRETS_DIR": str(place.secrets),
        "PALETTE_SYNC_HTTP__LISTEN": "127.0.0.1:0",
    }
    with started([*PID_ONE, COMMAND, "run"], variables, log=tmp_path / "log") as run:
        assert run.wait_for("daemon_ready")["pid"] == 1
        run.wait_for("pass_finished")
        (child,) = Path(f"/proc/{run.process.pid}/task/{run.process.pid}/children").read_text().split()

        os.kill(int(child), signal.SIGUSR1)
        assert run.wait_for("signal_received")["action"] == "resync"
        run.wait_for("pass_finished", count=2)
        os.kill(int(child), signal.SIGTERM)
        run.wait_for("daemon_stopped")
        assert run.end() == 0


@pytest.mark.skipif(sys.platform != "linux", reason="PID namespaces are Linux's")
def test_as_the_first_process_it_keeps_a_signal_to_end_that_comes_while_it_starts(
    place: Installation, tmp_path: Path
) -> None:
    if subprocess.run([*PID_ONE, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no PID namespace may be made here: run as root, or allow user namespaces")
    begun, go_on = tmp_path / "begun", tmp_path / "go-on"
    code = (
        "import pathlib, sys, time\nsys.argv = ['palette-sync', 'run']\nfrom palette_sync.cli.main import main\n"
        f"pathlib.Path({str(begun)!r}).touch()\n"
        f"while not pathlib.Path({str(go_on)!r}).exists(): time.sleep(0.02)\nmain()"
    )
    variables = {
        "PALETTE_SYNC_CONFIG": str(place.config),
        "PALETTE_SYNC_SECRETS_DIR": str(place.secrets),
        "PALETTE_SYNC_HTTP__LISTEN": "127.0.0.1:0",
    }
    with started([*PID_ONE, sys.executable, "-c", code], variables, log=tmp_path / "log") as run:
        until(begun.exists)
        (child,) = Path(f"/proc/{run.process.pid}/task/{run.process.pid}/children").read_text().split()

        os.kill(int(child), signal.SIGTERM)
        go_on.touch()

        run.wait_for("daemon_stopped")
        assert run.end() == 0

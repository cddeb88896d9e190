"""The daemon as the files of `deploy/` start, ask and stop it: by the unit's lines, and by the image's."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from deploy.dockerfile import last
from deploy.installation import Installation, installation, started
from deploy.unit_file import UNIT, section
from e2e.command import COMMAND, Ran, environment
from e2e.daemon import Supervisor
from palette_sync.config.values import parse_duration

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


def test_systemd_starts_reloads_watches_and_stops_it(place: Installation) -> None:
    service = section(UNIT, "Service")
    command = [str(COMMAND), *shlex.split(service["ExecStart"])[1:]]
    command[-1] = str(place.config)
    stop = parse_duration(service["TimeoutStopSec"]).total_seconds()
    with tempfile.TemporaryDirectory(prefix="notify-") as folder, Supervisor(Path(folder) / "s") as supervisor:
        variables = {
            "NOTIFY_SOCKET": supervisor.address,
            "WATCHDOG_USEC": "1000000",
            "CREDENTIALS_DIRECTORY": str(place.secrets),
            "PALETTE_SYNC_HTTP__LISTEN": place.listen,
        }
        with started(command, variables) as process:
            supervisor.hear("READY")
            supervisor.hear("WATCHDOG")

            reload = shlex.split(service["ExecReload"].replace("$MAINPID", str(process.pid)))
            subprocess.run(reload, check=True, timeout=10)
            supervisor.hear("RELOADING")
            said = supervisor.hear("READY")
            assert "STATUS" in said

            process.send_signal(signal.SIGTERM)
            supervisor.hear("STOPPING")
            out, _ = process.communicate(timeout=stop)
    assert process.returncode == 0, out


def test_the_image_starts_asks_and_stops_it(place: Installation) -> None:
    """With the variables of the compose file; signals as the engine sends them."""
    program = [str(COMMAND), *last("ENTRYPOINT").array[1:]]
    health = [str(COMMAND), *last("HEALTHCHECK").array[1:]]
    variables = {
        "PALETTE_SYNC_CONFIG": str(place.config),
        "PALETTE_SYNC_SECRETS_DIR": str(place.secrets),
        "PALETTE_SYNC_HTTP__LISTEN": f"0.0.0.0:{place.port}",
    }
    assert ran(health, variables).code == 1, "unhealthy before it runs"
    with started([*program, *last("CMD").array], variables) as process:
        until = time.monotonic() + 30
        while (asked := ran(health, variables)).code != 0:
            assert process.poll() is None
            assert time.monotonic() < until, asked.err
        assert "alpha" in asked.out

        process.send_signal(signal.Signals[last("STOPSIGNAL").rest])
        out, _ = process.communicate(timeout=40)
    assert process.returncode == 0, out
    canaries = [file.read_text().strip() for file in place.secrets.iterdir()]
    assert not [one for one in canaries if one in out + asked.out]


PID_ONE = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child=SIGKILL"]


@pytest.mark.skipif(sys.platform != "linux", reason="PID namespaces are Linux's")
def test_it_obeys_as_the_first_process_too(place: Installation) -> None:
    """In Kubernetes it is PID 1, which the kernel keeps signals from that have no handler."""
    if subprocess.run([*PID_ONE, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no PID namespace may be made here: run as root, or allow user namespaces")
    variables = {
        "PALETTE_SYNC_CONFIG": str(place.config),
        "PALETTE_SYNC_SECRETS_DIR": str(place.secrets),
        "PALETTE_SYNC_HTTP__LISTEN": place.listen,
    }
    with started([*PID_ONE, COMMAND, "run"], variables) as process:
        heard = _listen(process, "daemon_ready")
        (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert heard["pid"] == 1

        os.kill(int(child), signal.SIGUSR1)
        assert _listen(process, "signal_received")["action"] == "resync"
        _listen(process, "pass_finished")
        os.kill(int(child), signal.SIGTERM)
        _listen(process, "daemon_stopped")
        assert process.wait(40) == 0


def _listen(process: subprocess.Popen[str], event: str) -> dict[str, Any]:
    """Read the log until an event; return it."""
    assert process.stdout is not None
    for line in process.stdout:
        told = json.loads(line)
        if told["event"] == event:
            return dict(told)
    raise AssertionError(f"it ended before {event}")

"""Notifications to a supervisor, over a real datagram socket; sending never fails, blocks or lies."""

from __future__ import annotations

import os
import secrets
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from palette_sync.service.systemd import LONGEST_STATUS, Notifier

if TYPE_CHECKING:
    from collections.abc import Iterator


JWT = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.c2lnbmF0dXJl"


class Supervisor:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)

    def heard(self) -> list[list[str]]:
        """The lines of each datagram so far."""
        found = []
        while True:
            try:
                found.append(self.socket.recv(65536).decode().split("\n"))
            except BlockingIOError:
                return found


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    one = Supervisor(str(tmp_path / "notify"))
    yield one
    one.socket.close()


def test_each_notification_is_one_datagram(supervisor: Supervisor) -> None:
    notifier = Notifier(supervisor.address, monotonic_ns=lambda: 1_234_567_899)

    assert notifier.extend_timeout(30.0)
    assert notifier.status("waiting for Redis")
    assert notifier.ready("2 instances")
    assert notifier.reloading()
    assert notifier.watchdog()
    assert notifier.stopping()

    assert supervisor.heard() == [
        ["EXTEND_TIMEOUT_USEC=30000000"],
        ["STATUS=waiting for Redis"],
        ["READY=1", "STATUS=2 instances"],
        ["RELOADING=1", "MONOTONIC_USEC=1234567"],
        ["WATCHDOG=1"],
        ["STOPPING=1"],
    ]


def test_the_time_of_a_reload_is_the_monotonic_clock(supervisor: Supervisor) -> None:
    import time

    before = time.monotonic_ns() // 1000
    Notifier(supervisor.address).reloading()

    ((_, line),) = supervisor.heard()
    assert before <= int(line.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000


def test_an_abstract_name_is_understood() -> None:
    one = Supervisor(f"@palette-sync-test-{secrets.token_hex(6)}")
    try:
        assert Notifier.from_environment({"NOTIFY_SOCKET": one.address}).watchdog()
        assert one.heard() == [["WATCHDOG=1"]]
    finally:
        one.socket.close()


@pytest.mark.parametrize(
    ("seconds", "line"),
    [(0.5, "EXTEND_TIMEOUT_USEC=500000"), (1e-9, "EXTEND_TIMEOUT_USEC=1"), (2, "EXTEND_TIMEOUT_USEC=2000000")],
)
def test_more_time_is_asked_for_in_whole_microseconds(supervisor: Supervisor, seconds: float, line: str) -> None:
    assert Notifier(supervisor.address).extend_timeout(seconds)
    assert supervisor.heard() == [[line]]


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_no_time_is_not_asked_for(supervisor: Supervisor, seconds: float) -> None:
    assert not Notifier(supervisor.address).extend_timeout(seconds)
    assert supervisor.heard() == []


# -- no supervisor --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "environ",
    [
        pytest.param({}, id="no supervisor"),
        pytest.param({"NOTIFY_SOCKET": ""}, id="an empty address"),
        pytest.param({"NOTIFY_SOCKET": "/"}, id="no path"),
        pytest.param({"NOTIFY_SOCKET": "@"}, id="no name"),
        pytest.param({"NOTIFY_SOCKET": "vsock:2:1234"}, id="another kind of address"),
        pytest.param({"NOTIFY_SOCKET": "relative/path"}, id="a relative path"),
    ],
)
def test_without_a_supervisor_nothing_is_sent(environ: dict[str, str]) -> None:
    notifier = Notifier.from_environment({**environ, "WATCHDOG_USEC": "1000000"})

    assert notifier == Notifier()
    assert not notifier.ready("x")
    assert notifier.watchdog_interval is None


def test_a_supervisor_that_went_away_is_no_failure(supervisor: Supervisor) -> None:
    notifier = Notifier(supervisor.address)
    supervisor.socket.close()
    assert not notifier.status("x")
    Path(supervisor.address).unlink()
    assert not notifier.status("x")


@pytest.mark.parametrize("address", ["/tmp/" + "x" * 200, "/tmp/a\0b"])
def test_an_address_that_no_kernel_takes_is_no_failure(address: str) -> None:
    assert not Notifier(address).watchdog()


def test_a_supervisor_that_reads_nothing_blocks_nobody(supervisor: Supervisor) -> None:
    notifier = Notifier(supervisor.address)

    assert notifier.watchdog()
    assert not all(notifier.watchdog() for _ in range(100_000))


# -- text from elsewhere ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line"),
    [
        pytest.param("Redis\nREADY=1", "STATUS=Redis READY=1", id="a line break begins no assignment"),
        pytest.param("a\r\nb\x00c\u2028d\x1b[31me", "STATUS=a b c d [31me", id="control characters are spaces"),
        pytest.param("  many   spaces ", "STATUS=many spaces", id="spaces are joined"),
        pytest.param("", "STATUS=", id="nothing"),
        pytest.param(f"refused {JWT}", "STATUS=refused ***", id="a token"),
        pytest.param("redis://user:canary@host:1/0", "STATUS=redis://***@host:1/0", id="a password"),
        pytest.param("Grüße \ud800", "STATUS=Grüße", id="what is no UTF-8"),
    ],
)
def test_a_status_is_one_line_without_secrets(supervisor: Supervisor, text: str, line: str) -> None:
    notifier = Notifier(supervisor.address)
    assert notifier.status(text)
    assert notifier.ready(text)

    assert supervisor.heard() == [[line], ["READY=1", line]]


def test_a_long_status_is_cut(supervisor: Supervisor) -> None:
    Notifier(supervisor.address).status("x" * 5000)
    Notifier(supervisor.address).status("y" * LONGEST_STATUS)

    (cut,), (whole,) = supervisor.heard()
    assert len(cut) == len("STATUS=") + LONGEST_STATUS
    assert " ... " in cut
    assert whole == "STATUS=" + "y" * LONGEST_STATUS


# -- the watchdog ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "interval"),
    [
        pytest.param({"WATCHDOG_USEC": "20000000"}, 10.0, id="half of what is allowed"),
        pytest.param({"WATCHDOG_USEC": "20000000", "WATCHDOG_PID": "77"}, 10.0, id="meant for this process"),
        pytest.param({"WATCHDOG_USEC": "20000000", "WATCHDOG_PID": "78"}, None, id="meant for another process"),
        pytest.param({"WATCHDOG_USEC": "0"}, None, id="off"),
        pytest.param({"WATCHDOG_USEC": "soon"}, None, id="no number"),
        pytest.param({"WATCHDOG_USEC": "-5"}, None, id="a negative number"),
        pytest.param({"WATCHDOG_USEC": "٣"}, None, id="another script's digit"),
        pytest.param({}, None, id="not watched"),
    ],
)
def test_the_watchdog_is_fed_twice_within_what_is_allowed(environ: dict[str, str], interval: float | None) -> None:
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": "/run/x", **environ}, pid=77)

    assert notifier.watchdog_interval == interval


def test_the_watched_process_is_this_one_unless_another_pid_is_given() -> None:
    environ = {"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "2000000", "WATCHDOG_PID": str(os.getpid())}

    assert Notifier.from_environment(environ).watchdog_interval == 1.0

"""Signals that come while the daemon starts are kept; every other command leaves them as they are."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from typing import Any

import pytest

REPORT = """
import json, signal, sys
sys.argv = json.loads(sys.argv[1])
import palette_sync.cli.main
blocked = sorted(signal.Signals(number).name for number in signal.pthread_sigmask(signal.SIG_BLOCK, ()))
heavy = sorted({"aiohttp", "apscheduler", "kubernetes_asyncio", "redis"} & sys.modules.keys())
print(json.dumps({"blocked": blocked, "heavy": heavy}))
"""
WAIT = """
import signal, sys
sys.argv = ["palette-sync", "run"]
import palette_sync.cli.main
print("started", flush=True)
sys.stdin.read()
signal.signal(signal.SIGUSR1, lambda *_: print("kept", flush=True))
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
"""


async def python(program: str, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        program,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )


async def started_with(*argv: str) -> dict[str, Any]:
    process = await python(REPORT, json.dumps(["palette-sync", *argv]))
    out, _ = await process.communicate(b"")
    found: dict[str, Any] = json.loads(out)
    return found


@pytest.mark.parametrize("argv", [("run",), ("run", "--config", "x.toml")])
async def test_only_the_daemon_holds_back_signals_and_before_anything_heavy_is_imported(argv: tuple[str, ...]) -> None:
    assert await started_with(*argv) == {"blocked": ["SIGHUP", "SIGUSR1", "SIGUSR2"], "heavy": []}


@pytest.mark.parametrize("argv", [("once", "--config", "run"), ("status",), ("--version",), ()])
async def test_every_other_command_leaves_signals_as_they_are(argv: tuple[str, ...]) -> None:
    assert (await started_with(*argv))["blocked"] == []


async def test_a_signal_during_the_start_is_delivered_once_its_handler_stands() -> None:
    process = await python(WAIT)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"started\n"
    process.send_signal(signal.SIGUSR1)
    out, _ = await process.communicate(b"")

    assert (out, process.returncode) == (b"kept\n", 0)


async def test_the_daemon_can_be_ended_while_it_starts() -> None:
    process = await python(WAIT)
    assert process.stdout is not None
    await process.stdout.readline()
    process.terminate()

    assert await process.wait() == -signal.SIGTERM

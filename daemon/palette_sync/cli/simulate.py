"""`palette-sync simulate`: simulated Palette instances and clusters, for development, tests and the container demo."""

from __future__ import annotations

import asyncio
import errno
import json
import signal
import sys
from typing import TYPE_CHECKING

from palette_sync.cli.console import print_problems
from palette_sync.cli.exits import Exit
from palette_sync.core.text import counted

if TYPE_CHECKING:
    from pathlib import Path

    from palette_sync.simulator import SimulatorOptions


def run(
    out: Path,
    *,
    instances: int,
    projects: int,
    clusters: int,
    latency: str,
    seed: int,
    listen: str,
    host: str,
    mix: bool,
    redis_url: str,
    as_json: bool,
) -> Exit:
    """Serve until SIGINT or SIGTERM. Prints `ready` when all servers listen and all files are written."""
    from palette_sync.simulator import SimulatorOptions

    try:
        options = SimulatorOptions(
            instances=instances,
            projects=projects,
            clusters=clusters,
            seed=seed,
            latency=_latency(latency),
            listen=listen,
            host=host,
            mix=mix,
        )
        _check_redis_url(redis_url)
    except ValueError as error:
        print_problems([str(error)], title="invalid options")
        return Exit.CONFIG
    try:
        asyncio.run(_serve(out, options, redis_url=redis_url, as_json=as_json))
    except OSError as error:
        what = error.filename or (f"--listen {listen}" if error.errno == errno.EADDRNOTAVAIL else out)
        print_problems([f"{what}: {error.strerror}"], title="the simulator cannot start")
        return Exit.FAILED
    return Exit.OK


def _check_redis_url(url: str) -> None:
    """Reject a URL with a password: config.toml is world-readable, and so is the command line. Raises ValueError."""
    from palette_sync.store.address import parse_url
    from palette_sync.store.errors import StoreError

    if url.startswith("embedded://"):
        return
    try:
        address = parse_url(url)
    except StoreError as error:
        raise ValueError(f"--redis-url: {error}") from None
    if address.password is not None:
        raise ValueError("--redis-url: contains a password; use a Redis without one for the simulator")


async def _serve(out: Path, options: SimulatorOptions, *, redis_url: str, as_json: bool) -> None:
    from palette_sync.simulator import Simulator
    from palette_sync.store.seal import SealKeys

    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    async with Simulator(options) as simulator:
        simulator.write_config(out, seal_keys_line=SealKeys.generate_line("simulator"), redis_url=redis_url)
        config = str(out / "config.toml")
        if as_json:
            text = json.dumps({"ready": True, "config": config, "control_url": simulator.control_url})
        else:
            text = (
                f"{config}: {counted(options.instances, 'Palette instance')}, {counted(options.clusters, 'cluster')}\n"
                f"control API: {simulator.control_url}\n"
                "ready"
            )
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
        await ended.wait()


def _latency(text: str) -> float:
    """Parse the latency as seconds. Raises ValueError."""
    from palette_sync.core.durations import parse_duration

    try:
        return parse_duration(text).total_seconds()
    except ValueError as error:
        raise ValueError(f"--latency {error}") from None

"""`palette-sync simulate`: simulated Palette instances and clusters on loopback, for development and tests."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from typing import TYPE_CHECKING

from palette_sync.cli.console import complain
from palette_sync.cli.exits import Exit

if TYPE_CHECKING:
    from pathlib import Path

    from palette_sync.simulator import SimulatorOptions

DEFAULT_REDIS = "redis://127.0.0.1:6379/0"


def run(out: Path, *, instances: int, projects: int, clusters: int, latency: str, seed: int, as_json: bool) -> Exit:
    """Serve until SIGINT or SIGTERM. Prints `ready` once everything serves and the files are written."""
    from palette_sync.config.settings import parse_duration
    from palette_sync.simulator import SimulatorOptions

    try:
        options = SimulatorOptions(
            instances=instances,
            projects=projects,
            clusters=clusters,
            seed=seed,
            latency=parse_duration(latency).total_seconds(),
        )
    except ValueError as error:
        complain([str(error)], title="cannot simulate that")
        return Exit.CONFIG
    try:
        asyncio.run(_serve(out, options, as_json=as_json))
    except OSError as error:
        complain([f"{error.filename or out}: {error.strerror}"], title="the simulator cannot start")
        return Exit.FAILED
    return Exit.OK


async def _serve(out: Path, options: SimulatorOptions, *, as_json: bool) -> None:
    from palette_sync.simulator import Simulator
    from palette_sync.store.seal import SealKeys

    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    async with Simulator(options) as simulator:
        simulator.write_config(out, seal_keys_line=SealKeys.generate_line("simulator"), redis_url=DEFAULT_REDIS)
        config = str(out / "config.toml")
        if as_json:
            told = json.dumps({"ready": True, "config": config, "control_url": simulator.control_url})
        else:
            told = (
                f"{config}: {options.instances} Palette instances, {options.clusters} clusters\n"
                f"control API: {simulator.control_url}\n"
                "ready"
            )
        sys.stdout.write(told + "\n")
        sys.stdout.flush()
        await ended.wait()

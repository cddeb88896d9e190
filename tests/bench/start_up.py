"""How soon a command that only reads Redis shows output, compared with the import of the libraries that it needs."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

from bench.processes import COMMAND, environment
from bench.rows import Row

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.lab import Lab

TRIES = 9
SETTLED = "typer, rich, redis"
# What the command also needs: tables, settings, and the key derivation for verifying a snapshot.
NEEDED = f"{SETTLED}, rich.table, pydantic_settings, cryptography.hazmat.primitives.kdf.hkdf"


def clusters(lab: Lab) -> list[Row]:
    lab.say("first output of palette-sync clusters")
    with lab.valkey() as url, lab.world(20, redis_url=url) as world:
        world.process.ask(do="publish")
        commands: dict[str, Sequence[str]] = {
            "command": [str(COMMAND), "clusters", "--config", str(world.config)],
            "imports": [sys.executable, "-c", f"import {SETTLED}; print('done')"],
            "needed": [sys.executable, "-c", f"import {NEEDED}; print('done')"],
        }
        best = dict.fromkeys(commands, float("inf"))
        for _ in range(TRIES):
            for name, command in commands.items():
                best[name] = min(best[name], _first_output(command))
    return [
        Row(
            "palette-sync clusters: first output, against importing typer, rich and redis",
            best["command"] / best["imports"],
            "x",
            1.5,
            floor=best["needed"] / best["imports"],
            note=f"{best['command'] * 1000:.0f} ms against {best['imports'] * 1000:.0f} ms; with pydantic-settings and "
            f"cryptography the imports alone take {best['needed'] * 1000:.0f} ms; best of {TRIES}",
        )
    ]


def _first_output(command: Sequence[str]) -> float:
    """Return the seconds from exec to the first byte of output."""
    started = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment()) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        took = time.monotonic() - started
        process.stdout.read()
    return took

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
SETTLED = "import typer, rich, redis; print('done')"
# What every command costs that has an option, a table and an asyncio client: typer builds a pydantic adapter for each
# option, and its import brings none of that.
NEEDED = """
import typer
from typing import Annotated
app = typer.Typer(pretty_exceptions_enable=False)
@app.command()
def needed(option: Annotated[str, typer.Option()] = "") -> None:
    import redis.asyncio, orjson
    from rich.console import Console
    from rich.table import Table
    table = Table()
    table.add_row("done")
    Console().print(table)
app()
"""


def commands(lab: Lab) -> list[Row]:
    lab.say("first output of palette-sync clusters and status")
    with lab.valkey() as url, lab.world(20, redis_url=url) as world:
        world.process.ask(do="publish")
        where = ["--config", str(world.config)]
        measured: dict[str, Sequence[str]] = {
            "clusters": [str(COMMAND), "clusters", *where],
            "status --from redis": [str(COMMAND), "status", "--from", "redis", *where],
            "imports": [sys.executable, "-c", SETTLED],
            "needed": [sys.executable, "-c", NEEDED],
        }
        best = dict.fromkeys(measured, float("inf"))
        for _ in range(TRIES):
            for name, command in measured.items():
                best[name] = min(best[name], _first_output(command))
    return [
        Row(
            f"palette-sync {name}: first output, against importing typer, rich and redis",
            best[name] / best["imports"],
            "x",
            1.5,
            floor=best["needed"] / best["imports"],
            note=f"{best[name] * 1000:.0f} ms against {best['imports'] * 1000:.0f} ms; typer with one option and a "
            f"table takes {best['needed'] * 1000:.0f} ms; best of {TRIES}",
        )
        for name in ("clusters", "status --from redis")
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

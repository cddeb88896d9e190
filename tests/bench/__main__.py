"""`python -m bench`: measure, print every row with its budget and verdict, and write JSON. `make bench` calls it.

Exit 0: every possible measurement was made, also where a budget was missed. Exit 1: a measurement failed, or with
`--strict`, a budget was missed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench import adapter, cold, figure, freshness, hanging, page, start_up, steady, takeover
from bench.lab import Lab
from bench.processes import BenchError
from bench.rotation import spread_row
from bench.rows import NOT_MEASURED, Row, shown
from palette_sync import __version__

if TYPE_CHECKING:
    from collections.abc import Callable

BOUND = 900.0  # seconds of `make bench`
# In the order of the budgets: name, function, and the seconds that it needs at most on two idle cores.
MEASUREMENTS: tuple[tuple[str, Callable[[Lab], list[Row]], float], ...] = (
    ("rotation", lambda _: [spread_row()], 5),
    ("page", page.page, 15),
    ("start-up", start_up.commands, 20),
    ("takeover", takeover.takeover, 80),
    ("cost", cold.cost, 45),
    ("fifty", cold.fifty, 25),
    ("quiet", steady.quiet, 50),
    ("ten-thousand", steady.ten_thousand, 90),
    ("thousand", cold.thousand, 40),
    ("hanging", hanging.hanging, 130),
    ("adapter", adapter.adapter, 60),
    ("freshness", freshness.freshness, 160),
    ("limited", cold.limited, 110),
    ("growth", cold.growth, 130),
)
ONLY_FULL: tuple[tuple[str, Callable[[Lab], list[Row]], float], ...] = (("by-size", steady.by_size, 60),)


def main() -> int:
    arguments = _arguments()
    if not Path("/proc/self/schedstat").is_file():
        sys.stderr.write("bench: needs Linux, because CPU time and memory are read from /proc\n")
        return 1
    console = Console(width=None if sys.stdout.isatty() else 200)
    started = time.monotonic()
    rows: list[Row] = []
    failed = False
    with tempfile.TemporaryDirectory(prefix="palette-sync-bench-") as directory:
        progress = Console(stderr=True)
        with progress.status("") as status:

            def say(text: str) -> None:
                status.update(text)
                if not progress.is_terminal:
                    progress.print(f"{time.monotonic() - started:5.0f} s  {text}")

            lab = Lab(Path(directory), arguments.full, say)
            for name, measure, expected in (*MEASUREMENTS, *(ONLY_FULL if arguments.full else ())):
                if arguments.only and name not in arguments.only:
                    continue
                if not arguments.full and time.monotonic() - started + expected > BOUND:
                    rows.append(
                        Row(name, None, "", 0.0, note="skipped: there is not enough time left of the fifteen minutes")
                    )
                    continue
                begun = time.monotonic()
                try:
                    rows += measure(lab)
                except BenchError as error:
                    failed = True
                    rows.append(Row(name, None, "", 0.0, note=f"failed: {error}"))
                lab.facts.setdefault("seconds", {})[name] = round(time.monotonic() - begun, 1)
    console.print(table(rows))
    took = time.monotonic() - started
    document = {**_where(), "took_s": round(took, 1), "rows": [row.document() for row in rows], "facts": lab.facts}
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(document, indent=2) + "\n")
    console.print(f"{took:.0f} s; written to {arguments.json}")
    if arguments.figure is not None and not arguments.only:
        arguments.figure.write_text(figure.draw(document["facts"]))
        console.print(f"drawn: {arguments.figure}")
    return int(failed or (arguments.strict and any(row.ok is False for row in rows)))


def table(rows: list[Row]) -> Table:
    found = Table(title=None, box=None, pad_edge=False, padding=(0, 2, 0, 0), show_edge=False)
    found.add_column("what", overflow="fold", ratio=5)
    found.add_column("measured", justify="right", no_wrap=True)
    found.add_column("budget", justify="right", no_wrap=True)
    found.add_column("verdict", overflow="fold", ratio=2)
    found.add_column("note", overflow="fold", style="dim", ratio=6)
    style = {True: "green", False: "red", None: "yellow"}
    for row in rows:
        found.add_row(
            row.what,
            NOT_MEASURED if row.value is None else shown(row.value, row.unit),
            "" if row.value is None else f"<= {shown(row.budget, row.unit)}",
            Text("" if row.value is None else row.verdict, style=style[row.ok]),
            row.note,
        )
    return found


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description="Measure palette-sync against its budgets.")
    parser.add_argument("--full", action="store_true", help="run the long measurements too, without a time limit")
    parser.add_argument("--json", type=Path, default=Path("build/bench.json"), help="write the figures to this file")
    parser.add_argument("--figure", type=Path, help="also draw the figure of the capacity page (needs --full)")
    parser.add_argument("--only", action="append", choices=[name for name, *_ in (*MEASUREMENTS, *ONLY_FULL)])
    parser.add_argument("--strict", action="store_true", help="exit 1 when a budget is missed")
    found = parser.parse_args()
    if found.figure and not found.full:
        parser.error("--figure needs --full")
    return found


def _where() -> dict[str, Any]:
    return {
        "version": __version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "load_before": os.getloadavg()[2],
    }


if __name__ == "__main__":
    sys.exit(main())

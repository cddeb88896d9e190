"""The Backstage adapter's own benchmark, where Node and its packages are installed."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from bench.processes import BenchError
from bench.rows import Row

if TYPE_CHECKING:
    from bench.lab import Lab

ADAPTER = Path(__file__).parents[2] / "deploy" / "backstage"


def left_out() -> str | None:
    """Return why the adapter cannot be measured here, or None."""
    if not (ADAPTER / "package.json").is_file():
        return "deploy/backstage is missing"
    if shutil.which("npm") is None:
        return "node is missing"
    if "bench" not in json.loads((ADAPTER / "package.json").read_text()).get("scripts", {}):
        return "deploy/backstage has no benchmark"
    if not (ADAPTER / "node_modules").is_dir():
        return "its packages are missing; make bench installs them"
    return None


def adapter(lab: Lab) -> list[Row]:
    """Return the rows of the adapter, or one row that says why it was not measured."""
    reason = left_out()
    if reason is not None:
        return [Row("adapter: reading on, getClusters, full load", None, "", 0.0, note=f"not measured: {reason}")]
    lab.say("the Backstage adapter")
    try:
        done = subprocess.run(
            ["npm", "run", "--silent", "bench", "--", "--json"],
            cwd=ADAPTER,
            capture_output=True,
            text=True,
            timeout=300,
            check=True,
        )
        found = json.loads(done.stdout)
    except subprocess.CalledProcessError as error:
        raise BenchError(f"npm run bench ended with {error.returncode}: {error.stderr[-500:]}") from None
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"npm run bench did not end within {error.timeout:.0f} s") from None
    except ValueError:
        raise BenchError("npm run bench printed no JSON") from None
    return [
        Row(f"adapter: {row['name']}", row["value"], row["unit"], row["budget"], note=row.get("note", ""))
        for row in found
    ]

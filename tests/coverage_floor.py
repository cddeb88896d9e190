"""Hold the coverage floors: every pure module at 100 % of lines and branches, everything else above 90 %."""

from __future__ import annotations

import json
import sys
from pathlib import Path

PURE = "palette_sync/core/"
FLOOR = 90.0


def main(report: Path) -> int:
    """Read coverage's JSON report; return 1 and say where if a floor is broken."""
    files = json.loads(report.read_text())["files"]
    pure = {name: entry["summary"] for name, entry in files.items() if PURE in name}
    rest = [entry["summary"] for name, entry in files.items() if PURE not in name]
    broken = [
        f"{name}: {summary['percent_covered']:.1f} % of a pure module, which must be 100 %"
        for name, summary in pure.items()
        if summary["missing_lines"] or summary["missing_branches"]
    ]
    total = sum(s["num_statements"] + s["num_branches"] for s in rest)
    covered = sum(s["covered_lines"] + s["covered_branches"] for s in rest)
    share = 100 * covered / total if total else 100.0
    if share < FLOOR:
        broken.append(f"everything but the core: {share:.1f} %, which must be above {FLOOR:g} %")
    print(f"coverage: {len(pure)} pure modules, the rest {share:.1f} %")
    for line in broken:
        print(f"coverage floor broken: {line}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

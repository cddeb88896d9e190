"""The page on operating the daemon names every event and every metric, and no other."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import palette_sync
from palette_sync.telemetry.metrics import Metrics

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "operations.md").read_text()
LOGGERS = {"log", "self._log"}
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}


def logged() -> set[str]:
    """The event of every call of a logger in the package, the simulator apart."""
    found = set()
    package = Path(palette_sync.__file__).parent
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
                continue
            target, first = node.func, node.args[0]
            if target.attr in LEVELS and ast.unparse(target.value) in LOGGERS:
                assert isinstance(first, ast.Constant), f"{path}:{node.lineno}"
                found.add(str(first.value))
    return found


def test_every_event_is_documented_and_no_other() -> None:
    section = PAGE.partition("## Events in the log")[2]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    documented = {name for row in rows for name in re.findall(r"`([a-z_]+)`", row)}
    assert logged() == documented


def test_every_metric_is_documented_and_no_other() -> None:
    metrics = Metrics()
    described = {
        one._name + ("_total" if one._type == "counter" else ""): set(one._labelnames) - {"palette_instance"}
        for one in (*metrics._gauges, *metrics._counters, metrics._duration)
    }
    found = re.findall(r"`(palette_sync_[a-z_]+)(?:\{([a-z,]+)\})?`", PAGE)
    assert described == {name: set(filter(None, labels.split(","))) for name, labels in found}

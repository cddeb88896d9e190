"""What `/metrics` may hold, and what a PromQL expression asks of it."""

from __future__ import annotations

from typing import Any

import promql_parser

from palette_sync.telemetry.metrics import Metrics


def exposed() -> dict[str, set[str]]:
    """The daemon's series by name, whether or not there is one yet, each with its labels."""
    metrics = Metrics()
    plain = {one._name: set(one._labelnames) for one in metrics._gauges}
    counters = {f"{one._name}_total": set(one._labelnames) for one in metrics._counters}
    process = {sample.name: set(sample.labels) for one in metrics.of_process for sample in one.collect()[0].samples}
    process = {name: labels for name, labels in process.items() if not name.endswith("_created")}
    duration = set(metrics._duration._labelnames)
    parts = {"_bucket": duration | {"le"}, "_sum": duration, "_count": duration}
    return plain | counters | process | {metrics._duration._name + part: labels for part, labels in parts.items()}


def asked(expression: str) -> dict[str, set[str]]:
    """The series that an expression selects, each with the labels that it is selected by, and that are kept of it."""
    nodes: list[Any] = []
    promql_parser.walk(promql_parser.parse(expression), nodes.append)
    kept = {
        label
        for one in nodes
        if isinstance(one, promql_parser.AggregateExpr) and one.modifier
        for label in one.modifier.labels
    }
    return {
        one.name: kept | {matcher.name for matcher in one.matchers.matchers}
        for one in nodes
        if isinstance(one, promql_parser.VectorSelector)
    }

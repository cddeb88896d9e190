"""`deploy/prometheus/alerts.yaml`: every expression is PromQL, about metrics and labels that the daemon has."""

from __future__ import annotations

import re
from typing import Any

import promql_parser
import pytest

from deploy.places import DEPLOY, documents
from palette_sync.config.settings import TokenSettings, parse_duration
from palette_sync.telemetry.metrics import Metrics

(DOCUMENT,) = documents(DEPLOY / "prometheus/alerts.yaml")
RULES: dict[str, dict[str, Any]] = {rule["alert"]: rule for group in DOCUMENT["groups"] for rule in group["rules"]}
OF_PROMETHEUS = {"up"}


def known() -> set[str]:
    """The names that the registry of the daemon exposes, whether or not there is a series yet."""
    body, _ = Metrics().render()
    return set(re.findall(r"^# TYPE (\S+) ", body.decode(), re.MULTILINE))


def selected(rule: dict[str, Any]) -> tuple[set[str], set[str]]:
    """The names of the metrics that an expression selects, and the labels that it keeps."""
    nodes: list[Any] = []
    promql_parser.walk(promql_parser.parse(rule["expr"]), nodes.append)
    names = {one.name for one in nodes if isinstance(one, promql_parser.VectorSelector)}
    kept = [one.modifier.labels for one in nodes if isinstance(one, promql_parser.AggregateExpr) and one.modifier]
    return names, {label for labels in kept for label in labels}


@pytest.mark.parametrize("alert", RULES)
def test_a_rule_is_about_what_the_daemon_exposes(alert: str) -> None:
    names, labels = selected(RULES[alert])

    assert names
    assert names - OF_PROMETHEUS <= known()
    assert labels <= {"palette_instance"}


@pytest.mark.parametrize("alert", RULES)
def test_a_rule_says_how_bad_it_is_and_what_to_do(alert: str) -> None:
    rule = RULES[alert]

    assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"]["severity"] in {"warning", "critical"}
    assert rule["annotations"].keys() == {"summary", "description"}
    used = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
    assert used <= selected(rule)[1]
    parse_duration(rule.get("for", "1m"))


def test_a_name_that_is_gone_would_be_seen() -> None:
    assert selected({"expr": "rate(palette_sync_gone_total[5m]) > 0"})[0] == {"palette_sync_gone_total"}
    assert "palette_sync_gone_total" not in known()


def test_renewals_are_told_long_before_a_token_lapses() -> None:
    """The warning comes when a third of a token's default life is left, less the time that it waits."""
    left = TokenSettings().validity / 3 - parse_duration(RULES["PaletteSyncRenewalsFailing"]["for"])
    lapse = re.search(r"< (\d+)$", RULES["PaletteSyncTokenLapseNear"]["expr"])

    assert lapse
    assert left.total_seconds() > 4 * int(lapse.group(1))

"""`deploy/prometheus/alerts.yaml`: every expression is PromQL, about metrics and labels that the daemon has."""

from __future__ import annotations

import re
from typing import Any

import pytest

from deploy.exposed import asked, exposed
from deploy.places import DEPLOY, documents
from palette_sync.config.settings import TokenSettings
from palette_sync.config.values import parse_duration
from palette_sync.core.expiry import WARN_BEFORE

(DOCUMENT,) = documents(DEPLOY / "prometheus/alerts.yaml")
RULES: dict[str, dict[str, Any]] = {rule["alert"]: rule for group in DOCUMENT["groups"] for rule in group["rules"]}
OF_PROMETHEUS = {"up": {"job"}}


@pytest.mark.parametrize("alert", RULES)
def test_a_rule_is_about_what_the_daemon_exposes(alert: str) -> None:
    series, known = asked(RULES[alert]["expr"]), exposed() | OF_PROMETHEUS

    assert series
    assert all(labels <= known.get(name, set()) for name, labels in series.items())


@pytest.mark.parametrize("alert", RULES)
def test_a_rule_says_how_bad_it_is_and_what_to_do(alert: str) -> None:
    rule = RULES[alert]

    assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"]["severity"] in {"warning", "critical"}
    assert rule["annotations"].keys() == {"summary", "description"}
    used = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
    assert used <= set.union(*asked(rule["expr"]).values())
    parse_duration(rule.get("for", "1m"))


def test_a_name_that_is_gone_would_be_seen() -> None:
    assert asked('sum by (b) (rate(palette_sync_gone_total{a="1"}[5m])) > 0') == {"palette_sync_gone_total": {"a", "b"}}
    assert "palette_sync_gone_total" not in exposed()


def test_renewals_are_told_long_before_a_token_lapses() -> None:
    """The warning comes when a third of a token's default life is left, less the time that it waits."""
    left = TokenSettings().validity / 3 - parse_duration(RULES["PaletteSyncRenewalsFailing"]["for"])
    lapse = re.search(r"< (\d+)$", RULES["PaletteSyncTokenLapseNear"]["expr"])

    assert lapse
    assert left.total_seconds() > 4 * int(lapse.group(1))


def test_the_alert_on_api_keys_fires_when_the_daemon_begins_to_warn() -> None:
    texts = [rule["expr"] for rule in RULES.values() if "api_key_expiry" in rule["expr"]]

    assert texts
    assert all(f"- time() < {max(WARN_BEFORE).days} * 86400" in text for text in texts)

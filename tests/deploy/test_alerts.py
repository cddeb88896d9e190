"""`deploy/prometheus/alerts.yaml`: every expression is PromQL, about metrics and labels that the daemon has."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import Any

import pytest

from deploy.exposed import asked, exposed
from deploy.places import DEPLOY, ROOT, documents
from palette_sync.config.settings import TokenSettings
from palette_sync.core.durations import parse_duration
from palette_sync.core.expiry import WARN_BEFORE

(DOCUMENT,) = documents(DEPLOY / "prometheus/alerts.yaml")
RULES: dict[str, dict[str, Any]] = {rule["alert"]: rule for group in DOCUMENT["groups"] for rule in group["rules"]}
OF_PROMETHEUS = {"up": {"job"}}
OF_TARGET = {"job", "instance"}  # labels that Prometheus adds to every series
RUNBOOK = (ROOT / "docs/runbook.md").read_text()
PROMTOOL = os.environ.get("PROMTOOL") or shutil.which("promtool")


@pytest.mark.parametrize("alert", RULES)
def test_a_rule_is_about_what_the_daemon_exposes(alert: str) -> None:
    series, known = asked(RULES[alert]["expr"]), exposed() | OF_PROMETHEUS

    assert series
    assert all(labels - OF_TARGET <= known.get(name, set()) for name, labels in series.items())


@pytest.mark.parametrize("alert", RULES)
def test_a_rule_says_how_bad_it_is_and_what_to_do(alert: str) -> None:
    rule = RULES[alert]

    assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"]["severity"] in {"warning", "critical"}
    assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
    used = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
    assert used <= set.union(*asked(rule["expr"]).values())
    parse_duration(rule.get("for", "1m"))


@pytest.mark.parametrize("alert", RULES)
def test_a_rule_leads_to_its_section_of_the_runbook(alert: str) -> None:
    page, _, anchor = RULES[alert]["annotations"]["runbook_url"].partition("#")

    assert page.endswith("/docs/runbook.md")
    assert anchor == alert.lower()
    section = RUNBOOK.partition(f"\n### {alert}\n")[2].partition("\n### ")[0]
    labels = re.findall(r"^\*\*(.*?)\.\*\*", section, re.MULTILINE)
    assert labels == ["What it means", "What palette-sync does by itself", "What to look at", "What to do"]


def test_the_runbook_has_no_section_of_an_alert_that_does_not_exist() -> None:
    sections = re.findall(r"^### (\w+)$", RUNBOOK.partition("## Alerts")[2].partition("## Reasons")[0], re.MULTILINE)

    assert sorted(sections) == sorted(RULES)


def test_every_rule_has_a_unit_test_that_lets_it_fire() -> None:
    (tests,) = documents(DEPLOY / "prometheus/alerts.test.yaml")
    samples = [sample for one in tests["tests"] for step in one["promql_expr_test"] for sample in step["exp_samples"]]

    assert {re.search(r'alertname="(\w+)"', sample["labels"]).group(1) for sample in samples} == RULES.keys()  # type: ignore[union-attr]


def test_the_rules_pass_their_unit_tests() -> None:
    if PROMTOOL is None:
        pytest.skip("no promtool here: install Debian's package prometheus, or name one with PROMTOOL")
    for arguments in (["check", "rules", "alerts.yaml"], ["test", "rules", "alerts.test.yaml"]):
        ran = subprocess.run(
            [PROMTOOL, *arguments],
            cwd=DEPLOY / "prometheus",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr


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

"""`deploy/grafana/palette-sync.json`: every query is PromQL, about metrics and labels that the daemon has."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import parse_qsl

import pytest

from deploy.exposed import asked, exposed
from deploy.places import DEPLOY
from palette_sync.page.query import Query

BOARD: dict[str, Any] = json.loads((DEPLOY / "grafana/palette-sync.json").read_text())
PANELS: dict[str, dict[str, Any]] = {panel["title"]: panel for panel in BOARD["panels"]}
COLUMNS = 24
# What one looks at by arithmetic on the buckets is not asked for by itself.
# What the client library reports of every process, and the labels that Prometheus adds to every series.
OF_PYTHON = {"process_resident_memory_bytes": {"instance", "job"}}
OF_TARGET = {"instance", "job"}
PARTS = {"palette_sync_pass_duration_seconds_sum", "palette_sync_pass_duration_seconds_count"}


def expressions(panel: dict[str, Any]) -> list[str]:
    """A panel's queries as Grafana sends them."""
    texts = [target["expr"] for target in panel["targets"]]
    return [text.replace("$__rate_interval", "5m").replace("$palette_instance", ".*") for text in texts]


@pytest.mark.parametrize("title", PANELS)
def test_a_panel_asks_for_what_the_daemon_exposes(title: str) -> None:
    known = exposed() | OF_PYTHON
    for expression in expressions(PANELS[title]):
        assert "$" not in expression
        series = asked(expression)
        assert series
        assert all(labels - OF_TARGET <= known.get(name, set()) for name, labels in series.items())
        chosen = {name: labels for name, labels in series.items() if "palette_instance" in known[name]}
        assert all("palette_instance" in labels for labels in chosen.values()), "the choice of instances holds"


@pytest.mark.parametrize("title", PANELS)
def test_a_panels_legend_names_labels_that_its_query_keeps(title: str) -> None:
    panel = PANELS[title]
    for target, expression in zip(panel["targets"], expressions(panel), strict=True):
        used = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        assert panel["type"] == "stat" or used <= set.union(*asked(expression).values())


def test_every_metric_of_the_daemon_is_on_the_board() -> None:
    shown = {name for panel in PANELS.values() for expression in expressions(panel) for name in asked(expression)}

    assert shown - OF_PYTHON.keys() == exposed().keys() - PARTS


def test_panels_stand_beside_each_other_and_say_what_they_show() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert place["x"] + place["w"] <= COLUMNS
        assert panel["description"].endswith(".")
        taken |= cells
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(PANELS) == len(BOARD["panels"])


def test_the_board_belongs_to_no_installation() -> None:
    """The source of data is chosen by who looks; no identity of a database is in the file."""
    sources = [panel["datasource"] for panel in BOARD["panels"]]
    sources += [target["datasource"] for panel in BOARD["panels"] for target in panel["targets"]]
    sources += [one["datasource"] for one in BOARD["templating"]["list"] if "datasource" in one]

    assert {source["uid"] for source in sources} == {"${datasource}"}
    assert {one["name"] for one in BOARD["templating"]["list"]} == {"datasource", "palette_instance", "page"}
    assert "id" not in BOARD


@pytest.mark.parametrize(
    "title", [title for title, panel in PANELS.items() if "links" in panel["fieldConfig"]["defaults"]]
)
def test_a_panels_link_opens_the_page_with_a_filter_that_it_knows(title: str) -> None:
    panel = PANELS[title]
    kept = set.union(*(labels for one in expressions(panel) for labels in asked(one).values()))
    for link in panel["fieldConfig"]["defaults"]["links"]:
        address, _, query = link["url"].partition("?")
        assert address == "${page}/"
        for key, value in parse_qsl(query):
            asked_for = Query.of({key: "x" if "$" in value else value})
            assert getattr(asked_for, key) == ("x" if "$" in value else value), "the page knows it"
            assert set(re.findall(r"__field\.labels\.(\w+)", value)) <= kept


def test_the_board_leads_to_the_page() -> None:
    (link,) = BOARD["links"]
    assert link["url"] == "${page}/"
    assert [one["type"] for one in BOARD["templating"]["list"] if one["name"] == "page"] == ["textbox"]

"""What a report of a pass counts and names, for people and for programs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from builders import NOW, access, record
from palette_sync.core.model import AccessState, PaletteFacts
from palette_sync.core.reasons import Reason
from palette_sync.reconcile.report import Change, Effect, PassReport, joined, palette_change
from palette_sync.service.requests import LISTED, NAMED, document, summary


def report(**changes: Any) -> PassReport:
    facts: dict[str, Any] = {"started_at": NOW, "duration_s": 1.0, "version_before": 3, "version": 4, "due": 8}
    return PassReport("alpha", **(facts | {"pass_id": "id", "access": {"ready": 8}} | changes))


def change(name: str, *effects: Effect, reason: Reason = Reason.UNREACHABLE) -> Change:
    return Change(name, name, "team-a", effects, reason, f"why {name}")


@pytest.mark.parametrize(
    ("changes", "well"),
    [
        pytest.param({}, True, id="nothing happened"),
        pytest.param({"access": {"ready": 7, "pending": 1}}, True, id="one waits for its first access"),
        pytest.param({"access": {"ready": 7, "failed": 1}}, False, id="one waits for its next attempt"),
        pytest.param({"access": {"ready": 7, "degraded": 1}}, False, id="one cannot be checked"),
        pytest.param({"held": 8}, False, id="drops are held"),
        pytest.param({"silent": 1}, False, id="one has not answered yet"),
        pytest.param({"error": "401"}, False, id="Palette cannot be listed"),
        pytest.param({"changes": (change("a", Effect.FAILED),)}, False, id="one failed in this pass"),
    ],
)
def test_a_pass_after_which_all_is_well(changes: dict[str, Any], *, well: bool) -> None:
    assert report(**changes).all_well is well


def test_clusters_that_have_not_answered_are_counted() -> None:
    assert "8 worked on, 0 changed, 3 not answered yet" in summary(report(silent=3))
    assert document(report(silent=3))["silent"] == 3


def test_the_report_of_passes_that_continue_one_another_counts_each_cluster_once() -> None:
    first = report(
        due=8, postponed=("a", "b", "c"), changes=(change("z", Effect.UPDATED),), problems=("p",), kube_requests=7
    )
    rest = report(
        pass_id="later", version_before=4, version=6, due=3, changes=(change("a", Effect.ROTATED),), kube_requests=2
    )

    both = joined(first, rest)

    assert (both.pass_id, both.due, both.postponed) == ("id", 8, ())
    assert (both.version_before, both.version, both.duration_s, both.kube_requests) == (3, 6, 2.0, 9)
    assert [one.name for one in both.changes] == ["z", "a"]
    assert both.problems == ("p",)


def test_what_is_held_or_failed_is_no_change() -> None:
    changes = (
        *(change(f"h{number}", Effect.HELD, reason=Reason.PRUNE_HELD) for number in range(8)),
        change("f", Effect.FAILED),
        change("u", Effect.FAILED, Effect.UPDATED),
        change("r", Effect.ROTATED),
    )
    held = report(changes=changes, held=8)

    assert held.changed == 2
    assert summary(held) == (
        "8 ready; version 4; 8 worked on, 2 changed, 8 held (`palette-sync resync --allow-prune` drops them); "
        "failed: f (Unreachable), u (Unreachable)"
    )
    assert document(held)["changed"] == 2


def test_failed_clusters_are_named_and_of_many_only_the_first() -> None:
    many = report(changes=tuple(change(f"c{number:03}", Effect.FAILED) for number in range(LISTED + 1)))

    assert summary(many).count("Unreachable") == NAMED
    assert summary(many).endswith(" ...")
    listed = document(many)["failed"]
    assert isinstance(listed, list)
    assert len(listed) == LISTED
    assert listed[0] == {"name": "c000", "reason": "Unreachable", "message": "why c000"}


def test_a_lapse_is_a_lapse_in_the_log_and_not_something_that_palette_reports() -> None:
    before = record()
    lapsed = replace(before, access=access(AccessState.FAILED, Reason.TOKEN_LAPSED, "the token has expired"))

    change = palette_change(before, lapsed)

    assert (change.reason, change.message) == (Reason.TOKEN_LAPSED, "the token has expired")


def test_other_facts_of_palette_are_named() -> None:
    change = palette_change(record(), record(palette=PaletteFacts("Running", "UnHealthy"), title="new"))

    assert (change.reason, change.message) == (Reason.PALETTE_CHANGED, "title, palette")

"""Former versions, from the records of today back to any version that the history reaches."""

from __future__ import annotations

from typing import Any

import pytest

from builders import MINUTE, NOW
from palette_sync.core.history import (
    FormerVersion,
    TooOld,
    VersionChange,
    at_version,
    compared,
    differences,
    of_cluster,
    oldest_version,
    transitions,
)


def former(state: str = "ready", reason: str = "Verified", name: str = "web", **changes: Any) -> dict[str, Any]:
    return {"name": name, "title": f"{name}!", "access": {"state": state, "reason": reason, "message": ""}} | changes


# c1: published in 1, failed in 2, a new Kubernetes version in 5. c2: published in 3, dropped in 4. 6 rotates c1.
FAILED = former("failed", "Unreachable", access={"state": "failed", "reason": "Unreachable", "message": "no answer"})
NEWEST = former("failed", "Unreachable", access=FAILED["access"], kubernetes_version="v1.34")
CURRENT = {"c1": NEWEST}
ENTRIES = [
    FormerVersion(1, NOW, {"c1": None}),
    FormerVersion(2, NOW + MINUTE, {"c1": former()}),
    FormerVersion(3, NOW + 2 * MINUTE, {"c2": None}),
    FormerVersion(4, NOW + 3 * MINUTE, {"c2": former(name="db")}),
    FormerVersion(5, NOW + 4 * MINUTE, {"c1": FAILED}),
]
CHANGES = [
    VersionChange(1, NOW, put=frozenset({"c1"}), rotated=frozenset({"c1"})),
    VersionChange(4, NOW + 3 * MINUTE, drop=frozenset({"c2"})),
    VersionChange(6, NOW + 5 * MINUTE, rotated=frozenset({"c1"})),
]


def test_every_version_says_what_it_did_newest_first() -> None:
    found = transitions(ENTRIES, CHANGES, CURRENT)

    assert [(one.version, one.name, one.what, one.reason, one.details) for one in found] == [
        (6, "web", "new token", "Unreachable", ""),
        (5, "web", "changed", "Unreachable", "kubernetes_version"),
        (4, "db", "removed", "Verified", ""),
        (3, "db", "published", "Verified", ""),
        (2, "web", "ready → failed", "Unreachable", "no answer"),
        (1, "web", "published", "Verified", ""),
    ]
    assert [one.rotated for one in found] == [True, False, False, False, False, True]


def test_what_is_known_of_a_version_without_its_history() -> None:
    """A reader's user may read the changes, and not the history."""
    changes = [
        VersionChange(7, NOW, put=frozenset({"c1"}), rotated=frozenset({"c1"})),
        VersionChange(8, NOW, put=frozenset({"c1"})),
        VersionChange(9, NOW, drop=frozenset({"c2"})),
        VersionChange(10, NOW, rotated=frozenset({"c1"})),
    ]

    found = transitions([], changes, CURRENT)

    assert [(one.version, one.name, one.what) for one in found] == [
        (10, "web", "new token"),
        (9, "c2", "removed"),
        (8, "web", "changed"),
        (7, "web", "new token"),
    ]


def test_a_reason_that_changes_in_the_same_state_is_a_change_with_its_message() -> None:
    denied = former("failed", "Forbidden", access={"state": "failed", "reason": "Forbidden", "message": "403"})
    (one,) = transitions([FormerVersion(2, NOW, {"c1": FAILED})], [], {"c1": denied})

    assert (one.what, one.reason, one.details) == ("changed", "Forbidden", "403")


@pytest.mark.parametrize(("pause", "what"), [({"reason": "maintenance"}, "paused"), (None, "resumed")])
def test_a_pause_is_explained_by_who_asked_for_it_and_not_by_the_state_of_access(
    pause: dict[str, Any] | None, what: str
) -> None:
    free, held = former("ready", "Verified"), former("ready", "Verified", pause={"reason": "maintenance"})
    before, after = (free, held) if pause else (held, free)
    (one,) = transitions([FormerVersion(2, NOW, {"c1": before})], [], {"c1": after})

    assert (one.what, one.reason, one.explanation) == (what, "Verified", "maintenance")


def test_a_removal_is_not_explained_by_the_state_of_access_before_it() -> None:
    (one,) = transitions([FormerVersion(2, NOW, {"c1": FAILED})], [], {})

    assert (one.what, one.reason, one.explanation) == ("removed", "Unreachable", "")


def test_any_other_change_is_explained_by_its_reason_and_its_message() -> None:
    denied = former("failed", "Forbidden", access={"state": "failed", "reason": "Forbidden", "message": "403"})
    (one,) = transitions([FormerVersion(2, NOW, {"c1": FAILED})], [], {"c1": denied})

    assert one.explanation == "Forbidden: 403"


@pytest.mark.parametrize(
    ("version", "names"),
    [(1, {"c1": "ready"}), (2, {"c1": "failed"}), (3, {"c1": "failed", "c2": "ready"}), (4, {"c1": "failed"})],
)
def test_the_records_of_a_former_version(version: int, names: dict[str, str]) -> None:
    records = at_version(ENTRIES, CURRENT, version=version, newest=6)

    assert {uid: one["access"]["state"] for uid, one in records.items()} == names
    assert ("kubernetes_version" in records["c1"]) is False


def test_the_newest_version_is_what_is_published() -> None:
    assert at_version(ENTRIES, CURRENT, version=6, newest=6) == CURRENT
    assert at_version([], CURRENT, version=6, newest=6) == CURRENT


def test_a_version_beyond_the_history_is_refused_and_the_oldest_is_named() -> None:
    with pytest.raises(TooOld, match="the oldest is 2") as refused:
        at_version(ENTRIES[2:], CURRENT, version=1, newest=6)
    assert refused.value.oldest == oldest_version(ENTRIES[2:], newest=6) == 2
    with pytest.raises(TooOld):
        at_version([], CURRENT, version=5, newest=6)


@pytest.mark.parametrize("version", [0, 7])
def test_a_version_that_does_not_exist_is_refused(version: int) -> None:
    with pytest.raises(ValueError, match="the newest is 6"):
        at_version(ENTRIES, CURRENT, version=version, newest=6)


def test_differences_name_the_path_and_both_values() -> None:
    before = {"a": 1, "b": {"c": [1], "d": 2}, "e": {"f": 1}}
    after = {"a": 1, "b": {"c": [2], "d": 2}, "g": 3}

    assert differences(before, after) == [("b.c", [1], [2]), ("e", {"f": 1}, None), ("g", None, 3)]
    assert differences(None, None) == []


def test_two_versions_are_compared_by_name() -> None:
    older = {"c1": former(name="z"), "c2": former(name="b"), "c3": former(name="same")}
    newer = {"c1": former("failed", name="z"), "c4": former(name="a"), "c3": former(name="same")}

    assert [(uid, old is None, new is None) for uid, old, new in compared(older, newer)] == [
        ("c4", True, False),
        ("c2", False, True),
        ("c1", False, False),
    ]


@pytest.mark.parametrize(("wanted", "versions"), [("db", [4, 3]), ("db!", [4, 3]), ("c2", [4, 3]), ("nobody", [])])
def test_a_cluster_is_found_by_every_name_that_it_had(wanted: str, versions: list[int]) -> None:
    assert [one.version for one in of_cluster(transitions(ENTRIES, [], CURRENT), wanted)] == versions


def test_records_of_another_version_of_palette_sync_are_read_as_far_as_possible() -> None:
    odd: dict[str, Any] = {"access": "fine"}
    found = transitions([FormerVersion(2, NOW, {"c1": odd})], [], {"c1": {"unreadable_sha256": "x"}})

    assert [(one.name, one.what, one.reason) for one in found] == [("c1", "changed", "")]

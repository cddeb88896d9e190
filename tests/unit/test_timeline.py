"""The timeline draws 24 hours of slots, and lists what was notable and what changed last."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

from builders import HOUR, MINUTE, NOW, access, by_uid, head, record, records
from palette_sync.core.activity import SLOT, SLOTS, Asked, Slot
from palette_sync.core.history import FormerVersion, VersionChange
from palette_sync.core.model import AccessState, InstanceState
from palette_sync.core.reasons import Reason
from palette_sync.core.snapshot_codec import encode_record, record_in_history
from palette_sync.page.timeline import (
    MOST_CHANGES,
    MOST_NOTABLE,
    Timeline,
    changes_text,
    latest_changes,
    pass_kind,
    slot_text,
    timeline,
)

QUIET = {"listed": True, "failed": False}


def drawn(*slots: Slot) -> Timeline:
    return timeline({one.begins: one for one in slots}, now=NOW + MINUTE)


def places(found: Timeline, kind: str) -> list[int]:
    """Where the bars of that kind stand."""
    return [int(x) for bars in found.bars if bars.kind == kind for x in re.findall(r"M(\d+) ", bars.path)]


def test_each_slot_stands_where_its_time_is() -> None:
    found = drawn(
        Slot(NOW).with_pass(**QUIET),
        Slot(NOW - SLOT).with_pass(listed=True, failed=True),
        Slot(NOW - 2 * SLOT).with_pass(**QUIET, changes={"failed": 1}),
        Slot(NOW - timedelta(days=1) + SLOT).with_pass(**QUIET, changes={"rotated": 3}, palette=1),
        Slot(NOW - timedelta(days=1)).with_pass(**QUIET),
    )
    assert places(found, "fine") == [0, SLOTS - 1]
    assert places(found, "failed") == [SLOTS - 2]
    assert places(found, "partial") == [SLOTS - 3]
    assert places(found, "changed") == places(found, "palette") == [0]
    assert places(found, "asked") == []


def test_one_change_shows_beside_thousands() -> None:
    slots = [
        Slot(NOW).with_pass(**QUIET, changes={"rotated": 9999}),
        Slot(NOW - SLOT).with_pass(**QUIET, changes={"rotated": 1}),
    ]
    (path,) = [bars.path for bars in drawn(*slots).bars if bars.kind == "changed"]
    heights = [float(height) for height in re.findall(r"v-([\d.]+)", path)]
    assert min(heights) >= 2
    assert max(heights) == 16


def test_the_notable_slots_are_listed_newest_first_and_counted() -> None:
    slots = [Slot(NOW - number * SLOT).with_pass(**QUIET, changes={"rotated": 1}) for number in range(MOST_NOTABLE + 5)]
    found = drawn(*slots, Slot(NOW - 200 * SLOT).with_pass(**QUIET))
    assert [point.slot.begins for point in found.points] == [one.begins for one in slots[:MOST_NOTABLE]]
    assert found.notable == MOST_NOTABLE + 5
    assert (found.total.passes, found.total.changed) == (MOST_NOTABLE + 6, MOST_NOTABLE + 5)


def test_nothing_known_is_an_empty_drawing() -> None:
    found = timeline({}, now=NOW)
    assert (found.bars, found.points, found.total.passes) == ((), (), 0)
    assert pass_kind(Slot(NOW)) == ""


def test_a_slot_in_words() -> None:
    slot = Slot(NOW).with_pass(listed=True, failed=True, error="away", palette=3, changes={"rotated": 2, "dropped": 0})
    assert changes_text(slot) == "2 rotated"
    assert slot_text(slot.with_asked(Asked(NOW, "resync", "somebody"))) == (
        "1 pass (1 listed Palette, 1 failed); 2 rotated; 3 requests to Palette and 0 to clusters; "
        "resync asked by somebody; away"
    )
    for number in range(4):
        slot = slot.with_asked(Asked(NOW, "resync", str(number)))
    assert "4 requests of operators" in slot_text(slot)
    assert "nothing changed" in slot_text(Slot(NOW).with_pass(**QUIET))


# -- changes ----------------------------------------------------------------------------------------------------------


def was(**changes: Any) -> dict[str, Any]:
    return dict(record_in_history(encode_record(record(**changes))))


def test_the_newest_changes_have_their_reason() -> None:
    failed = access(AccessState.FAILED, Reason.UNREACHABLE, "no answer")
    state = InstanceState(head=head(version=3), records=by_uid(record(access=failed)))
    entries = [
        FormerVersion(2, NOW - HOUR, {"gone": was(uid="gone", name="old")}),
        FormerVersion(3, NOW, {"c1": was()}),
    ]
    changes = [
        VersionChange(1, NOW - 2 * HOUR, rotated=frozenset({"c1"})),
        VersionChange(2, NOW - HOUR, drop=frozenset({"gone"})),
        VersionChange(3, NOW, put=frozenset({"c1"})),
        VersionChange(4, NOW, put=frozenset({"c1"})),  # it was read before the version of it
    ]
    found = latest_changes(state, entries, changes)
    assert [(one.version, one.name, one.what, one.reason) for one in found] == [
        (3, "alpha-web", "ready → failed", "Unreachable"),
        (2, "old", "removed", "Verified"),
        (1, "alpha-web", "new token", "Verified"),
    ]


def test_of_many_changes_only_the_newest_are_looked_at() -> None:
    found = records(500)
    state = InstanceState(head=head(version=9), records=found)
    changes = [VersionChange(version, NOW, rotated=frozenset(found)) for version in range(1, 10)]
    latest = latest_changes(state, [], changes)
    assert [one.version for one in latest] == [9] * MOST_CHANGES
    assert latest_changes(InstanceState(), [], changes) == []

"""What the daemon did is counted in slots of five minutes, which keep a bounded size."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

import strategies
from builders import HOUR, MINUTE, NOW
from palette_sync.core.activity import (
    DAY,
    LONGEST,
    MOST_ASKED,
    SLOT,
    Asked,
    Slot,
    decode_slot,
    encode_slot,
    is_of_day,
    joined,
    slot_begin,
)
from palette_sync.core.documents import DocumentError
from palette_sync.store.bounds import BOUNDS

SLOTS = st.builds(
    Slot,
    begins=st.just(NOW),
    passes=strategies.numbers,
    listings=strategies.numbers,
    failed=strategies.numbers,
    error=strategies.texts,
    longest_ms=strategies.numbers,
    palette=strategies.numbers,
    kube=strategies.numbers,
    changes=st.dictionaries(strategies.texts, strategies.numbers, max_size=3),
    asked=st.lists(st.builds(Asked, strategies.times, strategies.texts, strategies.texts), max_size=3).map(tuple),
)


@given(SLOTS)
def test_a_slot_survives_encoding(slot: Slot) -> None:
    assert decode_slot(NOW, encode_slot(slot)) == slot


def test_a_slot_counts_passes_and_keeps_the_last_error() -> None:
    slot = Slot(NOW).with_pass(listed=True, failed=True, error="away", duration_s=0.5, palette=4)
    slot = slot.with_pass(listed=False, failed=False, error="not this", duration_s=1.25, kube=7, changes={"rotated": 2})
    slot = slot.with_pass(listed=False, failed=False, changes={"rotated": 1, "failed": 3})

    assert (slot.passes, slot.listings, slot.failed, slot.error) == (3, 1, 1, "away")
    assert (slot.palette, slot.kube, slot.longest_ms) == (4, 7, 1250)
    assert (slot.changes, slot.changed, slot.attempts) == ({"rotated": 3, "failed": 3}, 3, 3)


@pytest.mark.parametrize(
    ("slot", "notable"),
    [
        (Slot(NOW).with_pass(listed=True, failed=False), False),
        (Slot(NOW).with_pass(listed=True, failed=True), True),
        (Slot(NOW).with_pass(listed=True, failed=False, changes={"rotated": 1}), True),
        (Slot(NOW).with_asked(Asked(NOW, "resync", "somebody")), True),
    ],
)
def test_a_pass_that_finds_nothing_to_do_is_not_notable(slot: Slot, *, notable: bool) -> None:
    assert slot.notable is notable


def test_whatever_happens_in_a_slot_redis_takes_it() -> None:
    slot = Slot(NOW)
    for number in range(3 * MOST_ASKED):
        slot = slot.with_pass(listed=True, failed=True, error="\x00\U0001f600" * 9999, changes={"rotated": 10**6})
        slot = slot.with_asked(Asked(NOW, "resync --allow-prune", f"{number}" + "\U0001f600" * 9999))

    assert len(slot.asked) == MOST_ASKED
    assert [len(one.by) <= LONGEST for one in slot.asked] == [True] * MOST_ASKED
    assert len(encode_slot(slot)) < BOUNDS.document


def test_two_processes_that_lead_in_one_slot_add_up() -> None:
    asked = [Asked(NOW, "resync", str(number)) for number in range(MOST_ASKED + 1)]
    one = Slot(NOW, 1, 1, 1, "first", 9, 2, 3, {"rotated": 1}, tuple(asked[:MOST_ASKED]))
    other = Slot(NOW, 2, 0, 0, "", 5, 1, 1, {"rotated": 1, "dropped": 4}, (asked[-1],))

    assert joined(one, other) == Slot(NOW, 3, 1, 1, "first", 9, 3, 4, {"rotated": 2, "dropped": 4}, one.asked)
    assert joined(other, one).error == "first"


def test_a_slot_begins_at_five_minutes_and_lives_for_a_day() -> None:
    assert slot_begin(NOW + timedelta(minutes=9, seconds=59)) == NOW + SLOT
    assert is_of_day(NOW, NOW + MINUTE)
    assert is_of_day(NOW - DAY + SLOT, NOW + MINUTE)
    assert not is_of_day(NOW - DAY, NOW + MINUTE)
    assert not is_of_day(NOW + HOUR, NOW), "the clock of another machine"


@pytest.mark.parametrize("raw", [b"[]", b"{}", b'{"passes":-1}', b"\xff"])
def test_what_is_no_slot_is_refused(raw: bytes) -> None:
    with pytest.raises(DocumentError):
        decode_slot(NOW, raw)


def test_counts_are_whole_numbers() -> None:
    good = encode_slot(Slot(NOW, changes={"rotated": 1}))
    with pytest.raises(DocumentError, match=r"changes\.rotated"):
        decode_slot(NOW, good.replace(b'"rotated":1', b'"rotated":"1"'))

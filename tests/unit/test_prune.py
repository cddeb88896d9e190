"""The prune guard: a large loss waits for three passes, everything else goes at once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from palette_sync.core.prune import FEW, PASSES, SHARE, prune
from palette_sync.core.select import Selection


def lost(count: int) -> frozenset[str]:
    return frozenset(f"c{number}" for number in range(count))


def test_a_small_loss_goes_at_once() -> None:
    pruning = prune(Selection(disappeared=lost(5)), total=5, missed={})

    assert pruning.drop == dict.fromkeys(lost(5), "Disappeared")
    assert pruning.held == {}


def test_a_loss_of_less_than_a_third_of_many_goes_at_once() -> None:
    assert len(prune(Selection(disappeared=lost(30)), total=100, missed={}).drop) == 30


def test_a_large_loss_is_held_and_counted() -> None:
    pruning = prune(Selection(disappeared=lost(6)), total=12, missed={"c0": 1, "back": 2})

    assert pruning.drop == {}
    assert pruning.held == {"c0": 2} | dict.fromkeys(lost(6) - {"c0"}, 1)


def test_the_third_pass_that_agrees_drops() -> None:
    missed = dict.fromkeys(lost(6), PASSES - 1)

    assert prune(Selection(disappeared=lost(6)), total=12, missed=missed).drop == dict.fromkeys(lost(6), "Disappeared")


def test_an_operator_may_allow_it() -> None:
    assert len(prune(Selection(disappeared=lost(12)), total=12, missed={}, allow=True).drop) == 12


def test_what_is_deselected_never_waits() -> None:
    dropped = dict.fromkeys(lost(12), "ProjectExcluded")

    assert prune(Selection(dropped=dropped), total=12, missed={}).drop == dropped


def test_a_pass_that_could_not_look_keeps_the_count() -> None:
    pruning = prune(Selection(kept=frozenset({"c1"})), total=12, missed={"c1": 2, "c2": 2})

    assert pruning.held == {"c1": 2}


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, PASSES - 2))
def test_one_pass_never_drops_both_many_and_much(total: int, gone: int, before: int) -> None:
    gone = min(gone, total)
    pruning = prune(Selection(disappeared=lost(gone)), total=total, missed=dict.fromkeys(lost(gone), before))

    assert len(pruning.drop) <= max(FEW, SHARE * total)
    assert pruning.drop.keys() | pruning.held.keys() == lost(gone)

"""The prune guard: a wrong listing empties no portal, and clusters that an operator deselects are dropped at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palette_sync.core.prune import PASSES, prune
from palette_sync.core.select import Selection

if TYPE_CHECKING:
    from palette_sync.core.prune import Pruning


def uids(count: int) -> frozenset[str]:
    return frozenset(f"c{number}" for number in range(count))


def passes(gone: frozenset[str], *, total: int, count: int) -> list[Pruning]:
    """Run passes in a row over the same loss. Each gives its held clusters to the next, as the status document does."""
    held: dict[str, int] = {}
    done = []
    for _ in range(count):
        done.append(prune(Selection(disappeared=gone), total=total, missed=held))
        held = dict(done[-1].held)
    return done


@pytest.mark.parametrize(
    ("gone", "total", "held"),
    [
        pytest.param(0, 0, False, id="no clusters and no loss"),
        pytest.param(1, 1, False, id="the only cluster is dropped"),
        pytest.param(5, 5, False, id="five are dropped although they are all there is"),
        pytest.param(6, 6, True, id="six of six wait"),
        pytest.param(6, 20, False, id="six of twenty are exactly thirty percent and are dropped"),
        pytest.param(6, 19, True, id="six of nineteen are more than thirty percent and are held"),
        pytest.param(30, 100, False, id="thirty of a hundred go"),
        pytest.param(31, 100, True, id="thirty-one of a hundred are held"),
        pytest.param(100, 100, True, id="an empty listing instead of a hundred is held"),
    ],
)
def test_a_loss_is_held_only_if_both_its_number_and_its_share_are_large(gone: int, total: int, *, held: bool) -> None:
    found = prune(Selection(disappeared=uids(gone)), total=total, missed={})

    assert found.drop == ({} if held else dict.fromkeys(uids(gone), "Disappeared"))
    assert found.held == (dict.fromkeys(uids(gone), 1) if held else {})


def test_a_large_loss_is_dropped_when_three_passes_agree() -> None:
    first, second, third = passes(uids(10), total=10, count=3)

    assert (first.drop, set(first.held.values())) == ({}, {1})
    assert (second.drop, set(second.held.values())) == ({}, {2})
    assert (third.drop, third.held) == (dict.fromkeys(uids(10), "Disappeared"), {})


def test_passes_are_counted_for_each_cluster() -> None:
    found = prune(Selection(disappeared=uids(10)), total=10, missed=dict.fromkeys(uids(7), 2))

    assert found.drop.keys() == uids(7)
    assert found.held == dict.fromkeys(uids(10) - uids(7), 1)


def test_the_count_starts_again_for_a_cluster_that_came_back() -> None:
    found = prune(Selection(), total=10, missed=dict.fromkeys(uids(10), 2))

    assert found.held == {}


def test_a_pass_without_a_listing_neither_counts_nor_forgets() -> None:
    found = prune(Selection(kept=uids(10)), total=10, missed=dict.fromkeys(uids(7), 2))

    assert found.drop == {}
    assert found.held == dict.fromkeys(uids(7), 2)


def test_an_operator_can_drop_a_large_loss_at_once() -> None:
    found = prune(Selection(disappeared=uids(10)), total=10, missed={}, allow=True)

    assert found.drop == dict.fromkeys(uids(10), "Disappeared")
    assert found.held == {}


def test_deselected_and_deleted_clusters_are_never_held_and_do_not_count_as_lost() -> None:
    dropped = dict.fromkeys(uids(100), "TagExcluded")

    found = prune(Selection(dropped=dropped, disappeared=frozenset({"a", "b"})), total=102, missed={})

    assert found.drop == dropped | {"a": "Disappeared", "b": "Disappeared"}


def test_deselected_clusters_are_dropped_even_while_a_loss_is_held() -> None:
    found = prune(Selection(dropped={"x": "Deleted"}, disappeared=uids(10)), total=11, missed={})

    assert found.drop == {"x": "Deleted"}
    assert found.held.keys() == uids(10)


@given(total=st.integers(0, 300), share=st.floats(0, 1), before=st.integers(0, PASSES - 2))
def test_no_pass_before_the_third_drops_more_than_five_and_more_than_thirty_percent(
    total: int, share: float, before: int
) -> None:
    gone = uids(round(total * share))

    found = prune(Selection(disappeared=gone), total=total, missed=dict.fromkeys(gone, before))

    assert len(found.drop) <= 5 or 100 * len(found.drop) <= 30 * total


@given(total=st.integers(0, 300), share=st.floats(0, 1))
def test_every_lasting_loss_is_dropped_after_three_passes(total: int, share: float) -> None:
    gone = uids(round(total * share))

    done = passes(gone, total=total, count=PASSES)

    assert any(one.drop.keys() == gone for one in done)


@given(
    st.sets(st.sampled_from(sorted(uids(30)))), st.dictionaries(st.sampled_from(sorted(uids(30))), st.integers(0, 9))
)
def test_every_disappeared_record_is_either_dropped_or_held(gone: set[str], missed: dict[str, int]) -> None:
    found = prune(Selection(disappeared=frozenset(gone)), total=30, missed=missed)

    assert found.drop.keys() | found.held.keys() == gone
    assert not found.drop.keys() & found.held.keys()

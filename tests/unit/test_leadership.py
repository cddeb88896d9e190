"""Which process leads which instance, as every process decides it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palette_sync.core.leadership import (
    Decision,
    Member,
    Share,
    Standing,
    Store,
    assignment,
    decide,
    may_move,
    remembered_more,
)

NOW = datetime(2026, 7, 15, 12, 0, tzinfo=UTC)
WINDOW = timedelta(seconds=15)
FULL = Store((5, 7))
EMPTY = Store(None, NOW)
EMPTY_FOR_LONG = Store(None, NOW - WINDOW)


def member(name: str, *instances: str, configuration: str = "c", loaded: int = 0, **share: object) -> Member:
    shares = {one: Share(**share) for one in instances or ("alpha",)}  # type: ignore[arg-type]
    return Member(name, configuration, NOW + timedelta(seconds=loaded), shares=shares)


def standings(store: Store, *members: Member, instance: str = "alpha") -> dict[str, Standing]:
    return {one.id: decide(instance, one, members, store, window=WINDOW, now=NOW).standing for one in members}


def leaders(found: dict[str, Standing]) -> list[str]:
    return [name for name, standing in found.items() if standing is Standing.LEADS]


def test_a_process_alone_leads() -> None:
    assert standings(FULL, member("a")) == {"a": Standing.LEADS}


def test_of_two_equal_processes_one_leads_and_the_other_knows_which() -> None:
    members = (member("a"), member("b"))
    decisions = {one.id: decide("alpha", one, members, FULL, window=WINDOW, now=NOW) for one in members}
    (leader,) = [name for name, one in decisions.items() if one.leads]
    (other,) = decisions.keys() - {leader}

    assert decisions[other] == Decision(Standing.ANOTHER_LEADS, leader)


@pytest.mark.parametrize(
    ("obstacle", "standing"),
    [
        ({"verifies": False}, Standing.KEYS_DIFFER),
        ({"rests_until": NOW + timedelta(seconds=1)}, Standing.STEPPED_BACK),
    ],
)
def test_who_cannot_lead_well_leaves_it_to_another_one(obstacle: dict[str, object], standing: Standing) -> None:
    hindered, able = member("a", **obstacle), member("b")

    assert standings(FULL, hindered, able) == {"a": standing, "b": Standing.LEADS}
    assert standings(FULL, hindered) == {"a": Standing.LEADS}, "nobody else can"


def test_a_rest_ends() -> None:
    assert leaders(standings(FULL, member("a", rests_until=NOW))) == ["a"]


def test_who_drains_does_not_lead() -> None:
    assert standings(FULL, replace(member("a"), draining=True), member("b")) == {
        "a": Standing.DRAINING,
        "b": Standing.LEADS,
    }


def test_the_configuration_that_was_loaded_last_leads() -> None:
    old, new = member("a", configuration="old"), member("b", configuration="new", loaded=1)

    assert standings(FULL, old, new) == {"a": Standing.CONFIG_DIFFERS, "b": Standing.LEADS}
    assert decide("alpha", old, (old, new), FULL, window=WINDOW, now=NOW).instead == "b"
    assert standings(FULL, old) == {"a": Standing.LEADS}


def test_a_configuration_that_only_a_draining_process_has_does_not_count() -> None:
    old = member("a", configuration="old")
    gone = replace(member("b", configuration="new", loaded=1), draining=True)

    assert standings(FULL, old, gone) == {"a": Standing.LEADS, "b": Standing.DRAINING}


@pytest.mark.parametrize("store", [EMPTY, EMPTY_FOR_LONG, Store((5, 6))], ids=["empty", "empty for long", "older"])
def test_a_store_that_lost_something_is_filled_by_the_newest_memory(store: Store) -> None:
    none, older, newest = member("a"), member("b", memory=(5, 6)), member("c", memory=(5, 7))

    for order in permutations((none, older, newest)):
        found = standings(store, *order)
        assert found == {"a": Standing.OLDER_MEMORY, "b": Standing.OLDER_MEMORY, "c": Standing.LEADS}
    assert decide("alpha", none, (none, older, newest), store, window=WINDOW, now=NOW).instead == "c"


def test_the_newest_memory_fills_a_store_that_lost_something_before_the_newest_configuration_leads() -> None:
    remembers = member("a", configuration="old", memory=(5, 7))
    new = member("b", configuration="new", loaded=1, memory=(5, 6))

    assert standings(Store((5, 6)), remembers, new) == {"a": Standing.LEADS, "b": Standing.OLDER_MEMORY}
    assert standings(EMPTY_FOR_LONG, remembers, new) == {"a": Standing.LEADS, "b": Standing.OLDER_MEMORY}
    assert standings(FULL, remembers, new) == {"a": Standing.CONFIG_DIFFERS, "b": Standing.LEADS}
    assert standings(EMPTY_FOR_LONG, member("a", configuration="old"), member("b", configuration="new", loaded=1)) == {
        "a": Standing.CONFIG_DIFFERS,
        "b": Standing.LEADS,
    }


def test_of_two_equal_memories_one_fills_the_store() -> None:
    found = standings(EMPTY, member("a", memory=(5, 7)), member("b", memory=(5, 7)), member("c"))

    assert sorted(found.values()) == [Standing.ANOTHER_LEADS, Standing.LEADS, Standing.OLDER_MEMORY]


def test_a_store_that_holds_more_than_anybody_knows_can_be_led_by_everybody() -> None:
    found = standings(Store((6, 1)), member("a"), member("b", memory=(5, 7)))

    assert sorted(found.values()) == [Standing.ANOTHER_LEADS, Standing.LEADS]


def test_on_an_empty_store_nobody_begins_from_nothing_before_the_window_has_passed() -> None:
    assert standings(EMPTY, member("a"), member("b")) == {"a": Standing.NO_MEMORY, "b": Standing.NO_MEMORY}
    assert len(leaders(standings(EMPTY_FOR_LONG, member("a"), member("b")))) == 1
    assert leaders(standings(Store(None), member("a", memory=(1, 1)))) == ["a"]


def test_an_instance_that_only_one_process_has_is_led_by_it() -> None:
    both, one = member("a", "alpha", "beta"), member("b", "alpha")

    assert decide("beta", both, (both, one), FULL, window=WINDOW, now=NOW).leads


def test_the_memory_of_one_instance_does_not_move_another_one() -> None:
    knowing = Member("a", "c", NOW, shares={"alpha": Share(memory=(9, 9)), "beta": Share()})
    other = Member("b", "c", NOW, shares={"alpha": Share(), "beta": Share()})

    assert leaders(standings(FULL, knowing, other)) == ["a"]
    assert len(leaders(standings(FULL, knowing, other, instance="beta"))) == 1


@given(st.integers(1, 40), st.integers(1, 6))
def test_instances_are_shared_evenly(instances: int, members: int) -> None:
    names = [f"i{n}" for n in range(instances)]
    ids = [f"m{n}" for n in range(members)]

    given_to = assignment(names, dict.fromkeys(names, ids))

    loads = [list(given_to.values()).count(one) for one in ids]
    assert sum(loads) == instances
    assert max(loads) <= -(-instances // members)


def test_a_process_that_ends_moves_few_instances_beside_its_own() -> None:
    names = [f"i{n}" for n in range(40)]
    ids = ["a", "b", "c", "d"]
    before = assignment(names, dict.fromkeys(names, ids))

    after = assignment(names, dict.fromkeys(names, ids[1:]))

    own = sum(one == "a" for one in before.values())
    moved = sum(before[name] != after[name] for name in names)
    assert own == 10
    assert moved <= 2 * own


def test_all_living_processes_agree_on_one_leader_for_each_instance() -> None:
    names = ("alpha", "beta", "gamma", "delta")
    members = tuple(member(one, *names) for one in ("a", "b"))

    led = {name: leaders(standings(FULL, *members, instance=name)) for name in names}

    assert all(len(one) == 1 for one in led.values())
    assert sorted(one[0] for one in led.values()) == ["a", "a", "b", "b"]


def test_a_move_for_an_even_load_waits_a_minute_after_the_one_before() -> None:
    assert may_move(None, NOW)
    assert not may_move(NOW - timedelta(seconds=59), NOW)
    assert may_move(NOW - timedelta(seconds=60), NOW)


def test_nobody_fills_a_store_that_lost_data_before_all_living_processes_are_heard_again() -> None:
    older, newer = member("a", memory=(5, 6)), member("b", memory=(5, 7))

    def found(store: Store, unheard: set[str]) -> Standing:
        return decide("alpha", older, [older, newer], store, window=WINDOW, now=NOW, unheard=unheard).standing

    assert found(EMPTY_FOR_LONG, {"b"}) is Standing.OTHERS_UNHEARD
    assert found(Store((5, 5)), {"b"}) is Standing.OTHERS_UNHEARD
    assert found(EMPTY_FOR_LONG, set()) is Standing.OLDER_MEMORY
    assert found(FULL, {"b"}) in {Standing.LEADS, Standing.ANOTHER_LEADS}, "Redis holds all that anybody knew"


def test_a_process_with_nothing_to_lose_does_not_wait_for_those_that_run_other_instances() -> None:
    me, other = member("a"), member("b", "bravo")

    found = decide("alpha", me, [me, other], EMPTY_FOR_LONG, window=WINDOW, now=NOW, unheard={"b"})

    assert found.standing is Standing.LEADS


def test_somebody_remembers_more_than_redis_holds() -> None:
    members = [member("a", memory=(5, 7)), member("b"), member("c", "bravo", memory=(9, 9))]

    assert remembered_more("alpha", members, (5, 6))
    assert remembered_more("alpha", members, None)
    assert not remembered_more("alpha", members, (5, 7))
    assert not remembered_more("alpha", members[1:], None), "nobody remembers anything, as at the first start"

"""The prune guard: no answer of Palette empties a portal at once, and what was deleted or deselected goes at once."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import (
    NOW,
    TEAM_A,
    TEAM_B,
    by_uid,
    cluster,
    discovery,
    listing,
    record,
    tenant_cluster,
    tenant_listing,
    tenant_record,
)
from palette_sync.core.prune import (
    Absence,
    Guard,
    absences_of,
    absences_to_dict,
    is_large,
    prune,
    review,
)
from palette_sync.core.reasons import Reason
from palette_sync.core.select import Filters, Selection, select

if TYPE_CHECKING:
    from palette_sync.core.model import ClusterRecord, Discovery
    from palette_sync.core.prune import Pruning

GUARD = Guard()
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
LISTED = Reason.NOT_LISTED
HELD, LOST = Reason.PRUNE_HELD, Reason.ACCESS_LOST


def of_a(*numbers: int) -> dict[str, ClusterRecord]:
    return by_uid(*(record(f"a{number}", f"alpha-a{number}", project=TEAM_A) for number in numbers))


def of_b(*numbers: int) -> dict[str, ClusterRecord]:
    return by_uid(*(record(f"b{number}", f"alpha-b{number}", project=TEAM_B) for number in numbers))


def found(
    *, a: Any = (), b: Any = (), tenant: bool | None = None, projects: Any = (TEAM_A, TEAM_B), **facts: Any
) -> Discovery:
    """A discovery that lists these clusters of both teams; None for a listing that failed. `tenant`: it lists the one
    tenant-scoped cluster, or may not list that scope (False).
    """
    listings = []
    for team, numbers, letter in ((TEAM_A, a, "a"), (TEAM_B, b, "b")):
        if team in projects:
            rows = [cluster(f"{letter}{number}", project=team) for number in numbers or ()]
            listings.append(listing(team, *rows, error="503" if numbers is None else None))
    if tenant is not None:
        rows = [tenant_cluster("t1")] if tenant else []
        listings.append(tenant_listing(*rows, not_permitted=not tenant))
    return replace(discovery(*listings, projects=projects), **facts)


class Life:
    """Passes one after another. Each gives what it notes to the next, as the status document does."""

    def __init__(self, records: dict[str, ClusterRecord], guard: Guard = GUARD) -> None:
        self.records = dict(records)
        self.guard = guard
        self.noted: dict[str, Absence] = {}
        self.now = NOW

    def after(self, span: timedelta, seen: Discovery, *, scheduled: bool = True, allow: bool = False) -> Pruning:
        self.now += span
        selection = select(seen, self.records, Filters())
        done = prune(
            selection, self.records, self.noted, now=self.now, guard=self.guard, scheduled=scheduled, allow=allow
        )
        self.noted = absences_of({"held": absences_to_dict(done.absent)})
        self.records = {uid: one for uid, one in self.records.items() if uid not in done.drop}
        return done


def reasons(done: Pruning) -> dict[str, Reason]:
    return {uid: one.reason for uid, one in done.absent.items()}


# -- a small loss -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "dropped"),
    [
        pytest.param([(0, True)], False, id="one listing drops nothing"),
        pytest.param([(0, True), (10, True)], True, id="a second one after ten minutes does"),
        pytest.param([(0, True), (9, True)], False, id="a second one too early does not"),
        pytest.param([(0, True), (9, True), (1, True)], True, id="a third one, ten minutes after the first, does"),
        pytest.param([(0, False), (1, False), (1, False), (60, False)], False, id="resyncs alone never do"),
        pytest.param([(0, False), (10, True)], False, id="a resync is no first listing"),
        pytest.param([(0, True), (10, False)], False, id="a resync is no second listing"),
        pytest.param([(0, True), (0.05, True), (0.05, False)], False, id="two passes and a resync within seconds"),
    ],
)
def test_a_small_loss_is_dropped_by_two_scheduled_listings_ten_minutes_apart(
    steps: list[tuple[float, bool]], *, dropped: bool
) -> None:
    life = Life(of_a(*range(10)))

    done = [life.after(minutes * MINUTE, found(a=range(9)), scheduled=scheduled) for minutes, scheduled in steps]

    assert done[-1].drop == ({"a9": Reason.DISAPPEARED} if dropped else {})
    assert all(not one.drop for one in done[:-1])
    assert all(reasons(one) == {"a9": LISTED} for one in (done[:-1] if dropped else done))


def test_an_absence_names_its_times_and_what_a_resync_missed_is_not_counted() -> None:
    life = Life(of_a(*range(10)))

    (resync,) = life.after(MINUTE, found(a=range(9)), scheduled=False).absent.values()
    (first,) = life.after(MINUTE, found(a=range(9))).absent.values()

    assert (resync.since, resync.counted_from, resync.until, resync.held) == (NOW + MINUTE, None, None, False)
    assert (first.since, first.counted_from, first.until) == (NOW + MINUTE, NOW + 2 * MINUTE, NOW + 12 * MINUTE)
    assert not first.held


def test_a_large_loss_that_a_resync_finds_is_held_and_its_time_begins_with_a_scheduled_listing() -> None:
    life = Life(of_a(*range(10)))

    resync = life.after(MINUTE, found(), scheduled=False)
    first = life.after(HOUR, found())

    assert resync.held == first.held == of_a(*range(10)).keys()
    assert {one.until for one in resync.absent.values()} == {None}
    assert {one.until for one in first.absent.values()} == {life.now + 24 * HOUR}


def test_a_cluster_that_any_listing_shows_again_begins_anew() -> None:
    life = Life(of_a(*range(10)))
    life.after(MINUTE, found(a=range(9)))
    life.after(9 * MINUTE, found(a=range(10)), scheduled=False)

    done = life.after(5 * MINUTE, found(a=range(9)))

    assert not done.drop
    assert done.absent["a9"].since == life.now


def test_a_failed_listing_neither_confirms_nor_forgets() -> None:
    life = Life(of_a(*range(10)))
    life.after(MINUTE, found(a=range(9)))

    failed = life.after(20 * MINUTE, found(a=None))
    done = life.after(MINUTE, found(a=range(9)))

    assert not failed.drop
    assert reasons(failed) == {"a9": LISTED}
    assert done.drop == {"a9": Reason.DISAPPEARED}


def test_a_short_listing_neither_confirms_nor_begins_an_absence() -> None:
    short = replace(listing(TEAM_A, *(cluster(f"a{number}") for number in range(9))), short="9 of 10")
    life = Life(of_a(*range(10)))

    done = [life.after(20 * MINUTE, discovery(short, projects=(TEAM_A,))) for _ in range(3)]

    assert all(not one.drop and not one.absent for one in done)


def test_a_short_project_list_says_nothing_about_projects_that_it_lacks() -> None:
    life = Life(of_a(1) | of_b(1))

    done = [life.after(20 * MINUTE, found(a=[1], projects=(TEAM_A,), short="1 of 2")) for _ in range(3)]

    assert all(not one.drop and not one.absent for one in done)


def test_a_clock_that_went_back_begins_an_absence_anew() -> None:
    life = Life(of_a(*range(10)))
    life.after(HOUR, found(a=range(9)))

    done = life.after(-2 * HOUR, found(a=range(9)))

    assert (done.absent["a9"].since, done.absent["a9"].counted_from) == (life.now, life.now)


# -- a large loss -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("records", "seen", "held"),
    [
        pytest.param(of_a(1), found(), {"a1": HELD}, id="the only cluster of an instance"),
        pytest.param(of_a(1, 2, 3, 4), found(), dict.fromkeys(of_a(1, 2, 3, 4), HELD), id="an empty 200 for a few"),
        pytest.param(
            of_a(*range(20)) | of_b(1), found(a=range(20)), {"b1": HELD}, id="a scope without rows, of one cluster"
        ),
        pytest.param(of_a(*range(10)), found(a=range(7)), {}, id="three of ten"),
        pytest.param(
            of_a(*range(10)), found(a=range(6)), {"a6": HELD, "a7": HELD, "a8": HELD, "a9": HELD}, id="four of ten"
        ),
        pytest.param(of_a(1, 2), found(a=[1]), {}, id="one of two is not more than one"),
        pytest.param(
            of_a(*range(95)) | of_b(*range(5)),
            found(a=range(95), b=range(3)),
            {"b3": HELD, "b4": HELD},
            id="two of five of a scope, which are few of the instance",
        ),
        pytest.param(
            of_a(*range(20)) | of_b(1),
            found(a=range(20), projects=(TEAM_A,)),
            {"b1": LOST},
            id="a project that vanished with its cluster",
        ),
        pytest.param(of_a(1, 2), found(projects=()), {"a1": LOST, "a2": LOST}, id="a key that lost all its roles"),
        pytest.param(
            of_a(*range(20)) | of_b(1) | by_uid(tenant_record("t1")),
            found(a=range(20), b=[1], tenant=False),
            {"t1": LOST},
            id="a tenant scope that may not be listed any more",
        ),
        pytest.param(
            of_a(1) | by_uid(tenant_record("t1")),
            found(tenant=False),
            {"a1": LOST, "t1": LOST},
            id="an empty scope beside a changed permission",
        ),
    ],
)
def test_a_large_loss_and_a_lost_scope_are_held(
    records: dict[str, ClusterRecord], seen: Discovery, held: dict[str, Reason]
) -> None:
    life = Life(records)

    done = [life.after(span, seen) for span in (timedelta(0), 11 * MINUTE, 22 * HOUR)]

    for one in done:
        assert {uid: reason for uid, reason in reasons(one).items() if reason is not LISTED} == held
        assert one.held == held.keys()
        assert not one.drop.keys() & held.keys()


@pytest.mark.parametrize("hold", [HOUR, 24 * HOUR])
def test_a_hold_ends_with_a_scheduled_listing_after_its_time(hold: timedelta) -> None:
    life = Life(of_a(*range(10)), Guard(hold=hold))
    first = life.after(MINUTE, found())

    early = life.after(hold - MINUTE, found())
    asked = life.after(MINUTE, found(), scheduled=False)
    failed = life.after(MINUTE, found(a=None))
    ended = life.after(MINUTE, found())

    assert {(one.since, one.until) for one in first.absent.values()} == {(NOW + MINUTE, NOW + MINUTE + hold)}
    assert not early.drop
    assert not asked.drop, "an operator's resync only verifies"
    assert not failed.drop, "what is remembered drops nothing without a listing"
    assert ended.drop == dict.fromkeys(of_a(*range(10)), Reason.DISAPPEARED)


def test_a_hold_without_end_lasts_until_an_operator_allows_it() -> None:
    life = Life(of_a(*range(10)), Guard(hold=None))

    done = [life.after(1000 * HOUR, found()) for _ in range(3)]
    allowed = life.after(MINUTE, found(), scheduled=False, allow=True)

    assert all(not one.drop for one in done)
    assert {one.until for one in done[-1].absent.values()} == {None}
    assert allowed.drop.keys() == of_a(*range(10)).keys()
    assert not allowed.absent


def test_a_scope_that_may_not_be_listed_goes_only_when_an_operator_allows_it() -> None:
    life = Life(of_a(1) | by_uid(tenant_record("t1")))

    done = [life.after(48 * HOUR, found(a=[1], tenant=False)) for _ in range(3)]
    allowed = life.after(MINUTE, found(a=[1], tenant=False), allow=True)

    assert all(not one.drop for one in done)
    assert done[-1].absent["t1"].until is None
    assert allowed.drop == {"t1": Reason.DISAPPEARED}


def test_a_record_that_is_held_stays_held_while_the_rest_comes_back() -> None:
    life = Life(of_a(*range(10)))
    life.after(MINUTE, found())

    done = life.after(20 * MINUTE, found(a=range(9)))

    assert not done.drop
    assert reasons(done) == {"a9": HELD}


def test_a_small_loss_that_grows_before_it_is_confirmed_is_held_as_a_whole() -> None:
    life = Life(of_a(*range(10)))
    life.after(MINUTE, found(a=range(7)))

    done = life.after(20 * MINUTE, found(a=range(6)))

    assert not done.drop
    assert set(reasons(done).values()) == {HELD}
    assert done.absent["a9"].since == NOW + MINUTE


def test_an_operator_can_drop_a_loss_at_once() -> None:
    done = Life(of_a(*range(10))).after(MINUTE, found(), scheduled=False, allow=True)

    assert done.drop == dict.fromkeys(of_a(*range(10)), Reason.DISAPPEARED)
    assert not done.absent


def test_the_message_says_what_was_seen_and_what_it_may_mean() -> None:
    small = Life(of_a(*range(10))).after(MINUTE, found(a=range(6))).absent["a9"].message
    empty = Life(of_a(1)).after(MINUTE, found()).absent["a1"].message
    scope = Life(of_a(*range(95)) | of_b(*range(5))).after(MINUTE, found(a=range(95), b=[0])).absent["b4"].message
    gone = Life(of_a(1) | of_b(1)).after(MINUTE, found(a=[1], projects=(TEAM_A,))).absent["b1"].message
    tenant = Life(by_uid(tenant_record("t1"))).after(MINUTE, found(tenant=False)).absent["t1"].message

    assert small == "4 of 10 clusters disappeared at once"
    assert empty == "the listing of team-a holds no cluster at all"
    assert scope == "4 of 5 clusters of team-b disappeared at once"
    assert gone == "its project team-b is not listed any more; maybe the API key lost roles"
    assert tenant == "the API key may not list tenant-scoped clusters any more; maybe the API key lost roles"


def test_a_large_loss_beside_reduced_access_is_lost_access_and_a_small_one_is_not() -> None:
    records = of_a(*range(10))
    large = Selection(disappeared=frozenset(of_a(*range(4))))
    small = Selection(disappeared=frozenset(of_a(1)))

    done = [
        prune(selection, records, {}, now=NOW, guard=GUARD, scheduled=True, access_reduced=True)
        for selection in (large, small)
    ]

    assert set(reasons(done[0]).values()) == {LOST}
    assert set(reasons(done[1]).values()) == {LISTED}


def test_an_empty_tenant_scope_is_named() -> None:
    seen = discovery(listing(TEAM_A, cluster("a1")), tenant_listing(), projects=(TEAM_A,))

    done = Life(of_a(1) | by_uid(tenant_record("t1"))).after(MINUTE, seen)

    assert done.absent["t1"].message == "the listing of the tenant scope holds no cluster at all"


# -- deleted and deselected -------------------------------------------------------------------------------------------


def test_what_was_deleted_or_deselected_goes_at_once_and_does_not_count_as_lost() -> None:
    records = of_a(*range(10))
    selection = Selection(dropped={f"a{number}": Reason.DELETED for number in range(6)}, disappeared=frozenset({"a6"}))

    for scheduled in (True, False):
        done = prune(selection, records, {}, now=NOW, guard=GUARD, scheduled=scheduled)

        assert done.drop == dict.fromkeys(of_a(*range(6)), Reason.DELETED)
        assert reasons(done) == {"a6": LISTED}


def test_the_share_of_a_loss_is_that_of_the_records_that_stay() -> None:
    selection = Selection(
        dropped={f"a{number}": Reason.TAG_EXCLUDED for number in range(6)}, disappeared=frozenset({"a6", "a7"})
    )

    done = prune(selection, of_a(*range(10)), {}, now=NOW, guard=GUARD, scheduled=True)

    assert done.absent["a6"].message == "2 of 4 clusters disappeared at once"


# -- properties -------------------------------------------------------------------------------------------------------


@given(loss=st.integers(0, 400), total=st.integers(1, 400))
def test_a_loss_is_large_beyond_one_and_thirty_percent(loss: int, total: int) -> None:
    assert is_large(loss, total) == (loss > 1 and Fraction(loss, total) > Fraction(3, 10))


PASSES = st.lists(
    st.tuples(
        st.integers(0, 30 * 60),  # minutes since the last pass
        st.sets(st.integers(0, 5)),  # what the listing holds
        st.booleans(),  # whether the listing of the other team works
        st.booleans(),  # whether it is scheduled
    ),
    max_size=12,
)


@given(PASSES)
def test_in_every_sequence_each_drop_has_two_scheduled_listings_and_each_record_one_fate(passes: list[Any]) -> None:
    life = Life(of_a(*range(6)) | of_b(1))
    missed: dict[str, list[Any]] = {uid: [] for uid in life.records}  # scheduled listings without it, in a row

    for minutes, numbers, works, scheduled in passes:
        known = dict(life.records)
        done = life.after(minutes * MINUTE, found(a=sorted(numbers), b=[1] if works else None), scheduled=scheduled)
        for uid in known:
            listed = uid in {f"a{number}" for number in numbers} or (uid == "b1" and works)
            if listed:
                missed[uid] = []
            elif scheduled and uid != "b1":
                missed[uid].append(life.now)
            assert not (uid in done.drop and uid in done.absent)
            assert not (listed and (uid in done.drop or uid in done.absent))
            if uid in done.drop:
                assert scheduled
                assert missed[uid][-1] - missed[uid][0] >= GUARD.confirm
            elif not listed and uid != "b1":
                assert uid in done.absent


# -- the status document ----------------------------------------------------------------------------------------------


def test_what_is_noted_survives_the_status_document() -> None:
    absent = {
        "a": Absence(NOW, NOW, NOW + HOUR, HELD, "why"),
        "b": Absence(NOW, NOW, None, LOST, "why"),
        "c": Absence(NOW, None, None, LISTED, "only a resync missed it"),
    }

    assert absences_of({"held": absences_to_dict(absent)}) == absent


@pytest.mark.parametrize(
    "entry", [1, "x", None, {}, {"since": "soon", "reason": "PruneHeld", "message": ""}, {"since": NOW.isoformat()}]
)
def test_a_malformed_entry_of_a_status_is_left_out(entry: object) -> None:
    good = {"since": "2026-03-01T12:00:00Z", "reason": "NotListed", "message": ""}

    assert absences_of({"held": {"bad": entry, "good": good}}).keys() == {"good"}
    assert absences_of({"held": entry}) == {}
    assert absences_of({}) == {}


def test_a_word_of_another_version_counts_as_held() -> None:
    entry = {"since": "2026-03-01T12:00:00Z", "reason": "SomethingNew", "message": "m"}

    assert absences_of({"held": {"a": entry}})["a"].held


# -- new filters ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("filters", "refused"),
    [
        pytest.param(Filters(), None, id="nothing is deselected"),
        pytest.param(Filters(exclude_tags=("old",)), None, id="three of ten"),
        pytest.param(Filters(exclude_projects=("team-b",)), "4 of 10", id="four of ten"),
        pytest.param(Filters(include_projects=("paymnets",)), "10 of 10", id="a word that matches nothing"),
    ],
)
def test_filters_that_deselect_more_than_the_guard_allows_are_refused(filters: Filters, refused: str | None) -> None:
    rows = [cluster(f"a{number}", tags=("old",) if number < 3 else ()) for number in range(6)]
    seen = discovery(listing(TEAM_A, *rows), listing(TEAM_B))
    records = of_a(*range(6)) | of_b(*range(4))

    refusal = review(filters, records, seen).refusal

    assert (refusal is None) == (refused is None)
    if refusal is not None:
        assert f"deselect {refused} published clusters (ProjectExcluded)" in refusal
        assert "palette-sync reload --allow-prune" in refusal


def test_the_last_cluster_is_not_deselected_unasked() -> None:
    assert review(Filters(exclude_projects=("team-a",)), of_a(1), None).refusal


def test_a_refusal_names_the_pattern_that_matches_nothing() -> None:
    found_ = review(Filters(include_projects=("team-aa",)), of_a(1), found(a=[1]))

    assert found_.unmatched == ['include_projects: "team-aa" matches no project; is "team-a" meant?']
    assert found_.unmatched[0] in (found_.refusal or "")


def test_without_a_listing_nothing_is_said_of_patterns() -> None:
    assert review(Filters(include_projects=("team-*", "x")), of_a(1), None).unmatched == []
    assert review(Filters(), {}, None).refusal is None

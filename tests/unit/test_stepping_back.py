"""When a leader that cannot work hands over, and for how long it rests then."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from palette_sync.core.leadership import Member, Share, Standing, Store, decide
from palette_sync.core.stepping_back import LONGEST_REST, Rest, next_rest, successor, wants_a_look

NOW = datetime(2026, 7, 15, 12, 0, tzinfo=UTC)
STEP_BACK = timedelta(minutes=5)
AHEAD = timedelta(seconds=30)
SINCE = NOW - STEP_BACK
FULL = Store((5, 7))


def member(name: str, *, configuration: str = "c", loaded: int = 0, **share: object) -> Member:
    shares = {"alpha": Share(**share)}  # type: ignore[arg-type]
    return Member(name, configuration, NOW + timedelta(seconds=loaded), shares=shares)


FAILING = member("a", leading=True, fails_since=SINCE, reaches=False)
HEALTHY = member("b", reaches=True)


def to(me: Member, *others: Member) -> str | None:
    return successor("alpha", me, [me, *others], NOW)


def test_a_leader_that_fails_hands_over_to_a_process_that_palette_answers() -> None:
    assert to(FAILING, HEALTHY) == "b"


@pytest.mark.parametrize(
    "me",
    [
        member("a", leading=True),
        member("a", leading=True, reaches=False),
        member("a", leading=True, fails_since=SINCE),
        member("a", leading=True, fails_since=SINCE, reaches=True),
        member("a", leading=True, fails_since=SINCE, reaches=False, rests_until=NOW + AHEAD),
        member("a", reaches=True),
    ],
    ids=[
        "works",
        "does not fail for long",
        "has not looked",
        "Palette answers",
        "rests already",
        "stands by and works",
    ],
)
def test_who_works_or_rests_does_not_step_back(me: Member) -> None:
    assert to(me, HEALTHY) is None


@pytest.mark.parametrize(
    "other",
    [
        member("b"),
        member("b", reaches=False),
        member("b", reaches=True, rests_until=NOW + AHEAD),
        member("b", reaches=True, verifies=False),
        replace(HEALTHY, draining=True),
        member("b", reaches=True, configuration="older", loaded=-1),
        Member("b", "c", NOW, shares={"bravo": Share(reaches=True)}),
    ],
    ids=["has not looked", "cut off too", "rests", "other keys", "drains", "older configuration", "other instances"],
)
def test_a_leader_that_fails_goes_on_while_nobody_is_better(other: Member) -> None:
    assert to(FAILING, other) is None
    assert to(FAILING) is None


def test_a_standby_that_is_cut_off_too_rests_so_that_it_does_not_take_over() -> None:
    cut_off = member("c", reaches=False)

    assert to(cut_off, FAILING, HEALTHY) == "b"


def test_a_process_looks_while_a_leader_fails_and_when_its_rest_ends() -> None:
    rest = Rest(NOW + STEP_BACK, STEP_BACK)

    def wanted(*members: Member, rest: Rest | None = None, now: datetime = NOW) -> bool:
        return wants_a_look("alpha", members, rest, now, AHEAD)

    assert wanted(HEALTHY, FAILING)
    assert not wanted(HEALTHY, member("a", leading=True))
    assert not wanted(member("a", fails_since=SINCE)), "it does not lead any more"
    assert not wanted(Member("b", "c", NOW, shares={}))
    assert not wanted(rest=rest)
    assert wanted(rest=rest, now=rest.until - AHEAD)
    assert wanted(rest=rest, now=rest.until + AHEAD / 2)
    assert not wanted(rest=rest, now=rest.until + AHEAD)


def rested(
    rest: Rest | None, *, steps_back: bool = False, reaches: bool | None = None, works: bool = False
) -> Rest | None:
    return next_rest(rest, steps_back=steps_back, reaches=reaches, works=works, now=NOW, step_back=STEP_BACK)


def test_each_rest_is_twice_as_long_as_the_one_before_up_to_an_hour() -> None:
    rest, pauses = None, []
    for _ in range(6):
        rest = rested(rest, steps_back=True, reaches=False)
        assert rest is not None
        assert rest.until == NOW + rest.pause
        pauses.append(rest.pause / timedelta(minutes=1))

    assert pauses == [5, 10, 20, 40, 60, 60]


def test_a_long_step_back_is_the_longest_rest() -> None:
    long = 3 * LONGEST_REST

    assert next_rest(Rest(NOW, long), steps_back=True, reaches=False, works=False, now=NOW, step_back=long) == Rest(
        NOW + long, long
    )


def test_a_success_ends_what_was_before() -> None:
    assert rested(Rest(NOW, STEP_BACK), works=True) is None
    assert rested(None) is None


def test_a_rest_is_not_over_while_palette_does_not_answer() -> None:
    over, lasts = Rest(NOW, STEP_BACK), Rest(NOW + AHEAD, STEP_BACK)

    assert rested(over, reaches=False) == Rest(NOW + STEP_BACK, STEP_BACK)
    assert rested(over, reaches=True) == over
    assert rested(over) == over
    assert rested(lasts, reaches=False) == lasts


def standing(me: Member, *others: Member, store: Store = FULL) -> Standing:
    return decide("alpha", me, [me, *others], store, window=STEP_BACK, now=NOW).standing


def test_who_rests_does_not_lead_while_another_one_can() -> None:
    rests = member("a", memory=(5, 7), rests_until=NOW + AHEAD)

    assert standing(rests, member("b", memory=(5, 7))) is Standing.STEPPED_BACK
    assert standing(rests) is Standing.LEADS
    assert standing(rests, replace(member("b"), draining=True)) is Standing.LEADS
    assert standing(rests, member("b", configuration="older", loaded=-1)) is Standing.LEADS
    assert standing(rests, member("b", memory=(5, 6)), store=Store((5, 6))) is Standing.LEADS, "only it can fill Redis"


@pytest.mark.parametrize("answers", [lambda minute, name: name == "b", lambda minute, name: minute % 20 < 10])
def test_an_instance_does_not_go_to_and_fro(answers: object) -> None:
    """Ten hours, looked at each minute. Palette answers one process only, or both and neither in turn."""
    rests: dict[str, Rest | None] = {"a": None, "b": None}
    failing: dict[str, int] = {"a": 0, "b": 0}
    leader, moves = "a", 0
    for minute in range(600):
        now = NOW + timedelta(minutes=minute)
        works = {name: answers(minute, name) for name in rests}  # type: ignore[operator]
        failing[leader] = 0 if works[leader] else failing[leader] + 1
        members = {
            name: member(
                name,
                leading=name == leader,
                reaches=works[name],
                fails_since=SINCE if name == leader and failing[name] > 5 else None,
                rests_until=rest.until if rest is not None and rest.until > now else None,
            )
            for name, rest in rests.items()
        }
        for name, me in members.items():
            rests[name] = next_rest(
                rests[name],
                steps_back=successor("alpha", me, members.values(), now) is not None,
                reaches=works[name],
                works=name == leader and works[name],
                now=now,
                step_back=STEP_BACK,
            )
        able = [one for one, rest in rests.items() if rest is None or rest.until <= now] or list(rests)
        if leader not in able:
            leader, moves, failing = able[0], moves + 1, {"a": 0, "b": 0}

    assert moves <= 1

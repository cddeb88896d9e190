"""A tick is a hint and coalesces; a resync is a promise: never lost, and never kept by a pass that began before it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import NOW
from palette_sync.core.model import Pause
from palette_sync.reconcile.ports import PassOptions
from palette_sync.reconcile.report import PassReport
from palette_sync.runner import Mailbox, PassRequest
from palette_sync.runner.mailbox import ASKED_AFTER, LOOK_AFTER, URGENT_AFTER

UIDS = st.frozensets(st.sampled_from("ab"))
mails = st.builds(
    PassRequest,
    listing=st.booleans(),
    scheduled=st.booleans(),
    known=st.booleans(),
    resync=st.booleans(),
    allow_prune=st.booleans(),
    key=st.booleans(),
    asked=UIDS,
    rotate=UIDS,
    revoke=UIDS,
)
FLAGS = ("listing", "scheduled", "known", "resync", "allow_prune", "key")
SETS = ("asked", "rotate", "revoke")


def flags(request: PassRequest) -> set[str]:
    uids = {f"{name} {uid}" for name in SETS for uid in getattr(request, name)}
    return {name for name in FLAGS if getattr(request, name)} | uids


def test_an_empty_box_wants_nothing() -> None:
    box = Mailbox()

    assert not box.wanted.is_set()
    assert box.take() == PassRequest()
    assert PassRequest().options is None


def test_the_rest_of_a_long_pass_is_a_request_of_its_own() -> None:
    report = PassReport("alpha", "id", NOW, 1.0, 1, 2, postponed=("a", "b"))

    assert PassRequest(listing=True, scheduled=True).rest(report) == PassRequest(known=True)
    assert PassRequest(resync=True).rest(report) == PassRequest(known=True, verify=frozenset({"a", "b"}))
    assert PassRequest(known=True, verify=frozenset({"b", "c"})).rest(report).verify == {"b"}


async def test_who_waits_for_a_long_pass_waits_for_its_rest_too() -> None:
    box = Mailbox()
    answer = box.ask()
    report = PassReport("alpha", "id", NOW, 1.0, 1, 2, postponed=("a",))

    rest = box.take().rest(report)
    box.tick()
    box.put(rest)
    both = box.take()

    assert (both.answers, both.partial) == ((answer,), report)
    options = both.options
    assert options is not None
    assert (options.lists, options.resync, options.verify) == (True, False, {"a"})


async def test_a_pass_lets_a_renewal_through_sooner_than_a_look_at_palette() -> None:
    box = Mailbox()
    assert box.patience is None
    box.tick()
    box.peek()
    assert box.patience == LOOK_AFTER
    box.nudge()
    assert box.patience == URGENT_AFTER
    box.take()
    box.ask()
    assert box.patience == URGENT_AFTER


def test_five_resyncs_become_one_request() -> None:
    box = Mailbox()
    for _ in range(5):
        box.resync()

    assert box.take() == PassRequest(resync=True)
    assert not box.wanted.is_set()
    assert box.take() == PassRequest()


def test_ticks_nudges_and_key_checks_become_one_request() -> None:
    box = Mailbox()
    box.tick()
    box.nudge()
    box.nudge()
    box.check_key()
    box.tick()

    assert box.pending == PassRequest(listing=True, scheduled=True, known=True, key=True)
    assert box.wanted.is_set()


async def test_a_question_during_a_pass_is_for_the_next_pass() -> None:
    box = Mailbox()
    first = box.ask()
    running = box.take()
    second = box.ask()

    assert running.answers == (first,)
    assert box.wanted.is_set()
    assert box.take().answers == (second,)


async def test_every_question_keeps_its_answer_and_one_permission_to_prune_is_enough() -> None:
    box = Mailbox()
    answers = [box.ask(), box.ask(allow_prune=True), box.ask()]

    request = box.take()
    assert request.answers == tuple(answers)
    assert request.options == PassOptions(resync=True, allow_prune=True)


@given(mails, mails)
def test_joining_keeps_everything_of_both(one: PassRequest, other: PassRequest) -> None:
    assert flags(one.join(other)) == flags(one) | flags(other)
    assert one.join(PassRequest()) == one


async def test_joining_keeps_the_answers_of_both_in_their_order() -> None:
    loop = asyncio.get_running_loop()
    first, second = loop.create_future(), loop.create_future()

    assert PassRequest(answers=(first,)).join(PassRequest(answers=(second,))).answers == (first, second)


@pytest.mark.parametrize(
    ("asked", "options"),
    [
        pytest.param(PassRequest(listing=True), PassOptions(), id="a tick lists Palette"),
        pytest.param(PassRequest(known=True), PassOptions(known_only=True), id="a nudge looks at known clusters only"),
        pytest.param(PassRequest(listing=True, known=True), PassOptions(), id="a listing covers the known clusters"),
        pytest.param(PassRequest(resync=True, known=True), PassOptions(resync=True), id="a resync lists Palette"),
        pytest.param(PassRequest(allow_prune=True), PassOptions(allow_prune=True), id="only a listing can prune"),
        pytest.param(PassRequest(key=True), None, id="looking at the key is no pass"),
        pytest.param(
            PassRequest(key=True, known=True), PassOptions(known_only=True), id="looking at the key lists nothing"
        ),
    ],
)
def test_the_options_of_the_pass_that_is_asked_for(asked: PassRequest, options: PassOptions | None) -> None:
    assert asked.options == options


def test_an_older_nudge_is_forgotten_and_leaves_the_box_empty() -> None:
    box = Mailbox()
    box.nudge()
    box.forget_nudge()

    assert not box.wanted.is_set()
    assert box.pending == PassRequest()


async def test_forgetting_a_nudge_forgets_nothing_else() -> None:
    box = Mailbox()
    answer = box.ask()
    box.nudge()
    box.check_key()
    box.forget_nudge()

    assert box.wanted.is_set()
    assert box.pending == PassRequest(resync=True, key=True, answers=(answer,))


async def test_closing_cancels_what_nobody_will_answer() -> None:
    box = Mailbox()
    answers = [box.ask(), box.ask()]
    answers[0].cancel()
    box.close()

    assert all(answer.cancelled() for answer in answers)
    assert not box.wanted.is_set()


def test_only_a_tick_makes_a_listing_that_counts_for_the_prune_guard() -> None:
    box = Mailbox()
    box.resync()
    box.put(PassRequest(listing=True))
    asked = box.take().options

    box.resync()
    box.tick()
    joined = box.take().options

    assert asked == PassOptions(resync=True)
    assert joined == PassOptions(resync=True, scheduled=True)


async def test_what_is_passed_on_is_not_done_here_later() -> None:
    box = Mailbox()
    box.tick()
    box.pass_on()
    assert flags(box.pending) == {"listing", "scheduled"}, "nobody waits for it"

    answer = box.ask(allow_prune=True)
    box.pass_on()

    assert answer.cancelled()
    assert box.take() == PassRequest(listing=True, scheduled=True)


# -- one cluster ------------------------------------------------------------------------------------------------------


async def test_who_asks_for_one_cluster_waits_for_a_pass_that_is_not_a_listing() -> None:
    box = Mailbox()
    answer = box.ask_cluster("a", rotate=True, revoke=True)
    box.ask_cluster("b")
    box.forget_nudge()  # what is due was computed just now; that does not concern who asks
    assert box.patience == ASKED_AFTER
    request = box.take()

    one, both = frozenset({"a"}), frozenset({"a", "b"})
    assert request.options == PassOptions(asked=both, rotate=one, revoke=one, known_only=True)
    assert answer in request.answers


async def test_what_a_pass_left_of_it_is_still_asked_for_and_a_retry_asks_for_nothing() -> None:
    box = Mailbox()
    box.ask_cluster("a", rotate=True, revoke=True)
    box.ask_cluster("b", rotate=True)
    request = box.take()

    rest = request.rest(PassReport("alpha", "id", NOW, 1.0, 1, 2, postponed=("b", "c")))
    assert (rest.asked, rest.rotate, rest.revoke) == (frozenset({"b"}), frozenset({"b"}), frozenset())
    assert replace(request, known=True).again == PassRequest(known=True)


async def test_a_pause_is_a_request_without_a_pass_and_is_cancelled_with_the_box() -> None:
    box = Mailbox()
    pause = Pause("it moves", "anna", NOW)
    first, second = box.pause("a", pause), box.pause("a", None)
    assert box.patience == ASKED_AFTER
    request = box.take()
    assert request.options is None
    assert [(one.uid, one.pause, one.answer) for one in request.pauses] == [("a", pause, first), ("a", None, second)]
    assert request.again == PassRequest()

    third, question = box.pause("b", pause), box.ask_cluster("b")
    box.close()
    assert third.cancelled()
    assert question.cancelled()
    request.cancel()
    assert first.cancelled()

"""Units that hang give their places up, and no round waits for them; nothing that they do is lost."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from palette_sync.http import ANSWERED
from palette_sync.reconcile.lanes import LEAVE_AFTER, ROOM, YIELD_AFTER, Lanes, NoAnswer
from palette_sync.reconcile.places import Places

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from palette_sync.fanout import Outcome

pytestmark = pytest.mark.looptime

NEVER = 10_000.0


class Clusters:
    """Simulated work: a unit's cluster answers `answers[key]` times, each after some seconds; None = it hangs."""

    def __init__(self, lanes: Lanes[str, str], **answers: tuple[float | None, ...]) -> None:
        self.lanes = lanes
        self.answers = answers
        self.begun: list[str] = []
        self.cancelled: list[str] = []
        self.outcomes: dict[str, Outcome[str, str]] = {}
        self.done_at: dict[str, float] = {}

    async def work(self, key: str) -> str:
        self.begun.append(key)
        try:
            async with self.lanes:
                for seconds in self.answers.get(key, (0.1,)):
                    await asyncio.sleep(NEVER if seconds is None else seconds)
                    ANSWERED.get()()
        except asyncio.CancelledError:
            self.cancelled.append(key)
            raise
        return key

    def done(self, outcome: Outcome[str, str]) -> None:
        self.outcomes[outcome.key] = outcome
        self.done_at[outcome.key] = asyncio.get_running_loop().time()

    async def run(self, keys: Iterable[str], **changes: Any) -> float:
        """Run one round and return its seconds."""
        options: dict[str, Any] = {
            "slow": lambda _: False,
            "timeout": 30.0,
            "stopping": None,
            "yields": lambda: False,
            "done": self.done,
            "finished": lambda: None,
            "label": "unit",
        }
        begun = asyncio.get_running_loop().time()
        await self.lanes.run(keys, self.work, **(options | changes))
        return asyncio.get_running_loop().time() - begun


def make(concurrency: int = 2, *, finished: Callable[[], None] = lambda: None, waits: bool = False) -> Lanes[str, str]:
    return Lanes(concurrency, name=str, finished=finished, waits=waits)


def hanging(count: int) -> dict[str, tuple[float | None, ...]]:
    return {f"h{number}": (None,) for number in range(count)}


async def test_no_more_units_that_answer_are_at_work_than_there_are_places() -> None:
    clusters = Clusters(make(2))

    took = await clusters.run([str(number) for number in range(8)])

    assert took == pytest.approx(0.4)
    assert len(clusters.outcomes) == 8


async def test_units_begin_in_their_order() -> None:
    clusters = Clusters(make(1))
    keys = [str(number) for number in range(9)]

    await clusters.run(keys)

    assert list(clusters.outcomes) == keys


async def test_a_unit_that_hangs_delays_the_others_by_the_time_after_which_it_yields() -> None:
    clusters = Clusters(make(1), **hanging(5))

    await clusters.run([*hanging(5), "fine"])

    assert clusters.done_at["fine"] == pytest.approx(5 * YIELD_AFTER + 0.1)


async def test_a_round_does_not_wait_for_a_unit_that_hangs() -> None:
    clusters = Clusters(make(1), slow=(None,))

    took = await clusters.run(["slow", "fine"])

    assert took == pytest.approx(LEAVE_AFTER)
    assert clusters.outcomes.keys() == {"fine"}
    assert set(clusters.lanes.busy) == {"slow"}
    await clusters.lanes.drain(asyncio.Event())


async def test_a_later_round_takes_what_came_of_a_unit_that_was_left() -> None:
    woken: list[str] = []
    clusters = Clusters(make(1, finished=lambda: woken.append("x")), late=(10.0, 0.1), dead=(None,))

    await clusters.run(["late", "dead"])
    await asyncio.sleep(40)

    late, dead = sorted(clusters.lanes.take_outcomes(), key=lambda one: one.key, reverse=True)
    assert (late.value, late.hung) == ("late", False)
    assert (type(dead.error), dead.hung) == (TimeoutError, True)
    assert woken == ["x", "x"]
    assert not clusters.lanes.busy
    assert clusters.lanes.take_outcomes() == []


async def test_a_round_learns_of_a_unit_that_an_earlier_one_left() -> None:
    woken: list[str] = []
    clusters = Clusters(make(1, finished=lambda: woken.append("between")), late=(4.0,), long=(0.2,) * 30)
    await clusters.run(["late"])

    await clusters.run(["long"], finished=lambda: woken.append("in the round"))

    assert woken == ["in the round"]


async def test_an_error_of_the_other_callback_is_raised_too() -> None:
    clusters = Clusters(make(1), late=(4.0,), long=(0.2,) * 30)
    await clusters.run(["late"])

    def finished() -> None:
        raise KeyError("bug")

    with pytest.raises(KeyError):
        await clusters.run(["long"], finished=finished)


async def test_a_unit_that_answers_again_takes_its_place_back() -> None:
    # It answers when the place is taken, so there is one unit more at work until it ends; then the third one begins.
    clusters = Clusters(make(1), pauses=(1.0, 0.2), long=(0.2,) * 8, third=(0.1,))

    await clusters.run(["pauses", "long", "third"])

    assert clusters.done_at["pauses"] == pytest.approx(1.2)
    assert clusters.done_at["third"] == pytest.approx(YIELD_AFTER + 1.6 + 0.1)


async def test_a_unit_that_answers_slowly_but_steadily_is_waited_for() -> None:
    clusters = Clusters(make(1), slow=(LEAVE_AFTER * 0.9,) * 5)

    await clusters.run(["slow"])

    assert clusters.outcomes["slow"].value == "slow"
    assert not clusters.outcomes["slow"].hung


async def test_too_many_silent_units_end_the_one_that_is_silent_for_longest() -> None:
    count = ROOM + 4
    clusters = Clusters(make(1), **hanging(count))

    await clusters.run([*hanging(count), "fine"])

    ended = {outcome.key: outcome for outcome in clusters.lanes.take_outcomes()} | clusters.outcomes
    assert {key for key, one in ended.items() if isinstance(one.error, NoAnswer) and one.hung} >= {"h0"}
    assert clusters.done_at["fine"] < 3 * LEAVE_AFTER
    await clusters.lanes.drain(asyncio.Event())


async def test_units_that_hung_last_time_have_places_of_their_own() -> None:
    clusters = Clusters(make(4), **hanging(5))

    took = await clusters.run([*hanging(5), "fine"], slow=lambda key: key != "fine")

    assert took == pytest.approx(0.1)
    assert set(clusters.lanes.busy) == {"h0", "h1"}
    assert clusters.lanes.slow_places == 0
    await asyncio.sleep(31)
    assert clusters.lanes.slow_places == 2


async def test_where_every_round_waits_it_waits_for_units_that_hang_too() -> None:
    clusters = Clusters(make(1, waits=True), **hanging(3))

    took = await clusters.run([*hanging(3), "fine"], slow=lambda key: key == "h0")

    assert took == pytest.approx(30 + YIELD_AFTER)
    assert {key for key, one in clusters.outcomes.items() if one.hung} == hanging(3).keys()
    assert clusters.done_at["fine"] == pytest.approx(3 * YIELD_AFTER + 0.1)


async def test_no_more_units_begin_once_something_else_is_wanted() -> None:
    clusters = Clusters(make(1))

    await clusters.run([str(number) for number in range(9)], yields=lambda: len(clusters.outcomes) >= 2)

    assert len(clusters.begun) == len(clusters.outcomes) < 9
    assert not clusters.lanes.busy


async def test_a_stop_skips_what_has_not_begun() -> None:
    stopping = asyncio.Event()
    stopping.set()
    clusters = Clusters(make(1))

    await clusters.run(["a", "hung"], stopping=stopping, slow=lambda key: key == "hung")

    assert clusters.outcomes["a"].skipped
    assert clusters.begun == []


async def test_cancelling_a_round_cancels_its_units_and_not_those_of_earlier_rounds() -> None:
    clusters = Clusters(make(1), earlier=(10.0,), now=(1.0,))
    await clusters.run(["earlier"])

    task = asyncio.create_task(clusters.run(["now"]))
    await asyncio.sleep(0.5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert clusters.cancelled == ["now"]
    await asyncio.sleep(20)
    assert [one.key for one in clusters.lanes.take_outcomes()] == ["earlier"]


async def test_a_drain_ends_silent_units_and_finishes_the_others() -> None:
    clusters = Clusters(make(2), hangs=(None,), talks=(5.0, 0.2, 0.2, 0.2))
    await clusters.run(["hangs", "talks"])
    await asyncio.sleep(5.1 - LEAVE_AFTER)
    assert clusters.lanes.talking

    await clusters.lanes.drain(asyncio.Event())

    assert clusters.cancelled == ["hangs"]
    assert [one.value for one in clusters.lanes.take_outcomes()] == ["talks"]
    assert not clusters.lanes.talking


async def test_a_late_drain_ends_all_units() -> None:
    late = asyncio.Event()
    clusters = Clusters(make(2), talks=(5.0, *[0.2] * 1000))
    await clusters.run(["talks"])
    await asyncio.sleep(5.1 - LEAVE_AFTER)

    asyncio.get_running_loop().call_later(1, late.set)
    await clusters.lanes.drain(late)

    assert clusters.cancelled == ["talks"]
    assert not clusters.lanes.busy


async def test_an_error_of_the_callback_is_raised_and_ends_the_round() -> None:
    clusters = Clusters(make(2), other=(None,))

    def done(_: Outcome[str, str]) -> None:
        raise KeyError("bug")

    with pytest.raises(KeyError):
        await clusters.run(["a", "other"], done=done)

    assert clusters.cancelled == ["other"]


async def test_the_number_of_places_can_change() -> None:
    clusters = Clusters(make(1))
    clusters.lanes.resize(4)

    assert await clusters.run([str(number) for number in range(8)]) == pytest.approx(0.2)


async def test_all_places_are_free_again_afterwards() -> None:
    clusters = Clusters(make(2), **hanging(40), odd=(0.3, None, 0.2), late=(3.0, 0.2))

    await clusters.run([*hanging(40), "odd", "late", "fine"])
    await clusters.lanes.drain(asyncio.Event())
    clusters.lanes.take_outcomes()

    assert await clusters.run([f"again{number}" for number in range(8)]) == pytest.approx(0.4)


async def test_a_place_that_comes_with_a_cancellation_goes_to_the_next() -> None:
    places = Places(1)
    await places.take()
    first, second = (asyncio.create_task(places.take()) for _ in range(2))
    await asyncio.sleep(0)
    places.give()
    first.cancel()

    await second

    assert first.cancelled()


async def test_who_gives_up_waiting_for_a_place_takes_none() -> None:
    places = Places(1)
    await places.take()
    waiting: Awaitable[None] = asyncio.create_task(places.take())
    await asyncio.sleep(0)
    waiting.cancel()  # type: ignore[attr-defined]
    await asyncio.sleep(0)
    places.give()

    await places.take()

"""The fan-out is bounded, isolates failures, times each unit, and drains and cancels as a whole."""

from __future__ import annotations

import asyncio

import pytest

from palette_sync.fanout import Outcome, StrayCancellation, fan_out


async def test_outcomes_come_in_the_order_of_the_keys() -> None:
    async def work(key: int) -> int:
        for _ in range(5 - key):
            await asyncio.sleep(0)
        return key * 10

    outcomes = await fan_out(range(5), work, limit=asyncio.Semaphore(5), timeout=5)

    assert outcomes == [Outcome(key, value=key * 10) for key in range(5)]


async def test_without_keys_nothing_runs() -> None:
    async def work(key: int) -> None:
        raise AssertionError

    assert await fan_out([], work, limit=asyncio.Semaphore(1), timeout=1) == []


async def test_no_more_units_run_at_once_than_the_limit_admits() -> None:
    running = most = 0

    async def work(_: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(3):
            await asyncio.sleep(0)
        running -= 1

    await fan_out(range(50), work, limit=asyncio.Semaphore(7), timeout=5)

    assert most == 7


async def test_one_failure_does_not_affect_the_others() -> None:
    async def work(key: str) -> str:
        if key == "bad":
            raise ValueError("no")
        await asyncio.sleep(0)
        return key

    good, bad, last = await fan_out(["a", "bad", "b"], work, limit=asyncio.Semaphore(3), timeout=5)

    assert (good.value, last.value) == ("a", "b")
    assert isinstance(bad.error, ValueError)
    assert bad.value is None


@pytest.mark.looptime
async def test_only_the_unit_that_hangs_times_out() -> None:
    async def work(key: int) -> int:
        if key == 0:
            await asyncio.Event().wait()
        return key

    hung, fine = await fan_out([0, 1], work, limit=asyncio.Semaphore(2), timeout=5)

    assert isinstance(hung.error, TimeoutError)
    assert fine.value == 1


@pytest.mark.looptime
async def test_waiting_for_the_limit_does_not_count_towards_the_timeout_of_a_unit() -> None:
    async def work(_: int) -> None:
        await asyncio.sleep(6)

    outcomes = await fan_out(range(4), work, limit=asyncio.Semaphore(1), timeout=20)

    assert [outcome.error for outcome in outcomes] == [None] * 4


async def test_a_drain_skips_units_that_were_not_started_and_finishes_the_rest() -> None:
    stopping = asyncio.Event()

    async def work(key: int) -> int:
        stopping.set()
        await asyncio.sleep(0)
        return key

    outcomes = await fan_out(range(4), work, limit=asyncio.Semaphore(1), timeout=5, stopping=stopping)

    assert outcomes[0] == Outcome(0, value=0)
    assert [outcome.skipped for outcome in outcomes] == [False, True, True, True]


async def test_each_outcome_is_reported_as_it_happens() -> None:
    reported: list[Outcome[int, int]] = []
    released = asyncio.Event()

    async def work(key: int) -> int:
        if key == 0:
            await released.wait()
            assert [outcome.key for outcome in reported] == [1]
        return key

    def done(outcome: Outcome[int, int]) -> None:
        reported.append(outcome)
        released.set()

    outcomes = await fan_out([0, 1], work, limit=asyncio.Semaphore(2), timeout=5, done=done)

    assert [outcome.key for outcome in reported] == [1, 0]
    assert outcomes[0].value == 0


async def test_cancelling_the_caller_cancels_every_unit() -> None:
    started = asyncio.Event()
    cancelled: list[int] = []

    async def work(key: int) -> None:
        if key == 2:
            started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(key)
            raise

    task = asyncio.create_task(fan_out(range(3), work, limit=asyncio.Semaphore(3), timeout=60))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert sorted(cancelled) == [0, 1, 2]


async def test_a_unit_that_cancels_itself_is_an_error_and_cancels_no_other() -> None:
    async def work(key: int) -> int:
        if key == 0:
            future = asyncio.get_running_loop().create_future()
            future.cancel()
            await future
        await asyncio.sleep(0)
        return key

    stray, fine = await fan_out([0, 1], work, limit=asyncio.Semaphore(2), timeout=5)

    assert isinstance(stray.error, StrayCancellation)
    assert fine.value == 1


async def test_an_error_of_the_callback_is_raised() -> None:
    async def work(key: int) -> int:
        return key

    def done(_: Outcome[int, int]) -> None:
        raise KeyError("bug")

    with pytest.raises(ExceptionGroup) as caught:
        await fan_out([1], work, limit=asyncio.Semaphore(1), timeout=5, done=done)

    assert isinstance(caught.value.exceptions[0], KeyError)


async def test_the_limit_is_released_afterwards() -> None:
    limit = asyncio.Semaphore(2)

    async def work(_: int) -> None:
        raise OSError

    await fan_out(range(10), work, limit=limit, timeout=5)

    async with limit, limit:
        assert limit.locked()


async def test_units_are_named_tasks() -> None:
    names: list[str] = []

    async def work(_: str) -> None:
        task = asyncio.current_task()
        names.append(task.get_name() if task else "")

    await fan_out(["a"], work, limit=asyncio.Semaphore(1), timeout=5, name="cluster")

    assert names == ["cluster:a"]

"""Bounded concurrency over many independent units, where one failure is a value and never a neighbour's problem."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

K = TypeVar("K")
V = TypeVar("V")


class StrayCancellation(Exception):
    """A unit ended with a CancelledError that nobody had asked for, as a library may raise for a future of its own."""


@dataclass(frozen=True, slots=True)
class Outcome(Generic[K, V]):
    """What came of one unit: a value, an error, or nothing because the drain began before its turn (`skipped`)."""

    key: K
    value: V | None = None
    error: Exception | None = None
    skipped: bool = False


async def fan_out(
    keys: Iterable[K],
    work: Callable[[K], Awaitable[V]],
    *,
    limit: asyncio.Semaphore,
    timeout: float,  # noqa: ASYNC109 - it is per unit and starts only once the unit is admitted
    stopping: asyncio.Event | None = None,
    done: Callable[[Outcome[K, V]], None] | None = None,
    name: str = "unit",
) -> list[Outcome[K, V]]:
    """Run `work` for every key, at most as many at once as `limit` admits, each within `timeout` seconds.

    The clock of a unit starts when it is admitted. Units not yet admitted when `stopping` is set are skipped.
    `done` is told each outcome as it happens. Cancellation of the caller cancels every unit. Never raises for a
    unit's error: a unit that runs out of time has a TimeoutError as its outcome, and one that raises CancelledError
    without having been cancelled a StrayCancellation. An error of `done` itself is a bug and ends the fan-out.
    """

    async def one(key: K) -> Outcome[K, V]:
        async with limit:
            outcome = await _attempt(key)
        if done is not None:
            done(outcome)
        return outcome

    async def _attempt(key: K) -> Outcome[K, V]:
        if stopping is not None and stopping.is_set():
            return Outcome(key, skipped=True)
        try:
            async with asyncio.timeout(timeout):
                return Outcome(key, value=await work(key))
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return Outcome(key, error=StrayCancellation("the unit was cancelled from inside"))
        except Exception as error:  # noqa: BLE001 - the unit boundary: an error becomes a value here
            return Outcome(key, error=error)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(key), name=f"{name}:{key}") for key in keys]
    return [task.result() for task in tasks]

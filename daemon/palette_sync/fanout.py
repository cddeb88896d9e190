"""Bounded concurrency over independent units. A failed unit is a result and does not affect the others."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

K = TypeVar("K")
V = TypeVar("V")


class StrayCancellation(Exception):
    """A unit raised CancelledError without being cancelled, as a library may do for a future of its own."""


@dataclass(frozen=True, slots=True)
class Outcome(Generic[K, V]):
    """The result of one unit: a value, an error, or `skipped` because the drain began before it started.

    `hung`: it was still waiting for an answer when it ended (reconcile/lanes.py).
    """

    key: K
    value: V | None = None
    error: Exception | None = None
    skipped: bool = False
    hung: bool = False


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
    """Run `work` for every key, as many at once as `limit` admits, each within `timeout` seconds.

    The timeout of a unit starts when it is admitted. Units that are not admitted before `stopping` is set are skipped.
    `done` is called with each outcome as soon as it is known. Cancelling the caller cancels every unit. A unit's error
    is never raised: after a timeout the outcome's error is a TimeoutError, and after a CancelledError without a
    cancellation it is a StrayCancellation. An exception in `done` is a bug and ends the fan-out.
    """

    async def one(key: K) -> Outcome[K, V]:
        async with limit:
            outcome = await attempt(key, work, timeout=timeout, stopping=stopping)
        if done is not None:
            done(outcome)
        return outcome

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(key), name=f"{name}:{key}") for key in keys]
    return [task.result() for task in tasks]


async def attempt(
    key: K,
    work: Callable[[K], Awaitable[V]],
    *,
    timeout: float,  # noqa: ASYNC109 - of this unit
    stopping: asyncio.Event | None,
) -> Outcome[K, V]:
    """Run one unit, whose error becomes a value. Only a cancellation of the caller is raised."""
    if stopping is not None and stopping.is_set():
        return Outcome(key, skipped=True)
    try:
        async with asyncio.timeout(timeout):
            return Outcome(key, value=await work(key))
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        return Outcome(key, error=StrayCancellation("the unit raised CancelledError without being cancelled"))
    except Exception as error:  # noqa: BLE001 - the unit boundary: an error becomes a value here
        return Outcome(key, error=error)

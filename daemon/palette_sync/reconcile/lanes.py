"""Work on many clusters, some of which hang, without delaying those that answer.

A unit of work holds a place while its cluster answers. A unit that waits for an answer for `YIELD_AFTER` seconds gives
its place to the next one, and takes it back with the answer. It costs a socket meanwhile, so at most `ROOM` times as
many units as there are places may be silent at once; beyond that, the unit that has been silent for the longest time
ends. A round does not wait for a unit that is silent for `LEAVE_AFTER` seconds: the unit goes on by itself, and a later
round takes its outcome. Units that hung last time have a few places of their own and take none from the others.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING, Generic, TypeVar

from palette_sync.fanout import Outcome, attempt
from palette_sync.http import ANSWERED
from palette_sync.reconcile.places import Places

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable
    from types import TracebackType

K = TypeVar("K")
V = TypeVar("V")

YIELD_AFTER = 0.25  # seconds; most clusters answer sooner, and 500 that hang cost 32 places only 4 s
LEAVE_AFTER = 2.0  # seconds; then a unit counts as hanging
LAG = 0.02  # seconds by which a timer of a busy process is late
ROOM = 8  # silent units for each place


class NoAnswer(TimeoutError):
    """A cluster did not answer for some seconds, and too many others do not answer either."""


class Unit:
    """One unit at work. `slow`: it hung last time. `left`: no round waits for it. `silent`: it gave its places up."""

    def __init__(self, *, slow: bool) -> None:
        self.slow = self.left = slow
        self.silent = False
        self.hung = False
        self.evicted = False
        self.heard_at = 0.0
        self.timer: asyncio.TimerHandle | None = None
        self.task: asyncio.Task[None] | None = None
        self.release: Callable[[Unit], None] = lambda _: None

    def cancel(self) -> None:
        if self.task is not None:
            self.task.cancel()


_unit: ContextVar[Unit | None] = ContextVar("unit", default=None)


class Round(Generic[K, V]):
    """The units that one call of `Lanes.run` waits for."""

    def __init__(self, done: Callable[[Outcome[K, V]], None]) -> None:
        self.done = done
        self.attached: set[Unit] = set()
        self.changed = asyncio.Event()
        self.bug: Exception | None = None

    def guarded(self, call: Callable[[], None]) -> Callable[[], None]:
        """The call, whose error is raised by `Lanes.run`."""

        def made() -> None:
            try:
                call()
            except Exception as error:  # noqa: BLE001 - raised by `run`
                self.bug = error
                self.changed.set()

        return made

    def release(self, unit: Unit) -> None:
        self.attached.discard(unit)
        self.changed.set()


class Lanes(Generic[K, V]):
    """The units at work for one instance; it outlives single rounds.

    `finished` is called when a unit that no round waits for has an outcome between two rounds. `waits`: every round
    waits for all of its units, also for those that hang; then no unit needs a later round, and none counts as slow.
    `name` returns the name of a unit. Inside a unit, `async with lanes` holds a place for a conversation with its
    cluster.
    """

    def __init__(
        self,
        concurrency: int,
        *,
        name: Callable[[K], str],
        finished: Callable[[], None] = lambda: None,
        waits: bool = False,
    ) -> None:
        self._name = name
        self._finished = self._between_rounds = finished
        self._waits = waits
        self._concurrency = concurrency
        # Twice the places: half of the units may wait for Palette's rate limit while the others work.
        self._admitted = Places(2 * concurrency)
        self._places = Places(concurrency)
        self._running: dict[str, Unit] = {}
        self._silent: dict[Unit, None] = {}  # without the slow ones, the longest silent first
        self._outcomes: dict[str, Outcome[K, V]] = {}

    # -- what is at work --------------------------------------------------------------------------------------------

    @property
    def busy(self) -> Collection[str]:
        """The names of units that are at work, or whose outcome nobody has taken yet."""
        return self._running.keys() | self._outcomes.keys()

    @property
    def outcomes(self) -> int:
        """How many outcomes nobody has taken yet."""
        return len(self._outcomes)

    @property
    def tasks(self) -> set[asyncio.Task[None]]:
        return {unit.task for unit in self._running.values() if unit.task is not None}

    @property
    def talking(self) -> bool:
        """Whether a unit is at work whose cluster answers, or an outcome waits."""
        return bool(self._outcomes) or any(not unit.silent for unit in self._running.values())

    @property
    def slow_places(self) -> int:
        """How many more units that hung last time may begin."""
        return max(1, self._concurrency // 2) - sum(unit.slow for unit in self._running.values())

    def resize(self, concurrency: int) -> None:
        self._concurrency = concurrency
        self._admitted.resize(2 * concurrency)
        self._places.resize(concurrency)

    def take_outcomes(self) -> list[Outcome[K, V]]:
        """Take what came of the units that no round waited for."""
        found, self._outcomes = list(self._outcomes.values()), {}
        return found

    async def end(self, names: Collection[str]) -> None:
        """End the units with these names that are at work. They have no outcome then."""
        await self._cancel([unit for name, unit in self._running.items() if name in names])

    async def drain(self, late: asyncio.Event) -> None:
        """End the units whose clusters are silent, and wait for the others until `late` is set; then end them too."""
        for unit in [unit for unit in self._running.values() if unit.silent]:
            unit.cancel()
        lateness = asyncio.create_task(late.wait(), name="late")
        while self.tasks and not late.is_set():
            await asyncio.wait({*self.tasks, lateness}, return_when=asyncio.FIRST_COMPLETED)
        lateness.cancel()
        await self._cancel(self._running.values())

    # -- a round ----------------------------------------------------------------------------------------------------

    async def run(
        self,
        keys: Iterable[K],
        work: Callable[[K], Awaitable[V]],
        *,
        slow: Callable[[K], bool],
        timeout: float,  # noqa: ASYNC109 - it is per unit and starts only once the unit is admitted
        stopping: asyncio.Event | None,
        yields: Callable[[], bool],
        done: Callable[[Outcome[K, V]], None],
        finished: Callable[[], None],
        label: str,
    ) -> None:
        """Run `work` for every key, in their order, each within `timeout` seconds.

        `done` gets the outcome of each unit that ends in this round. Units that are not admitted before `stopping` is
        set are skipped. Once `yields` returns True no more units begin, and they have no outcome. A unit that hung last
        time (`slow`) begins only if a place of that lane is free. Cancelling the caller cancels all units that it waits
        for. `finished` is called in this round when a unit of an earlier one has an outcome. An exception in `done` or
        `finished` is a bug and is raised.
        """
        round_ = Round(done)
        for key in keys:
            unit = Unit(slow=not self._waits and slow(key))
            unit.release = round_.release
            if unit.slow and (self.slow_places <= 0 or (stopping is not None and stopping.is_set())):
                continue
            self._running[self._name(key)] = unit
            if not unit.slow:
                round_.attached.add(unit)
            one = self._one(key, unit, round_, work, timeout=timeout, stopping=stopping, yields=yields)
            unit.task = asyncio.create_task(one, name=f"{label}:{key}")
        self._finished = round_.guarded(finished)
        try:
            while round_.attached and round_.bug is None:
                await round_.changed.wait()
                round_.changed.clear()
        finally:
            self._finished = self._between_rounds
            await self._cancel(round_.attached)
        if round_.bug is not None:
            raise round_.bug

    async def _one(
        self,
        key: K,
        unit: Unit,
        round_: Round[K, V],
        work: Callable[[K], Awaitable[V]],
        *,
        timeout: float,  # noqa: ASYNC109 - of this unit
        stopping: asyncio.Event | None,
        yields: Callable[[], bool],
    ) -> None:
        _unit.set(unit)
        ANSWERED.set(lambda: self._heard(unit))
        outcome: Outcome[K, V] | None = None
        try:
            if not unit.slow:
                await self._admitted.take()
            try:
                if unit.slow or not yields():
                    outcome = await self._attempt(key, unit, work, timeout=timeout, stopping=stopping)
            finally:
                if not unit.slow:
                    self._admitted.give()
        finally:
            del self._running[self._name(key)]
            self._settle(outcome, unit, round_, key)

    def _settle(self, outcome: Outcome[K, V] | None, unit: Unit, round_: Round[K, V], key: K) -> None:
        if outcome is not None and unit.left:
            self._outcomes[self._name(key)] = outcome
            self._finished()
        elif outcome is not None:
            round_.guarded(lambda: round_.done(outcome))()
        round_.release(unit)

    async def _attempt(
        self,
        key: K,
        unit: Unit,
        work: Callable[[K], Awaitable[V]],
        *,
        timeout: float,  # noqa: ASYNC109 - of this unit
        stopping: asyncio.Event | None,
    ) -> Outcome[K, V]:
        try:
            return replace(await attempt(key, work, timeout=timeout, stopping=stopping), hung=unit.hung)
        except asyncio.CancelledError:
            if not unit.evicted or unit.task is None or unit.task.uncancel():
                raise
            return Outcome(key, error=NoAnswer(f"no answer within {LEAVE_AFTER:g} s"), hung=True)

    async def _cancel(self, units: Collection[Unit]) -> None:
        chosen = list(units)
        for unit in chosen:
            unit.cancel()
        tasks = {unit.task for unit in chosen if unit.task is not None}
        if tasks:
            await asyncio.wait(tasks)

    # -- conversations ----------------------------------------------------------------------------------------------

    async def __aenter__(self) -> None:
        unit = _unit.get()
        assert unit is not None, "only a unit of `run` has conversations"
        if not unit.slow:
            await self._places.take()
        unit.hung = False
        unit.heard_at = asyncio.get_running_loop().time()
        self._listen(unit, YIELD_AFTER)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        unit = _unit.get()
        assert unit is not None
        unit.hung = asyncio.get_running_loop().time() - unit.heard_at >= LEAVE_AFTER
        if unit.timer is not None:
            unit.timer.cancel()
        if unit.silent:
            self._speaks(unit)
        if not unit.slow:
            self._places.give()

    def _listen(self, unit: Unit, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        # A remainder that is too small to move the clock would make the loop spin.
        when = loop.time() + max(seconds, 0.01)
        unit.timer = loop.call_at(when, self._look, unit, when)

    def _look(self, unit: Unit, when: float) -> None:
        """A while has passed since the unit was heard, or since it was looked at."""
        now = asyncio.get_running_loop().time()
        silence = now - unit.heard_at
        if not unit.silent and now - when > LAG:
            # This process is busy, and answers may wait to be read. More units at work would make that worse.
            self._listen(unit, YIELD_AFTER)
        elif not unit.silent and silence < YIELD_AFTER:
            self._listen(unit, YIELD_AFTER - silence)
        elif not unit.silent:
            if unit.slow or self._has_room():
                self._falls_silent(unit)
            self._listen(unit, YIELD_AFTER)
        elif silence < LEAVE_AFTER:
            self._listen(unit, LEAVE_AFTER - silence)
        elif not self._waits and not unit.left:
            unit.left = True
            unit.release(unit)

    def _has_room(self) -> bool:
        """Whether one more unit may be silent. If not, the one that has been silent for the longest time ends."""
        if len(self._silent) < ROOM * self._concurrency:
            return True
        oldest = next(iter(self._silent))
        if asyncio.get_running_loop().time() - oldest.heard_at >= LEAVE_AFTER:
            oldest.evicted = True
            self._speaks(oldest)
            oldest.cancel()
            return True
        return False

    def _falls_silent(self, unit: Unit) -> None:
        unit.silent = True
        if not unit.slow:
            self._silent[unit] = None
            self._places.give()
            self._admitted.give()

    def _speaks(self, unit: Unit) -> None:
        unit.silent = False
        if not unit.slow:
            del self._silent[unit]
            self._places.retake()
            self._admitted.retake()

    def _heard(self, unit: Unit) -> None:
        unit.heard_at = asyncio.get_running_loop().time()
        if unit.silent:
            self._speaks(unit)
            if unit.timer is not None:
                unit.timer.cancel()
            self._listen(unit, YIELD_AFTER)

"""Keeps what the daemon did in the last 24 hours, for the page's timeline, and brings it to Redis.

The process that leads an instance counts and writes. A process that takes over reads what the one before it wrote, so a
restart loses a quarter of a minute at most.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from palette_sync.assembly.store import utc_now
from palette_sync.core.activity import Asked, Slot, is_of_day, joined, slot_begin
from palette_sync.reconcile.report import Effect
from palette_sync.store.activity import read_activity, write_activity
from palette_sync.store.redis import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from datetime import datetime

    from palette_sync.core.reasons import Reason
    from palette_sync.reconcile.report import PassReport
    from palette_sync.service.configuration import ActiveConfiguration

PACE = 15.0  # seconds between two writes
PATIENCE = 5.0  # seconds that one instance waits for Redis


@dataclass
class _Day:
    """`unwritten` are the beginnings of slots that Redis does not have yet. `read`: what Redis had is in `slots`."""

    slots: dict[datetime, Slot] = field(default_factory=dict)
    unwritten: set[datetime] = field(default_factory=set)
    read: bool = False


class Activity:
    """Counts for all instances. Recording never waits; `run` brings it to Redis."""

    def __init__(self, configuration: ActiveConfiguration) -> None:
        self._configuration = configuration
        self._days: dict[str, _Day] = {}
        self._exchanging = asyncio.Lock()

    def pass_finished(self, report: PassReport, *, listed: bool) -> None:
        effects = Counter(effect for change in report.changes for effect in change.effects if effect is not Effect.HELD)
        failed = bool(report.error or report.problems or report.skipped)
        error = report.error or "; ".join(report.problems) or f"{report.skipped} clusters were not worked on"

        def with_pass(slot: Slot) -> Slot:
            return slot.with_pass(
                listed=listed,
                failed=failed,
                error=error,
                duration_s=report.duration_s,
                palette=report.palette_requests,
                kube=report.kube_requests,
                changes={effect.value: count for effect, count in effects.items()},
            )

        self._change(report.instance, with_pass)

    def pass_failed(self, instance: str, reason: Reason) -> None:
        """A pass ended without a report."""
        self._change(instance, lambda slot: slot.with_pass(listed=False, failed=True, error=reason.value))

    def asked(self, instance: str, what: str, by: str) -> None:
        """An operator asked for something."""
        asked = Asked(utc_now(), what, by)
        self._change(instance, lambda slot: slot.with_asked(asked))

    def _change(self, instance: str, change: Callable[[Slot], Slot]) -> None:
        day, begins = self._days.setdefault(instance, _Day()), slot_begin(utc_now())
        day.slots[begins] = change(day.slots.get(begins) or Slot(begins))
        day.unwritten.add(begins)

    def day(self, instance: str) -> Mapping[datetime, Slot]:
        """The slots of the last 24 hours that are known here, by when they begin."""
        day = self._days.get(instance)
        return {} if day is None else day.slots

    # -- Redis ------------------------------------------------------------------------------------------------------

    async def run(self, ours: Callable[[], Collection[str]]) -> None:
        """Read once and write every few seconds, until cancelled. `ours`: the instances that no other process leads."""
        while True:
            await self.exchange(ours())
            await asyncio.sleep(PACE)

    async def exchange(self, ours: Collection[str]) -> None:
        """Read what was not read yet, and write what is new. What Redis does not give or take waits for the next time.

        Another process counts for what it leads, so that is forgotten here.
        """
        async with self._exchanging:
            for instance in [name for name in self._days if name not in ours]:
                del self._days[instance]
            for instance in ours:
                with suppress(StoreError, TimeoutError):  # the runners log that Redis fails
                    async with asyncio.timeout(PATIENCE):
                        await self._exchange(instance, self._days.setdefault(instance, _Day()))

    async def _exchange(self, instance: str, day: _Day) -> None:
        shared, now = self._configuration.shared, utc_now()
        if not day.read:
            stored = await read_activity(shared.store, shared.sealer, instance, now=now)
            day.read = True
            for begins, slot in stored.items():
                own = day.slots.get(begins)
                day.slots[begins] = slot if own is None else joined(slot, own)
        old = [begins for begins in day.slots if not is_of_day(begins, now)]
        slots = [day.slots[begins] for begins in sorted(day.unwritten)]
        await write_activity(shared.store, shared.sealer, instance, slots, drop=old)
        day.unwritten -= {slot.begins for slot in slots if day.slots[slot.begins] is slot} | {*old}
        for begins in old:
            del day.slots[begins]

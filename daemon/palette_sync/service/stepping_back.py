"""Looks whether Palette answers this process, while a leader announces that its passes fail, and makes a leader that
cannot work hand over (`core.stepping_back`).
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog

from palette_sync.core.documents import format_time
from palette_sync.core.stepping_back import next_rest, successor, wants_a_look
from palette_sync.runner import RunnerState

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from palette_sync.core.leadership import Share
    from palette_sync.core.stepping_back import Rest
    from palette_sync.runner import Runner
    from palette_sync.store.members import Company

log = structlog.get_logger(__name__)

LOOKS = 10  # at Palette, per `step_back`


@dataclass
class _Case:
    """What is known of one instance. `reaches`: what the last look found; `looked_at`: when, on the monotonic clock.

    `succeeded_at` is that of the runner when this process stepped back last.
    """

    rest: Rest | None = None
    reaches: bool | None = None
    looked_at: float | None = None
    look: asyncio.Task[bool] | None = None
    succeeded_at: datetime | None = None

    def end_look(self) -> None:
        if self.look is not None:
            self.look.cancel()
        self.look, self.looked_at, self.reaches = None, None, None


class SteppingBack:
    """Completes what this process announces. One call of `completed` for each instance and look at the others."""

    def __init__(self) -> None:
        self._cases: dict[str, _Case] = {}

    def forget(self, instance: str) -> None:
        if (gone := self._cases.pop(instance, None)) is not None:
            gone.end_look()

    def end(self) -> None:
        """Cancel the looks that are under way."""
        for one in self._cases.values():
            one.end_look()

    def completed(
        self, share: Share, runner: Runner, *, me: str, company: Company | None, now: datetime, step_back: timedelta
    ) -> Share:
        """`share` with what concerns stepping back. `company` is as of the last look, `now` by the server's clock."""
        case = self._cases.setdefault(runner.instance, _Case())
        name, status = runner.instance, runner.status
        members = company.members if company is not None else ()
        _look(case, runner, wants_a_look(name, members, case.rest, now, step_back / LOOKS), step_back)
        to = next((successor(name, one, members, now) for one in members if one.id == me and name in one.shares), None)
        case.rest = next_rest(
            case.rest,
            steps_back=to is not None,
            reaches=case.reaches,
            works=status.state is RunnerState.LEADING and status.succeeded_at != case.succeeded_at,
            now=now,
            step_back=step_back,
        )
        if to is not None and case.rest is not None:
            case.succeeded_at = status.succeeded_at
            log.warning(
                "stepped_back", instance=name, until=format_time(case.rest.until), reason=f"{to} reaches Palette"
            )
        rests_until = case.rest.until if case.rest is not None and case.rest.until > now else None
        failing = runner.failing_for()
        fails_since = now - failing if failing >= step_back else None
        cut_off = rests_until is not None or (fails_since is not None and case.reaches is False)
        runner.note_cut_off(cut_off, rests_until=rests_until)
        return replace(share, rests_until=rests_until, fails_since=fails_since, reaches=case.reaches)


def _look(case: _Case, runner: Runner, wanted: bool, step_back: timedelta) -> None:  # noqa: FBT001 - a decision
    """Begin a look if it is time for one, and take the result of the last one."""
    if not wanted:
        case.end_look()
        return
    if case.look is not None and case.look.done():
        case.reaches, case.look = case.look.result(), None
    moment = time.monotonic()
    if case.look is None and (case.looked_at is None or moment - case.looked_at >= step_back.total_seconds() / LOOKS):
        case.looked_at = moment
        case.look = asyncio.create_task(runner.reaches_palette(), name=f"reach:{runner.instance}")

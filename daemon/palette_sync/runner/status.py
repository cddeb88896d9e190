"""The status of a runner: read by health, metrics, the status document and the dump."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from palette_sync.core.due import lapses_at, renews_from
from palette_sync.core.model import AccessState
from palette_sync.core.pause import pause_of
from palette_sync.core.prune import absences_of
from palette_sync.core.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from palette_sync.core.model import InstanceState


class RunnerState(StrEnum):
    """`standby`: another process holds the lease. `storeless`: Redis fails, or this process lost its lease; what is
    known stays in memory.
    """

    STARTING = "starting"
    LEADING = "leading"
    STANDBY = "standby"
    STORELESS = "storeless"
    STOPPED = "stopped"


Progress = tuple[str, int, int]  # what a pass does, how many clusters are done, and how many there are (0: unknown)


@dataclass
class RunnerStatus:
    """What is known of one instance.

    `state_since`: when the present `state` began. `read`: a snapshot was published or read, so readers have something.
    `busy_since`: when the current work began. `progress`: how far the pass at work has come.
    `attempted_at`, `succeeded_at`: the start of the last pass that listed Palette, and the end of the last such pass
    that did not fail as a whole. `failing_since`: when the first of the passes began that have failed since then.
    `paused`: published clusters that an operator paused.
    `access`: published clusters by state. `reasons`: the same by state and reason.
    `held`: records that the prune guard holds, `held_since` and `held_until`: the first of their times, `held_why`: why
    one of them is held. `first_lapse`: when the first published token expires;
    `next_lapse`: when `access` and `reasons` change, because a token expires that readers use.
    `renewals_failing`: tokens that are due for renewal, and whose last renewal failed. `wakes_at`: when a known cluster
    becomes due. `cut_off_since`: since when passes fail because Palette does not answer this process, if that is long.
    `rests_until`: it stepped back, and does not lead before while another process can. `refilled_at`: when this process
    last published again what Redis had lost.
    """

    state: RunnerState = RunnerState.STARTING
    detail: str = ""
    state_since: datetime | None = None
    read: bool = False
    busy_since: datetime | None = None
    progress: Progress | None = None
    attempted_at: datetime | None = None
    succeeded_at: datetime | None = None
    error: str | None = None
    failing_since: datetime | None = None
    passes: int = 0
    version: int = 0
    complete: bool = False
    access: Mapping[str, int] = field(default_factory=dict)
    reasons: Mapping[tuple[str, str], int] = field(default_factory=dict)
    paused: int = 0
    held: int = 0
    held_since: datetime | None = None
    held_until: datetime | None = None
    held_why: str = ""
    scopes_failing: Mapping[str, str] = field(default_factory=dict)
    first_lapse: datetime | None = None
    next_lapse: datetime | None = None
    renewals_failing: int = 0
    wakes_at: datetime | None = None
    cut_off_since: datetime | None = None
    rests_until: datetime | None = None
    refilled_at: datetime | None = None
    key_name: str | None = None
    key_expires_at: datetime | None = None

    def enter(self, state: RunnerState, detail: str = "", *, now: datetime) -> None:
        """Take a state. `state_since` moves only when the state changes."""
        if state is not self.state or self.state_since is None:
            self.state_since = now
        self.state, self.detail = state, detail

    def fail(self, error: str | None, *, now: datetime) -> None:
        """Note why the last pass failed; None: it did not."""
        self.error = error
        self.failing_since = None if error is None else self.failing_since or now

    def note_cut_off(self, cut_off: bool, *, rests_until: datetime | None, now: datetime) -> None:  # noqa: FBT001
        """Note whether Palette does not answer this process, and whether it rests because of that."""
        self.cut_off_since = (self.cut_off_since or self.failing_since or now) if cut_off else None
        self.rests_until = rests_until

    def take_over(self, state: InstanceState, *, now: datetime) -> None:
        """Update everything that follows from the published `state`."""
        if state.head is None:
            return
        self.read = True
        self.version, self.complete = state.head.version, state.head.complete
        lapses = {uid: lapses_at(record, state.credentials.get(uid)) for uid, record in state.records.items()}
        accesses = [
            (AccessState.FAILED, Reason.TOKEN_LAPSED)
            if (end := lapses[uid]) is not None and end <= now
            else (record.access.state, record.access.reason)
            for uid, record in state.records.items()
        ]
        self.access = dict(Counter(one.value for one, _ in accesses))
        self.reasons = dict(Counter((one.value, str(reason)) for one, reason in accesses))
        self.paused = sum(pause_of(record, now) is not None for record in state.records.values())
        self.next_lapse = min((end for end in lapses.values() if end is not None and end > now), default=None)
        self.scopes_failing = {one.name: one.error for one in state.scopes.values() if one.error}
        held = [one for uid, one in absences_of(state.status).items() if one.held and uid in state.records]
        self.held = len(held)
        self.held_since = min((one.since for one in held), default=None)
        self.held_until = min((one.until for one in held if one.until), default=None)
        self.held_why = f"{held[0].reason}: {held[0].message}" if held else ""
        ends = [one.expires_at for uid, one in state.credentials.items() if uid in state.records]
        self.first_lapse = min((end for end in ends if end is not None), default=None)
        self.renewals_failing = sum(
            renews_from(one) <= now and state.memory[uid].failures > 0
            for uid, one in state.credentials.items()
            if uid in state.memory
        )

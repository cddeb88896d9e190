"""How a runner stands: read by health, metrics, the dump of the process and people."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from palette_sync.core.due import renews_from

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from palette_sync.core.model import InstanceState


class RunnerState(StrEnum):
    """`storeless`: Redis is away, cannot be used, or took the lease away; what is known stays in memory.

    `standby` is said only where another process is seen to lead.
    """

    STARTING = "starting"
    LEADING = "leading"
    STANDBY = "standby"
    STORELESS = "storeless"
    STOPPED = "stopped"


@dataclass
class RunnerStatus:
    """`attempted_at` and `succeeded_at` speak of passes that list Palette; an age is told from them, not a constant OK.

    `read`: a snapshot was published or read, so readers have something. `first_lapse` is when the first published token
    ends, `renewals_failing` how many should have been renewed and could not be, `wakes_at` when something known is due.
    """

    state: RunnerState = RunnerState.STARTING
    detail: str = ""
    read: bool = False
    busy_since: datetime | None = None
    attempted_at: datetime | None = None
    succeeded_at: datetime | None = None
    error: str | None = None
    passes: int = 0
    version: int = 0
    complete: bool = False
    access: Mapping[str, int] = field(default_factory=dict)
    held: int = 0
    scopes_failing: Mapping[str, str] = field(default_factory=dict)
    first_lapse: datetime | None = None
    renewals_failing: int = 0
    wakes_at: datetime | None = None
    key_name: str | None = None
    key_expires_at: datetime | None = None

    def settle(self, state: InstanceState, *, now: datetime) -> None:
        """Take over what is published."""
        if state.head is None:
            return
        self.read = True
        self.version, self.complete = state.head.version, state.head.complete
        self.access = dict(Counter(record.access.state.value for record in state.records.values()))
        self.scopes_failing = {one.name: one.error for one in state.scopes.values() if one.error}
        ends = [one.expires_at for uid, one in state.credentials.items() if uid in state.records]
        self.first_lapse = min((end for end in ends if end is not None), default=None)
        self.renewals_failing = sum(
            renews_from(one) <= now and state.memory[uid].failures > 0
            for uid, one in state.credentials.items()
            if uid in state.memory
        )

"""Clusters that an operator paused: nothing is written to them, and their records stay. Pure.

A pause stands in the record, so it is authenticated, versioned and kept wherever the record is. The Palette tag
`palette-sync:pause` pauses a cluster as well, for as long as the cluster carries it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from palette_sync.core.documents import present
from palette_sync.core.durations import time_for_people

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from palette_sync.core.model import ClusterRecord, Pause

PAUSE_TAG = "palette-sync:pause"
LONGEST_TEXT = 200  # characters of a pause's reason, and of who paused


@dataclass(frozen=True, slots=True)
class PauseInForce:
    """A pause as it holds now. `since` is None where only the tag pauses: when it was set is not known.

    `until` is None for a pause that does not end by itself. `tagged`: the tag in Palette pauses the cluster, so that a
    `resume` does not help.
    """

    reason: str
    by: str
    since: datetime | None
    until: datetime | None
    tagged: bool

    @property
    def text(self) -> str:
        """One line for people."""
        who = f" by {self.by}" if self.by else ""
        end = f", until {time_for_people(self.until)}" if self.until else ""
        return f"paused{who}{end}: {self.reason}"

    def holds_at(self, moment: datetime) -> bool:
        """Whether the pause still holds then, if nobody ends it before."""
        return self.until is None or moment < self.until


def pause_in_force(record: ClusterRecord | None, tags: Iterable[str], now: datetime) -> PauseInForce | None:
    """The pause of a cluster, or None. `tags` are those that Palette reports of it."""
    own = lasting(record.pause if record is not None else None, now)
    if PAUSE_TAG in tags:
        reason = f"it has the tag {PAUSE_TAG} in Palette"
        if own is not None:
            reason = f"{own.reason}; {reason}"
        return PauseInForce(reason, own.by if own else "", own.since if own else None, None, tagged=True)
    if own is None:
        return None
    return PauseInForce(own.reason, own.by, own.since, own.until, tagged=False)


def pause_of(record: ClusterRecord, now: datetime) -> PauseInForce | None:
    """The pause of a published cluster, by its record alone."""
    return pause_in_force(record, record.palette.tags, now)


def lasting(pause: Pause | None, now: datetime) -> Pause | None:
    """The pause, or None once it has ended."""
    return None if pause is None or (pause.until is not None and now >= pause.until) else pause


def pause_document(pause: PauseInForce) -> dict[str, object]:
    """The pause for programs."""
    return present(
        reason=pause.reason, by=pause.by or None, since=pause.since, until=pause.until, tagged=pause.tagged or None
    )

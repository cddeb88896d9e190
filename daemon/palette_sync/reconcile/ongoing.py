"""What goes on from one pass of a process to the next, beside what is published."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from palette_sync.core.due import suspects
from palette_sync.reconcile.lanes import Lanes

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from palette_sync.reconcile.cluster import ClusterResult, DueCluster


@dataclass
class Ongoing:
    """`lanes`: the clusters at work, some of which hang longer than a pass. `wanted`: after how many seconds of work a
    pass ends early, because something else is to be done, and leaves the rest to the next one; None = nothing is.
    Without `wanted` every pass does all of its work.
    `proven_dead`: the uids of clusters at work whose API server refused the published token. `suspect_since`: when that
    happened last, as far as it counts. `whole`: the last listing of Palette held everything.
    """

    lanes: Lanes[DueCluster, ClusterResult]
    wanted: Callable[[], float | None] | None = None
    proven_dead: set[str] = field(default_factory=set)
    suspect_since: datetime | None = None
    whole: bool = False

    @classmethod
    def of_one_pass(cls, concurrency: int) -> Self:
        return cls(Lanes(concurrency, name=uid_of, waits=True))

    @classmethod
    def of_daemon(cls, *, wanted: Callable[[], float | None], finished: Callable[[], None]) -> Self:
        """`finished` is called when a cluster that no pass waited for is done; the next pass takes what came of it."""
        return cls(Lanes(1, name=uid_of, finished=finished), wanted)

    def token_refused(self, now: datetime) -> None:
        """An API server refused a published token, and the tokens of other clusters may be dead too."""
        if suspects(self.suspect_since, now):
            self.suspect_since = now


def uid_of(item: DueCluster) -> str:
    return item.candidate.cluster.uid

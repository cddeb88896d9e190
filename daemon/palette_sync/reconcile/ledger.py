"""What a pass did, cluster by cluster: collected for its report, and logged as it happens.

One wide line for each cluster that changes; what stays as it was is only counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from palette_sync.core.documents import format_time
from palette_sync.core.reasons import Reason
from palette_sync.reconcile.report import Effect, absence_of, change_of, project_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from palette_sync.core.model import ClusterRecord
    from palette_sync.core.prune import Pruning
    from palette_sync.reconcile.cluster import ClusterResult, DueCluster
    from palette_sync.reconcile.report import Change

log = structlog.get_logger(__name__)

MOST_NAMES = 10  # of what is held back, in one log line


class Ledger:
    """A pass that writes nothing (`dry_run`) is not logged."""

    def __init__(self, instance: str, pass_id: str, *, dry_run: bool) -> None:
        self._dry_run = dry_run
        self._log = log.bind(instance=instance, pass_id=pass_id)
        self._changes: list[Change] = []

    @property
    def changes(self) -> tuple[Change, ...]:
        """By the clusters' names."""
        return tuple(sorted(self._changes, key=lambda change: change.name))

    def worked(
        self, item: DueCluster, before: ClusterRecord | None, after: ClusterRecord, worked: ClusterResult
    ) -> None:
        """Work on a cluster ended, and its record is now `after`."""
        change = change_of(before, after, worked=worked, due=item.due, dry_run=self._dry_run)
        if change is not None:
            self.changed(change)
        self.left(after, worked.left)
        if worked.credential is not None:
            self._log.info(
                "token_issued",
                project=project_of(after),
                cluster=after.uid,
                reason=item.due.reason,
                expires_at=_time(worked.credential.expires_at),
                renew_at=_time(worked.credential.renew_at),
            )

    def left(self, record: ClusterRecord, message: str) -> None:
        """A token of a cluster that is not served with a service account any more lives on, as `message` says."""
        if message:
            self._log.warning(
                "token_left",
                project=project_of(record),
                cluster=record.uid,
                name=record.name,
                reason=Reason.TOKEN_LEFT,
                message=message,
            )

    def changed(self, change: Change) -> None:
        self._changes.append(change)
        if self._dry_run:
            return
        fields = {
            "project": change.project,
            "cluster": change.uid,
            "name": change.name,
            "action": [effect.value for effect in change.effects],
            "reason": change.reason,
            "message": change.message,
            "done": [f"{action.verb} {action.kind} {action.name}: {action.reason}" for action in change.actions],
            "duration_s": change.duration_s,
        }
        if Effect.FAILED in change.effects:
            self._log.warning("cluster_changed", **fields)
        else:
            self._log.info("cluster_changed", **fields)

    def absent(self, records: Mapping[str, ClusterRecord], pruning: Pruning) -> None:
        """The prune guard keeps records whose cluster is not listed. `records` are all that are published."""
        self._changes += [absence_of(records[uid], one) for uid, one in sorted(pruning.absent.items())]
        if pruning.held and not self._dry_run:
            held = [pruning.absent[uid] for uid in pruning.held]
            names = sorted(records[uid].name for uid in pruning.held)[:MOST_NAMES]
            lost = any(one.reason is Reason.ACCESS_LOST for one in held)
            self._log.warning(
                "prune_held",
                held=len(held),
                of=len(records),
                names=names,
                since=_first(one.since for one in held),
                until=_first(one.until for one in held),
                reason=Reason.ACCESS_LOST if lost else Reason.PRUNE_HELD,
                message=held[0].message,
            )


def _first(moments: Iterable[datetime | None]) -> str:
    return _time(min((one for one in moments if one is not None), default=None))


def _time(moment: datetime | None) -> str:
    return "never" if moment is None else format_time(moment)

"""The results of a pass as values, for tables, `--json`, the status document and metrics."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from palette_sync.core.documents import format_time
from palette_sync.core.fold import AccessFailed
from palette_sync.core.model import AccessState
from palette_sync.core.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from palette_sync.core.due import Due
    from palette_sync.core.model import ClusterRecord
    from palette_sync.core.plan import Action
    from palette_sync.core.prune import Absence
    from palette_sync.reconcile.cluster import ClusterResult


class Effect(StrEnum):
    """What happens to a cluster's published record or credential; `FAILED` and `HELD` change neither."""

    PUBLISHED = "published"
    UPDATED = "updated"
    DROPPED = "dropped"
    ROTATED = "rotated"
    REPAIRED = "repaired"
    FAILED = "failed"
    HELD = "held"


@dataclass(frozen=True, slots=True)
class Change:
    """One cluster's part in a pass. `message` is for people; `actions` were done in the cluster.
    `duration_s` includes waiting for Palette's rate limits and for a place among the clusters in flight.
    """

    uid: str
    name: str
    project: str
    effects: tuple[Effect, ...]
    reason: Reason
    message: str
    actions: tuple[Action, ...] = ()
    duration_s: float = 0.0


@dataclass(frozen=True, slots=True)
class PassReport:
    """One pass over one instance. `error` says why the pass as a whole failed; then nothing was pruned.

    `problems` are failures beside clusters, such as a project's listing; `notes` are no failures. `skipped` clusters
    were due and not worked on, because the process was stopping or nothing could be published. `postponed` are the uids
    of those that the next pass works on, because something else is wanted first. `silent` clusters have not answered so
    far, and the pass did not wait for them.
    """

    instance: str
    pass_id: str
    started_at: datetime
    duration_s: float
    version_before: int
    version: int
    discovered: int = 0
    clusters: int = 0
    due: int = 0
    access: Mapping[str, int] = field(default_factory=dict)
    changes: tuple[Change, ...] = ()
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    held: int = 0
    skipped: int = 0
    postponed: tuple[str, ...] = ()
    silent: int = 0
    palette_requests: int = 0
    kube_requests: int = 0
    error: str | None = None

    @property
    def all_well(self) -> bool:
        """Whether this pass failed nowhere, and leaves no cluster without access or answer, and no prune held."""
        lacking = self.access.get(AccessState.FAILED, 0) + self.access.get(AccessState.DEGRADED, 0)
        return not (self.failed or self.held or self.silent or lacking)

    @property
    def changed(self) -> int:
        """Clusters whose record or credential changed; what failed or is held back is no change."""
        return sum(bool(set(one.effects) - {Effect.FAILED, Effect.HELD}) for one in self.changes)

    @property
    def failed(self) -> bool:
        return bool(self.error or self.problems or self.skipped) or any(
            Effect.FAILED in change.effects for change in self.changes
        )


def change_of(
    before: ClusterRecord | None, after: ClusterRecord, *, worked: ClusterResult, due: Due, dry_run: bool
) -> Change | None:
    """Return what working on a cluster changed; None where it only proved that all is well."""
    effects: list[Effect] = []
    if isinstance(worked.verdict, AccessFailed):
        effects.append(Effect.FAILED)
    if before is None:
        effects.append(Effect.PUBLISHED)
    elif before != after:
        effects.append(Effect.UPDATED)
    rotates = worked.credential is not None or (dry_run and any(action.kind == "Token" for action in worked.actions))
    if rotates and before is not None and before.server is not None:
        effects.append(Effect.ROTATED)
    if worked.actions and before is not None:
        effects.append(Effect.REPAIRED)
    if not effects:
        return None
    failed = worked.verdict if isinstance(worked.verdict, AccessFailed) else None
    reason, message = (failed.reason, failed.message) if failed else (due.reason, due.message)
    if worked.left:
        reason, message = Reason.TOKEN_LEFT, worked.left
    return Change(
        uid=after.uid,
        name=after.name,
        project=project_of(after),
        effects=tuple(effects),
        reason=reason,
        message=message,
        actions=worked.actions,
        duration_s=worked.duration_s,
    )


def palette_change(before: ClusterRecord | None, after: ClusterRecord) -> Change:
    """Return the change of a record that differs although nothing was done in the cluster."""
    if before is None:
        return Change(
            after.uid, after.name, project_of(after), (Effect.PUBLISHED,), after.access.reason, after.access.message
        )
    access = after.access
    if (before.access.state, before.access.reason) != (access.state, access.reason):
        # Not what Palette reports, but for example a token that has lapsed.
        return Change(after.uid, after.name, project_of(after), (Effect.UPDATED,), access.reason, access.message)
    return Change(
        after.uid, after.name, project_of(after), (Effect.UPDATED,), Reason.PALETTE_CHANGED, _difference(before, after)
    )


def joined(first: PassReport, second: PassReport) -> PassReport:
    """The report of two passes of which the second did what the first left."""
    return replace(
        second,
        pass_id=first.pass_id,
        started_at=first.started_at,
        duration_s=first.duration_s + second.duration_s,
        version_before=first.version_before,
        discovered=max(first.discovered, second.discovered),
        due=first.due - len(first.postponed) + second.due,
        changes=(*first.changes, *second.changes),
        problems=tuple(dict.fromkeys((*first.problems, *second.problems))),
        notes=tuple(dict.fromkeys((*first.notes, *second.notes))),
        palette_requests=first.palette_requests + second.palette_requests,
        kube_requests=first.kube_requests + second.kube_requests,
        error=first.error or second.error,
    )


def drop_of(record: ClusterRecord, reason: Reason, *, left: str = "") -> Change:
    """`left` says that a token of the cluster lives on; "" where none does."""
    message = "; ".join(filter(None, (_DROPPED.get(reason, ""), left)))
    return Change(record.uid, record.name, project_of(record), (Effect.DROPPED,), reason, message)


def absence_of(record: ClusterRecord, absence: Absence) -> Change:
    """The record stays for the time being although Palette does not list its cluster."""
    when = f"since {format_time(absence.since)}"
    if absence.reason is Reason.WRITES_PAUSED:
        message = f"{absence.message}; {when}"
        return Change(record.uid, record.name, project_of(record), (Effect.HELD,), absence.reason, message)
    if absence.counted_from is None:
        when += ", to be confirmed by scheduled listings"
    else:
        when += f", dropped from {format_time(absence.until)}" if absence.until else ", never dropped by itself"
    message = f"{absence.message}; {when}; --allow-prune drops it now"
    return Change(record.uid, record.name, project_of(record), (Effect.HELD,), absence.reason, message)


_DROPPED = {
    Reason.DISAPPEARED: "Palette does not list it any more",
    Reason.DELETING: "Palette is deleting it",
    Reason.DELETED: "Palette has deleted it",
    Reason.PROJECT_EXCLUDED: "its project is not selected",
    Reason.TAG_EXCLUDED: "a tag excludes it",
    Reason.TAG_NOT_INCLUDED: "no included tag",
    Reason.TENANT_SCOPE_EXCLUDED: "tenant-scoped clusters are excluded",
    Reason.VIRTUAL_EXCLUDED: "virtual clusters are excluded",
    Reason.IMPORTED_EXCLUDED: "imported clusters are excluded",
}


def project_of(record: ClusterRecord) -> str:
    return record.project.name if record.project else record.scope.value


def _difference(before: ClusterRecord, after: ClusterRecord) -> str:
    return ", ".join(one.name for one in fields(after) if getattr(before, one.name) != getattr(after, one.name))

"""Fold what came of each cluster into its record, credential and memory, and hand them to the publisher."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog

from palette_sync.core.fold import AccessFailed, fold_memory, fold_record, without_token
from palette_sync.core.reasons import Reason
from palette_sync.events import in_turns
from palette_sync.reconcile.cluster import ClusterResult, IssuingSuspended
from palette_sync.reconcile.lanes import NoAnswer
from palette_sync.reconcile.ongoing import uid_of
from palette_sync.reconcile.report import palette_change

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from palette_sync.core.due import Candidate
    from palette_sync.core.model import ClusterRecord
    from palette_sync.core.prune import Pruning
    from palette_sync.core.select import Selection
    from palette_sync.fanout import Outcome
    from palette_sync.reconcile.agenda import Agenda, Before
    from palette_sync.reconcile.cluster import DueCluster
    from palette_sync.reconcile.context import PassContext

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class PassResult:
    """The records after a pass, by uid. `kept` are those that were not listed now and that nobody worked on.

    `skipped` of the `due` clusters were not worked on. `postponed` are the uids that the next pass works on, because
    something else is wanted first. `silent` clusters have not answered yet, or hung last time and wait for a place.
    """

    records: Mapping[str, ClusterRecord]
    kept: Mapping[str, ClusterRecord]
    due: int
    skipped: int
    postponed: frozenset[str] = frozenset()
    silent: int = 0

    @property
    def access(self) -> dict[str, int]:
        """The number of clusters in each access state that occurs."""
        records = (*self.records.values(), *self.kept.values())
        return dict(sorted(Counter(record.access.state.value for record in records).items()))


class Folding:
    """Collects the records of a pass. `first_renewal`: when the first token that was issued is to be renewed.

    A token that the API server refused is not published any longer, whatever came of its replacement (invariant 3,
    docs/architecture.md).
    """

    def __init__(
        self,
        context: PassContext,
        before: Before,
        selection: Selection,
        pruning: Pruning,
        names: Mapping[str, str],
    ) -> None:
        self.worked: set[str] = set()
        self.first_renewal: datetime | None = None
        self._skipped: set[str] = set()
        self._context = context
        self._before = before
        self._unlisted = (selection.kept | pruning.absent.keys()) - pruning.drop.keys()
        self._names = names
        self._records: dict[str, ClusterRecord] = {}

    def fold(self, outcome: Outcome[DueCluster, ClusterResult]) -> None:
        """Take what came of one due cluster."""
        item = outcome.key
        candidate, uid = item.candidate, item.candidate.cluster.uid
        if outcome.skipped or isinstance(outcome.error, IssuingSuspended):
            self._skipped.add(uid)
            return
        self.worked.add(uid)
        result = outcome.value or ClusterResult(self._failure(outcome.error, item))
        ongoing = self._context.ongoing
        refused = uid in ongoing.proven_dead
        if refused:
            ongoing.proven_dead.discard(uid)
            ongoing.token_refused(self._context.now)
        if result.credential is not None:
            self.first_renewal = min(self.first_renewal or result.credential.renew_at, result.credential.renew_at)
        dead = refused and result.credential is None
        if dead and isinstance(result.verdict, AccessFailed):
            result = replace(result, verdict=without_token(result.verdict))
        verdict = result.verdict
        revoked = result.revoked or dead or not self._before.state.trusted
        record = self._record(candidate, result, alive=self._alive(candidate, result, revoked=revoked))
        self._records[uid] = record
        memory = fold_memory(
            candidate.memory,
            verdict,
            key=candidate.key,
            # By the new record: a cluster that waits for a token of a cloud from now on is not due because of that.
            desired=self._context.policy.with_cloud(candidate.desired, candidate.cluster, record),
            now=self._context.now,
            expires_at=candidate.credential.expires_at if candidate.credential and not revoked else None,
            hung=outcome.hung,
            actions=result.actions,
        )
        if self._context.publishing is not None:
            self._context.publishing.add(
                uid, record=record, credential=result.credential, revoked=revoked, memory=memory
            )
        self._context.ledger.worked(item, self._before.records.get(uid), record, result)

    async def fold_untouched(self, agenda: Agenda) -> None:
        """Fold the chosen clusters that nobody worked on: Palette may report other facts of them.

        Until the first pass over an empty store is complete, a reader keeps what it knows of a cluster that is not
        listed; so one that the next passes work on is not listed yet.
        """
        head = self._before.state.head
        complete = head is not None and head.complete
        waiting = ({uid_of(item) for item in agenda.due} | set(self._context.ongoing.lanes.busy)) - self._skipped
        async for uid, candidate in in_turns(agenda.candidates.items()):
            if uid in self._records or (not complete and candidate.record is None and uid in waiting):
                continue
            record = self._record(candidate, None, alive=self._alive(candidate, None))
            if uid in agenda.state_changed and candidate.record is not None:
                # Nobody looked at the cluster, so its new state must be new to the next pass as well.
                was = candidate.record.palette
                record = replace(record, palette=replace(record.palette, state=was.state, health=was.health))
            self._records[uid] = record
            published = self._before.state.records.get(uid)
            if record == published:
                continue
            if self._context.publishing is not None:
                self._context.publishing.add(uid, record=record)
            self._context.ledger.changed(palette_change(published, record))

    def result(self, agenda: Agenda) -> PassResult:
        kept = {uid: self._before.records[uid] for uid in self._unlisted if uid not in self._records}
        busy, stopping = self._context.ongoing.lanes.busy, self._context.ports.stopping
        due = {uid_of(item): item for item in agenda.due}
        rest = due.keys() - self.worked - self._skipped
        skipped, postponed = len(self._skipped), frozenset[str]()
        if stopping is not None and stopping.is_set():
            skipped += len(rest)
        else:
            postponed = frozenset(uid for uid in rest if uid not in busy and not due[uid].candidate.memory.hung)
        return PassResult(
            records=self._records,
            kept=kept,
            due=len(due.keys() | self.worked),
            skipped=skipped,
            postponed=postponed,
            silent=len(rest) - len(postponed),
        )

    def _record(self, candidate: Candidate, result: ClusterResult | None, *, alive: bool) -> ClusterRecord:
        previous, uid = candidate.record, candidate.cluster.uid
        record = fold_record(
            candidate.cluster,
            key=candidate.key,
            name=self._names[uid],
            previous=previous,
            verdict=result.verdict if result else None,
            credential_alive=alive,
            presentation=self._context.policy.presentation,
            now=self._context.now,
        )
        if uid in self._unlisted and previous is not None:
            # It was not listed now: what Palette reports of it stays as it was published.
            return replace(record, title=previous.title, dashboard_url=previous.dashboard_url)
        return record

    def _alive(self, candidate: Candidate, result: ClusterResult | None, *, revoked: bool = False) -> bool:
        """Whether the credential that will stand beside the record lives."""
        if result is not None and result.credential is not None:
            return True
        return not revoked and candidate.credential is not None and candidate.credential.alive(self._context.now)

    def _failure(self, error: Exception | None, item: DueCluster) -> AccessFailed:
        if isinstance(error, NoAnswer):
            return AccessFailed(Reason.UNREACHABLE, f"{error}; many clusters do not answer")
        if isinstance(error, TimeoutError):
            seconds = self._context.policy.cluster_timeout.total_seconds()
            return AccessFailed(Reason.UNREACHABLE, f"no answer within {seconds:g} s")
        log.error("unexpected_error", cluster=str(item), error=type(error).__name__, exc_info=error)
        return AccessFailed(Reason.INTERNAL_ERROR, f"{type(error).__name__}; the log has the traceback")

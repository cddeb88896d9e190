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
from palette_sync.reconcile.report import palette_change

if TYPE_CHECKING:
    from collections.abc import Mapping

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

    `skipped` of the `due` clusters were not worked on.
    """

    records: Mapping[str, ClusterRecord]
    kept: Mapping[str, ClusterRecord]
    due: int
    skipped: int

    @property
    def access(self) -> dict[str, int]:
        """The number of clusters in each access state that occurs."""
        records = (*self.records.values(), *self.kept.values())
        return dict(sorted(Counter(record.access.state.value for record in records).items()))


class Folding:
    """Collects the records of a pass. `skipped` counts due clusters that were not worked on.

    `proven_dead` are the clusters whose API server refused the published token in this pass. Such a token is not
    published any longer, whatever came of its replacement (invariant 3, docs/architecture.md).
    """

    def __init__(
        self,
        context: PassContext,
        before: Before,
        selection: Selection,
        pruning: Pruning,
        names: Mapping[str, str],
    ) -> None:
        self.skipped = 0
        self.proven_dead: set[str] = set()
        self._context = context
        self._before = before
        self._unlisted = (selection.kept | pruning.absent.keys()) - pruning.drop.keys()
        self._names = names
        self._records: dict[str, ClusterRecord] = {}

    def fold(self, outcome: Outcome[DueCluster, ClusterResult]) -> None:
        """Take what came of one due cluster."""
        item = outcome.key
        if outcome.skipped or isinstance(outcome.error, IssuingSuspended):
            self.skipped += 1
            return
        candidate, uid = item.candidate, item.candidate.cluster.uid
        result = outcome.value or ClusterResult(self._failure(outcome.error, item))
        dead = uid in self.proven_dead and result.credential is None
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
        )
        if self._context.publishing is not None:
            self._context.publishing.add(
                uid, record=record, credential=result.credential, revoked=revoked, memory=memory
            )
        self._context.ledger.worked(item, self._before.records.get(uid), record, result)

    async def fold_untouched(self, agenda: Agenda) -> None:
        """Fold the chosen clusters that nobody worked on: Palette may report other facts of them."""
        async for uid, candidate in in_turns(agenda.candidates.items()):
            if uid in self._records:
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

    def result(self, *, due: int) -> PassResult:
        kept = {uid: self._before.records[uid] for uid in self._unlisted if uid not in self._records}
        return PassResult(self._records, kept, due, self.skipped)

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
        if isinstance(error, TimeoutError):
            seconds = self._context.policy.cluster_timeout.total_seconds()
            return AccessFailed(Reason.UNREACHABLE, f"no answer within {seconds:g} s")
        log.error("unexpected_error", cluster=str(item), error=type(error).__name__, exc_info=error)
        return AccessFailed(Reason.INTERNAL_ERROR, f"{type(error).__name__}; the log has the traceback")

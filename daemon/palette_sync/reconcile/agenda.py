"""What a pass knows before it does anything: what is published, and which clusters are due."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog

from palette_sync.core.candidates import Candidates
from palette_sync.core.due import RENEW_AHEAD, paused
from palette_sync.core.reasons import Reason
from palette_sync.core.urgency import order
from palette_sync.events import in_turns
from palette_sync.reconcile.cluster import DueCluster

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from palette_sync.core.due import Candidate, Due
    from palette_sync.core.model import ClusterRecord, Discovery, InstanceState
    from palette_sync.core.prune import Pruning
    from palette_sync.core.select import Selection
    from palette_sync.reconcile.context import PassContext

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Before:
    """What was published before the pass.

    `records` have neither server nor auth where the snapshot is not trusted; `state` is as it was read. `candidates`
    decides what is due among them.
    """

    state: InstanceState
    records: Mapping[str, ClusterRecord]
    candidates: Candidates


@dataclass(frozen=True, slots=True)
class Agenda:
    """What a pass is going to do. `candidates` are the chosen clusters, by uid; `due` is worked on, the most urgent
    first.

    `state_changed` are the uids that are due because Palette reports another state, or may be once the work on them
    that an earlier pass began has ended.
    """

    candidates: Mapping[str, Candidate]
    due: tuple[DueCluster, ...]
    state_changed: frozenset[str]


async def load(context: PassContext) -> Before:
    """Read what is published. Raises StoreError."""
    publisher = context.ports.publisher
    state = publisher.state if publisher is not None else await context.ports.store.load(context.instance)
    records = dict(state.records)
    if not state.trusted:
        # Neither an address nor a credential of such a snapshot may be used. Names and prune counts may.
        # A pause is not authentic either, but the tag in Palette is.
        log.error("snapshot_refused", instance=context.instance, problems=state.problems[:5])
        records = {uid: replace(one, server=None, auth=None, pause=None) for uid, one in records.items()}
    known = replace(state, records=records)
    candidates = Candidates(
        context.policy, known, context.rows, now=context.now, suspect_since=context.ongoing.suspect_since
    )
    return Before(state, records, candidates)


async def find_due(
    context: PassContext, before: Before, discovery: Discovery, selection: Selection, pruning: Pruning
) -> Agenda:
    """Find the clusters on which something is due, each with its opened token.

    A cluster whose drop waits is worked on like one that is listed: it may well be there. One on which an earlier pass
    began, and which is still at work, is left alone.
    """
    options, candidates = context.options, before.candidates
    chosen = [candidates.listed(cluster) async for cluster in in_turns(selection.chosen.values())]
    chosen += [candidates.published(uid) for uid in sorted(pruning.absent.keys() - selection.kept)]
    kept = [candidates.published(uid) for uid in sorted(selection.kept - pruning.drop.keys())]
    if options.known_only:
        chosen, kept = [*chosen, *kept], []
    busy = await _busy(context, chosen)
    found = candidates.issuers_due(chosen)

    def due_now(candidate: Candidate) -> Due | None:
        uid = candidate.cluster.uid
        return candidates.due(
            candidate,
            resync=options.resync or uid in options.verify or uid in options.asked,
            rotate=uid in options.rotate,
            revoke=uid in options.revoke,
            ahead=RENEW_AHEAD,
        )

    async for candidate in in_turns(chosen):
        if one := due_now(candidate):
            found[candidate.cluster.uid] = one
    if discovery.tenant_uid:  # Palette accepts the API key, so an admin kubeconfig can be fetched
        for candidate in kept:
            one = due_now(candidate)
            if one is not None and (one.urgent or candidate.cluster.uid in options.asked):
                found[candidate.cluster.uid] = one
    due = [one for one in (*chosen, *kept) if one.cluster.uid in found and one.cluster.uid not in busy]
    due.sort(key=lambda one: (one.cluster.uid not in options.asked, order(one, found[one.cluster.uid], context.now)))
    return Agenda(
        candidates={candidate.cluster.uid: candidate for candidate in chosen},
        due=tuple(_opened(context, candidate, found[candidate.cluster.uid]) for candidate in due),
        state_changed=busy | {uid for uid, one in found.items() if one.reason is Reason.STATE_CHANGED},
    )


async def _busy(context: PassContext, chosen: Iterable[Candidate]) -> frozenset[str]:
    """The clusters on which an earlier pass began. On those that are paused since then, the work ends here."""
    lanes = context.ongoing.lanes
    if lanes.busy:
        at_work = frozenset(lanes.busy)
        uids = ((one.cluster.uid, one) for one in chosen)
        await lanes.end([uid for uid, one in uids if uid in at_work and paused(one, context.now)])
    return frozenset(lanes.busy)


def _opened(context: PassContext, candidate: Candidate, due: Due) -> DueCluster:
    token = None
    record = candidate.record
    if candidate.credential is not None and record is not None and record.server is not None:
        token = context.ports.open_token(record, candidate.credential)
    return DueCluster(candidate, due, token)

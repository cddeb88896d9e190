"""The end of a pass: what is written besides clusters, and the report."""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING

from palette_sync.core.documents import format_time
from palette_sync.core.model import OidcAuth
from palette_sync.core.prune import absences_to_dict, empty_is_confirmed
from palette_sync.core.scopes import scopes_after, whole
from palette_sync.core.select import unmatched
from palette_sync.core.text import one_line
from palette_sync.reconcile.publish import FinalWrite
from palette_sync.reconcile.report import PassReport

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from palette_sync.core.model import Auth, Discovery, IssuerMetadata
    from palette_sync.core.prune import Pruning
    from palette_sync.core.select import Selection
    from palette_sync.reconcile.agenda import Before
    from palette_sync.reconcile.context import PassContext
    from palette_sync.reconcile.fold import PassResult
    from palette_sync.reconcile.issuers import Issuers

MOST_PROBLEMS, LONGEST_PROBLEM = 1000, 2048  # in the status document


def final_write(
    context: PassContext,
    before: Before,
    discovery: Discovery,
    selection: Selection,
    pruning: Pruning,
    result: PassResult,
    issuers: Issuers,
) -> FinalWrite:
    """Return what the end of a pass writes besides clusters."""
    lists, state = context.options.lists, before.state
    living = result.records.keys() | (before.records.keys() - pruning.drop.keys())
    listed = whole(discovery) if lists else context.ongoing.whole
    all_published = not context.unpublished(selection.chosen, living)
    first_whole = listed and all_published and not result.skipped and not (state.head and state.head.complete)
    empty_since = _empty_since(context, before, discovery, living)
    if empty_since is not None:
        allow = context.options.allow_prune
        first_whole &= lists and empty_is_confirmed(empty_since, context.now, context.policy.guard, allow=allow)
    auths = [record.auth for uid in living if (record := result.records.get(uid, before.records.get(uid)))]
    return FinalWrite(
        drop=pruning.drop.keys(),
        complete=True if first_whole else False if empty_since is not None else None,
        memory=dict.fromkeys(state.memory.keys() - living),
        scopes=scopes_after(state.scopes, discovery, context.now) if lists else {},
        issuers={**(_unused(state.issuers, auths) if lists else {}), **issuers.changed},
        status={
            **_status(context, before, discovery, selection, pruning, result),
            **({"empty_since": format_time(empty_since)} if empty_since is not None and not first_whole else {}),
        },
    )


def _empty_since(context: PassContext, before: Before, discovery: Discovery, living: set[str]) -> datetime | None:
    """Since when Palette has listed no cluster for a store that holds none either; None where that is not so."""
    head = before.state.head
    if living or before.records or (head is not None and head.complete):
        return None
    known = before.state.status.get("empty_since")
    since = datetime.fromisoformat(known) if isinstance(known, str) else None
    if not context.options.lists or not whole(discovery):
        return since
    return None if any(listing.clusters for listing in discovery.listings) else since or context.now


def _unused(known: Mapping[str, IssuerMetadata], auths: Iterable[Auth | None]) -> dict[str, None]:
    """Metadata to remove, because no cluster's access refers to that issuer any more."""
    return dict.fromkeys(known.keys() - {auth.issuer_url for auth in auths if isinstance(auth, OidcAuth)})


def _status(
    context: PassContext,
    before: Before,
    discovery: Discovery,
    selection: Selection,
    pruning: Pruning,
    result: PassResult,
) -> dict[str, object]:
    """The status document, for people. A pass without a listing leaves what the last listing wrote."""
    report = report_of(context, before, discovery, selection, pruning, result)
    this_pass = {
        "id": context.pass_id,
        "started_at": format_time(context.now),
        "duration_s": round(report.duration_s, 3),
        "due": report.due,
        "error": report.error or "",
        "problems": [one_line(problem, LONGEST_PROBLEM) for problem in report.problems[:MOST_PROBLEMS]],
    }
    return {
        "pass": this_pass if context.options.lists else before.state.status.get("pass", this_pass),
        "access": dict(report.access),
        "held": absences_to_dict(pruning.absent),
        **context.ports.facts(),
    }


def report_of(
    context: PassContext,
    before: Before,
    discovery: Discovery,
    selection: Selection,
    pruning: Pruning,
    result: PassResult,
) -> PassReport:
    """Return the report of a pass as far as it has come."""
    head, publisher = before.state.head, context.ports.publisher
    version_before = head.version if head else 0
    return PassReport(
        instance=context.instance,
        pass_id=context.pass_id,
        started_at=context.now,
        duration_s=time.monotonic() - context.started,
        version_before=version_before,
        version=publisher.version if publisher is not None else version_before,
        discovered=sum(len(listing.clusters) for listing in discovery.listings),
        clusters=len(result.records) + len(result.kept),
        due=result.due,
        access=result.access,
        changes=context.ledger.changes,
        problems=problems_of(discovery),
        notes=_notes(context, before, discovery, selection, result),
        held=len(pruning.held),
        skipped=result.skipped,
        postponed=tuple(sorted(result.postponed)),
        silent=result.silent,
        palette_requests=context.ports.client.requests,
        kube_requests=context.requests.total,
        error=discovery.error,
    )


def problems_of(discovery: Discovery) -> tuple[str, ...]:
    """What could not be listed completely, one line for each scope."""
    listings = [f"{one.name}: {one.problem}" for one in discovery.listings if one.problem]
    return (f"projects: {discovery.short}", *listings) if discovery.short else tuple(listings)


def _notes(
    context: PassContext, before: Before, discovery: Discovery, selection: Selection, result: PassResult
) -> tuple[str, ...]:
    notes = unmatched(context.policy.filters, discovery)
    notes += [
        "the API key may not list tenant-scoped clusters (NotPermitted)"
        for listing in discovery.listings
        if listing.not_permitted
    ]
    if selection.unresolved:
        notes.append(f"{len(selection.unresolved)} clusters left alone: their project is unknown")
    if result.silent:
        notes.append(f"{result.silent} clusters have not answered; palette-sync goes on asking them")
    if result.skipped:
        notes.append(f"{result.skipped} clusters were due and not worked on; the next pass takes them")
    if not before.state.trusted:
        notes.append("the snapshot in Redis was refused (digest or mac does not fit); everything was read anew")
    return tuple(notes)

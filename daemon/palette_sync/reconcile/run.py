"""One pass over one instance, readable as a paragraph: discover, select, name, find what is due, work on it, publish.

Each step takes what the steps before it returned. Stale data beats partial data: whatever fails keeps the records that
it would have refreshed (invariant 1, docs/architecture.md). Only the end of a pass prunes (invariant 2).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from palette_sync import palette
from palette_sync.core.model import Discovery
from palette_sync.core.prune import absences_of, prune
from palette_sync.core.reasons import Reason
from palette_sync.core.scopes import access_reduced, whole
from palette_sync.core.select import select
from palette_sync.events import unless
from palette_sync.reconcile.agenda import find_due, load
from palette_sync.reconcile.context import PassContext
from palette_sync.reconcile.finish import final_write, report_of
from palette_sync.reconcile.fold import Folding
from palette_sync.reconcile.issuers import Issuers
from palette_sync.reconcile.leave import leave
from palette_sync.reconcile.ports import PassOptions
from palette_sync.reconcile.report import drop_of
from palette_sync.reconcile.work import work_on
from palette_sync.store.redis import StoreError
from palette_sync.tracing import span

if TYPE_CHECKING:
    from palette_sync.core.prune import Pruning
    from palette_sync.core.select import Selection
    from palette_sync.reconcile.agenda import Before
    from palette_sync.reconcile.ports import Ports, Rows
    from palette_sync.reconcile.report import PassReport


async def run_pass(
    ports: Ports, *, pass_id: str, options: PassOptions | None = None, rows: Rows | None = None
) -> tuple[PassReport, Rows]:
    """Run one pass and report on it. `rows`, in and out, are the clusters as Palette listed them last.

    Raises StoreError when the store cannot be read or written, and Interrupted when the process stops before any
    cluster was worked on.
    """
    context = PassContext.begin(ports, pass_id, options or PassOptions(), rows or {})
    with span("pass", instance=context.instance, pass_id=pass_id, lists=context.options.lists) as traced:
        report, after = await _run(context)
        traced.set(clusters=report.clusters, due=report.due, version=report.version)
        if report.error:
            traced.failed(Reason.LISTING_FAILED)
    return report, after


async def _run(context: PassContext) -> tuple[PassReport, Rows]:
    ports, before = context.ports, await load(context)
    with span("list", instance=context.instance):
        discovery = await discover(context)
    if context.ports.publisher is not None and not context.options.known_only:
        context.ports.publisher.listing_tried([one.uid for part in discovery.listings for one in part.clusters])
    selection = select(discovery, before.records, context.policy.filters)
    if context.options.known_only:
        selection = with_unpublished(context, before, selection)
    pruning = prune(
        selection,
        before.records,
        absences_of(before.state.status),
        now=context.now,
        guard=context.policy.guard,
        scheduled=context.options.scheduled,
        access_reduced=access_reduced(before.state.scopes, discovery),
        allow=context.options.allow_prune,
    )
    names = await assign_names(context, before, selection, pruning)
    agenda = await find_due(context, before, discovery, selection, pruning)
    folding = Folding(context, before, selection, pruning, names)
    issuers = Issuers(before.state.issuers, now=context.now, policy=context.policy.oidc, network=ports.network)
    try:
        await work_on(context, before, agenda, issuers, folding)
        await folding.fold_untouched(agenda)
        left = {one.uid: one.message for one in await leave(context, before, pruning.drop, issuers)}
        for uid, reason in pruning.drop.items():
            context.ledger.changed(drop_of(before.records[uid], reason, left=left.get(uid, "")))
            context.ledger.left(before.records[uid], left.get(uid, ""))
        if context.options.lists:
            context.ledger.absent(before.records, pruning)
        result = folding.result(agenda)
        if context.publishing is not None:
            await context.publishing.finish(
                final_write(context, before, discovery, selection, pruning, result, issuers)
            )
            if pruning.drop:
                dropped = {uid: before.records[uid].name for uid in pruning.drop}
                await ports.store.claims.release(ports.store.sealer, context.instance, dropped)
    except StoreError:
        context.keep_unpublished()
        raise
    return report_of(context, before, discovery, selection, pruning, result), rows_after(context, selection, pruning)


async def discover(context: PassContext) -> Discovery:
    """List Palette. An error of Palette is a discovery without projects. Raises Interrupted."""
    if context.options.peeked is not None:
        return context.options.peeked
    if context.options.known_only:
        return Discovery("", "", projects=None, listings=())
    context.ports.progress("listing Palette", 0, 0)
    filters = context.policy.filters
    listing = palette.discover(
        context.ports.client,
        choose=filters.chooses_project,
        tenant_scope=not filters.exclude_tenant_scoped_clusters,
        include_virtual=filters.include_virtual,
        tenant=context.policy.tenant,
    )
    try:
        # A listing may be cancelled at any time: it changes nothing.
        found = await unless(context.ports.stopping, listing, name=f"listing:{context.instance}")
    except palette.Unauthorized as error:
        return Discovery("", "", projects=None, listings=(), error=f"Palette refuses the API key: {error}")
    except palette.PaletteError as error:
        return Discovery("", "", projects=None, listings=(), error=str(error))
    if found.projects is not None:
        context.ports.seen(found)
    context.ongoing.whole = whole(found)
    return found


def with_unpublished(context: PassContext, before: Before, selection: Selection) -> Selection:
    """Choose also the listed clusters that are not published yet: the pass that listed them left them for later."""
    return replace(selection, chosen={uid: row for uid, row in context.rows.items() if uid not in before.records})


async def assign_names(context: PassContext, before: Before, selection: Selection, pruning: Pruning) -> dict[str, str]:
    """Return the name of every cluster that this pass may publish, by uid."""
    names = await context.ports.names.assign(
        context.ports.store,
        instance=context.instance,
        prefix=context.policy.name_prefix,
        clusters=selection.chosen.values(),
        published={uid: record.name for uid, record in before.records.items()},
        write=not context.dry_run,
    )
    return {**names, **{uid: before.records[uid].name for uid in selection.kept | pruning.absent.keys()}}


def rows_after(context: PassContext, selection: Selection, pruning: Pruning) -> Rows:
    """Return the clusters as Palette listed them last, for the next pass."""
    if not context.options.lists:
        staying = {uid: row for uid, row in context.rows.items() if uid not in pruning.drop}
        return {**staying, **selection.chosen}
    kept = {uid: row for uid, row in context.rows.items() if uid in selection.kept or uid in pruning.absent}
    return {**kept, **selection.chosen}

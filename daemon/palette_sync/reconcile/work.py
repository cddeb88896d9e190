"""Work on the due clusters concurrently, and publish what comes of them while the others are still at work."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from palette_sync import kube
from palette_sync.core.ways import Way
from palette_sync.events import wait_any
from palette_sync.reconcile.cluster import ClusterWorker
from palette_sync.reconcile.ongoing import uid_of
from palette_sync.store.redis import LeaseLost

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from contextlib import AbstractAsyncContextManager

    from palette_sync.core.policy import InstancePolicy
    from palette_sync.fanout import Outcome
    from palette_sync.reconcile.agenda import Agenda, Before
    from palette_sync.reconcile.cluster import ClusterResult, DueCluster
    from palette_sync.reconcile.context import PassContext
    from palette_sync.reconcile.fold import Folding
    from palette_sync.reconcile.issuers import Issuers

# Seconds that Palette's calls and a token of a cloud may take for one cluster, waiting for Palette's limits included.
UNIT_TIMEOUT = 150.0
SHORTEST_ROUND = 5.0  # seconds of work before a pass ends early for a renewal


async def work_on(context: PassContext, before: Before, agenda: Agenda, issuers: Issuers, folding: Folding) -> None:
    """Work on the clusters that are due; fold and publish each as it is done. Raises StoreError.

    Also folds what came of clusters on which an earlier pass began. A daemon's pass does not wait for clusters that
    hang, and ends early once something else is wanted; a later pass continues. Raises LeaseLost as soon as a cluster
    was not written to because the lease ends.
    """
    lanes, ports, due = context.ongoing.lanes, context.ports, agenda.due
    done, fenced = 0, asyncio.Event()

    def on_done(outcome: Outcome[DueCluster, ClusterResult]) -> None:
        nonlocal done
        if isinstance(outcome.error, kube.WritesFenced):
            fenced.set()
            return
        done += 1
        ports.progress("working on clusters", done, len(due))
        folding.fold(outcome)

    fold_earlier(context, before, agenda, folding)
    if not due and not folding.worked:
        return
    worker = worker_of(context, issuers, context.ongoing.proven_dead, await context.owned_policy(), slots=lanes)
    ports.progress("working on clusters", 0, len(due))
    async with _first_error(), asyncio.TaskGroup() as group:
        if context.publishing is not None:
            group.create_task(context.publishing.run(), name=f"publish:{context.instance}")
        work = lanes.run(
            due,
            worker,
            slow=lambda item: item.candidate.memory.hung,
            timeout=UNIT_TIMEOUT + len(Way) * context.policy.cluster_timeout.total_seconds(),
            stopping=ports.stopping,
            yields=_yields(context, folding),
            done=on_done,
            finished=lambda: fold_earlier(context, before, agenda, folding),
            label=f"cluster:{context.instance}",
        )
        try:
            await _until_late(work, context, group, fenced)
        finally:
            if context.publishing is not None:
                context.publishing.close()
    fold_earlier(context, before, agenda, folding)


def fold_earlier(context: PassContext, before: Before, agenda: Agenda, folding: Folding) -> None:
    """Fold what came of clusters that no pass waited for, as they are known now."""
    for outcome in context.ongoing.lanes.take_outcomes():
        if isinstance(outcome.error, kube.WritesFenced):
            continue  # nothing follows about the cluster: it stays due
        item, uid = outcome.key, uid_of(outcome.key)
        candidate = agenda.candidates.get(uid)
        if candidate is None and uid in before.records:
            candidate = before.candidates.published(uid)
        if candidate is None or _issued(candidate.credential) != _issued(item.candidate.credential):
            continue  # it is not served any more, or another process worked on it
        folding.fold(replace(outcome, key=replace(item, candidate=candidate)))


def _issued(credential: Any) -> Any:
    return credential and credential.issued_at


def _yields(context: PassContext, folding: Folding) -> Callable[[], bool]:
    """Whether the pass begins no more clusters, because something else is wanted, or a token that it issued itself is
    to be renewed.
    """
    wanted, loop = context.ongoing.wanted, asyncio.get_running_loop()
    if wanted is None:
        return lambda: False
    begun = loop.time()

    def yields() -> bool:
        worked, patience = loop.time() - begun, wanted()
        if patience is not None and worked >= patience:
            return True
        renewal = folding.first_renewal
        return worked >= SHORTEST_ROUND and renewal is not None and renewal <= context.ports.clock()

    return yields


def worker_of(
    context: PassContext,
    issuers: Issuers,
    proven_dead: set[str],
    policy: InstancePolicy,
    *,
    slots: AbstractAsyncContextManager[None],
    dry_run: bool | None = None,
) -> ClusterWorker:
    """`dry_run` None: as the pass."""
    return ClusterWorker(
        policy=policy,
        client=context.ports.client,
        cloud=context.ports.cloud,
        issuers=issuers,
        slots=slots,
        may_issue=context.may_issue,
        now=context.now,
        requests=context.requests,
        proven_dead=proven_dead,
        dry_run=context.dry_run if dry_run is None else dry_run,
    )


async def _until_late(
    work: Coroutine[Any, Any, object], context: PassContext, group: asyncio.TaskGroup, fenced: asyncio.Event
) -> None:
    """Wait for `work`, and cancel the rest of it once the drain is late. What is done was folded already.

    Raises LeaseLost if another process may work on the clusters now.
    """
    lost = [fenced, *([context.ports.lease_lost] if context.ports.lease_lost is not None else [])]
    ends = [*lost, *([context.ports.late] if context.ports.late is not None else [])]
    working = group.create_task(work, name=f"work:{context.instance}")
    ending = group.create_task(wait_any(*ends), name=f"late:{context.instance}")
    await asyncio.wait({working, ending}, return_when=asyncio.FIRST_COMPLETED)
    ending.cancel()
    if not working.done():
        working.cancel()
        await asyncio.wait({working})
    if any(one.is_set() for one in lost):
        raise LeaseLost(
            f"the lease of {context.instance} ended during the pass; the process that leads now does the rest"
        )


@asynccontextmanager
async def _first_error() -> AsyncIterator[None]:
    """Raise the first error of a TaskGroup unwrapped."""
    try:
        yield
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None

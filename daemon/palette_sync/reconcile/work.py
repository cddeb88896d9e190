"""Work on all due clusters concurrently, and publish what comes of them while the others are still at work."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from palette_sync import kube
from palette_sync.core.ways import Way
from palette_sync.events import wait_any
from palette_sync.fanout import fan_out
from palette_sync.reconcile.cluster import ClusterWorker
from palette_sync.store.redis import LeaseLost

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Sequence

    from palette_sync.core.policy import InstancePolicy
    from palette_sync.fanout import Outcome
    from palette_sync.reconcile.cluster import ClusterResult, DueCluster
    from palette_sync.reconcile.context import PassContext
    from palette_sync.reconcile.fold import Folding
    from palette_sync.reconcile.issuers import Issuers

# Seconds that Palette's calls and a token of a cloud may take for one cluster, waiting for Palette's limits included.
UNIT_TIMEOUT = 150.0


async def work_on(context: PassContext, due: Sequence[DueCluster], issuers: Issuers, folding: Folding) -> None:
    """Work on all clusters that are due; fold and publish each as it is done. Raises StoreError.

    Raises LeaseLost as soon as a cluster was not written to because the lease ends.
    """
    if not due:
        return
    ports, done, fenced = context.ports, 0, asyncio.Event()
    worker = worker_of(context, issuers, folding.proven_dead, await context.owned_policy())

    def on_done(outcome: Outcome[DueCluster, ClusterResult]) -> None:
        nonlocal done
        if isinstance(outcome.error, kube.WritesFenced):
            fenced.set()
            return
        done += 1
        ports.progress("working on clusters", done, len(due))
        folding.fold(outcome)

    ports.progress("working on clusters", 0, len(due))
    async with _first_error(), asyncio.TaskGroup() as group:
        if context.publishing is not None:
            group.create_task(context.publishing.run(), name=f"publish:{context.instance}")
        work = fan_out(
            due,
            worker,
            # Twice the slots: half may wait for Palette's rate limit while the others work.
            limit=asyncio.Semaphore(2 * ports.concurrency),
            timeout=UNIT_TIMEOUT + len(Way) * context.policy.cluster_timeout.total_seconds(),
            stopping=ports.stopping,
            done=on_done,
            name=f"cluster:{context.instance}",
        )
        try:
            await _until_late(work, context, group, fenced)
            folding.skipped += len(due) - done
        finally:
            if context.publishing is not None:
                context.publishing.close()


def worker_of(context: PassContext, issuers: Issuers, proven_dead: set[str], policy: InstancePolicy) -> ClusterWorker:
    return ClusterWorker(
        policy=policy,
        client=context.ports.client,
        cloud=context.ports.cloud,
        issuers=issuers,
        slots=asyncio.Semaphore(context.ports.concurrency),
        may_issue=context.may_issue,
        now=context.now,
        requests=context.requests,
        proven_dead=proven_dead,
        dry_run=context.dry_run,
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
        raise LeaseLost(f"the lease of {context.instance} ended during the pass; what is left is done by whoever leads")


@asynccontextmanager
async def _first_error() -> AsyncIterator[None]:
    """Raise the first error of a TaskGroup unwrapped."""
    try:
        yield
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None

"""Leave the clusters of one instance for good: first their objects, then their records."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from palette_sync.core.due import paused
from palette_sync.core.fold import AccessFailed
from palette_sync.core.model import ServiceAccountAuth
from palette_sync.core.reasons import Reason
from palette_sync.fanout import fan_out
from palette_sync.reconcile.agenda import load
from palette_sync.reconcile.context import PassContext
from palette_sync.reconcile.issuers import Issuers
from palette_sync.reconcile.ports import PassOptions
from palette_sync.reconcile.work import UNIT_TIMEOUT, worker_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from palette_sync.core.actions import Action
    from palette_sync.core.model import ClusterMemory, ClusterRecord
    from palette_sync.reconcile.ports import Ports

# Reasons of clusters in which nothing was ever tried.
_UNTOUCHED = frozenset({Reason.WAITING, Reason.NOT_RUNNING, Reason.IMPORTED, Reason.PAUSED})


@dataclass(frozen=True, slots=True)
class ReleasedCluster:
    """One cluster: what was done in it, or would be; `error` says why it could not be left, and its record stays."""

    uid: str
    name: str
    actions: tuple[Action, ...] = ()
    error: str = ""


async def release_instance(ports: Ports, uids: Collection[str]) -> list[ReleasedCluster]:
    """Leave published clusters. Without a publisher this is a dry run. Raises StoreError."""
    context = PassContext.begin(ports, "release", PassOptions(known_only=True), {})
    before = await load(context)
    issuers = Issuers(before.state.issuers, now=context.now, policy=context.policy.oidc, network=ports.network)
    slots = asyncio.Semaphore(ports.concurrency)
    worker = worker_of(context, issuers, set(), await context.owned_policy(), slots=slots)

    async def one(uid: str) -> tuple[Action, ...] | AccessFailed:
        if (pause := paused(before.candidates.published(uid), context.now)) is not None:
            return AccessFailed(Reason.WRITES_PAUSED, f"{pause.text}; resume it first")
        if _is_untouched(before.records[uid], before.state.memory.get(uid)):
            return ()
        return await worker.release(before.candidates.published(uid))

    outcomes = await fan_out(
        sorted(uids),
        one,
        limit=asyncio.Semaphore(2 * ports.concurrency),  # half may wait for Palette while the others work
        timeout=UNIT_TIMEOUT + context.policy.cluster_timeout.total_seconds(),
        stopping=ports.stopping,
        name=f"release:{context.instance}",
    )
    results = []
    for outcome in outcomes:
        name = before.records[outcome.key].name
        if isinstance(outcome.value, tuple):
            results.append(ReleasedCluster(outcome.key, name, outcome.value))
            continue
        failed = outcome.value
        error = failed.message if isinstance(failed, AccessFailed) else str(outcome.error or "was not begun")
        results.append(ReleasedCluster(outcome.key, name, error=error))
    left = [one.uid for one in results if not one.error]
    if ports.publisher is not None and left:
        await ports.publisher.publish(now=context.now, drop=left, memory=dict.fromkeys(left))
    return results


def _is_untouched(record: ClusterRecord, memory: ClusterMemory | None) -> bool:
    """Whether nothing was ever written to a cluster, so that nobody has to look."""
    had_access = isinstance(record.auth, ServiceAccountAuth) or (memory is not None and memory.generation is not None)
    return not had_access and record.access.reason in _UNTOUCHED

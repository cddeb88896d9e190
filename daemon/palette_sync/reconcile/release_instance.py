"""Leave the clusters of one instance for good: first their objects, then their records."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from palette_sync import kube
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
    from palette_sync.fanout import Outcome
    from palette_sync.reconcile.ports import Ports, Rows

# Reasons of clusters in which nothing was ever tried.
_UNTOUCHED = frozenset({Reason.WAITING, Reason.NOT_RUNNING, Reason.IMPORTED, Reason.PAUSED})


@dataclass(frozen=True, slots=True)
class ReleasedCluster:
    """One cluster: what was done in it, or would be. `error` says why it could not be left; then its record stays.

    `name` is the published one, or Palette's if the cluster is not published.
    """

    uid: str
    name: str
    published: bool = True
    actions: tuple[Action, ...] = ()
    error: str = ""


async def release_instance(
    ports: Ports, uids: Collection[str], rows: Rows | None = None, *, yes: bool, keep_adopted: bool = False
) -> list[ReleasedCluster]:
    """Leave clusters, and drop the records of those that are published. Without `yes` this is a dry run.

    `rows` are clusters among them that Palette lists and that may not be published. Raises StoreError.
    """
    context = PassContext.begin(ports, "release", PassOptions(known_only=True), rows or {})
    before = await load(context)
    issuers = Issuers(before.state.issuers, now=context.now, policy=context.policy.oidc, network=ports.network)
    slots = asyncio.Semaphore(ports.concurrency)
    worker = worker_of(context, issuers, set(), await context.owned_policy(), slots=slots, dry_run=not yes)
    records = before.records

    async def one(uid: str) -> tuple[Action, ...] | AccessFailed:
        if (pause := paused(before.candidates.published(uid), context.now)) is not None:
            return AccessFailed(Reason.WRITES_PAUSED, f"{pause.text}; resume it first")
        if uid in records and _is_untouched(records[uid], before.state.memory.get(uid)):
            return ()
        return await worker.release(before.candidates.published(uid), keep_adopted=keep_adopted)

    finished = 0

    def on_done(_outcome: Outcome[str, tuple[Action, ...] | AccessFailed]) -> None:
        nonlocal finished
        finished += 1
        ports.progress("leaving clusters", finished, len(uids))

    outcomes = await fan_out(
        sorted(uids),
        one,
        limit=asyncio.Semaphore(2 * ports.concurrency),  # half may wait for Palette while the others work
        timeout=UNIT_TIMEOUT + context.policy.cluster_timeout.total_seconds(),
        stopping=ports.stopping,
        done=on_done,
        name=f"release:{context.instance}",
    )
    results = []
    for outcome in outcomes:
        uid = outcome.key
        name = records[uid].name if uid in records else context.rows[uid].name
        released = ReleasedCluster(uid, name, published=uid in records)
        if isinstance(outcome.value, tuple):
            results.append(replace(released, actions=outcome.value))
            continue
        results.append(replace(released, error=_why_not(outcome)))
    left = [one.uid for one in results if one.published and not one.error]
    if ports.publisher is not None and left:
        await ports.publisher.publish(now=context.now, drop=left, memory=dict.fromkeys(left))
    return results


def _is_untouched(record: ClusterRecord, memory: ClusterMemory | None) -> bool:
    """Whether nothing was ever written to a cluster, so that nobody has to look."""
    had_access = isinstance(record.auth, ServiceAccountAuth) or (memory is not None and memory.generation is not None)
    return not had_access and record.access.reason in _UNTOUCHED


def _why_not(outcome: Outcome[str, tuple[Action, ...] | AccessFailed]) -> str:
    """Why a cluster could not be left, for people; never empty."""
    failed, error = outcome.value, outcome.error
    if isinstance(failed, AccessFailed):
        return failed.message or failed.reason
    if isinstance(error, kube.WritesFenced):
        return "the lease ended before it was left; run the command again"
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    return "was not begun" if error is None else str(error) or type(error).__name__

"""Leaving clusters: the tokens of those that the configuration deselects are revoked before their records are dropped.
With `release_deselected` all objects of ours go.

A cluster that Palette deletes takes its tokens with it. One that merely vanished from Palette cannot be reached through
Palette any more, so all that can be done is to say that its token lives on, and until when.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from palette_sync import kube
from palette_sync.core.model import ServiceAccountAuth
from palette_sync.core.reasons import Reason
from palette_sync.fanout import fan_out
from palette_sync.reconcile.explain import objects_stay, token_lives
from palette_sync.reconcile.work import worker_of
from palette_sync.store.redis import LeaseLost

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from palette_sync.core.due import Candidate
    from palette_sync.fanout import Outcome
    from palette_sync.reconcile.agenda import Before
    from palette_sync.reconcile.context import PassContext
    from palette_sync.reconcile.issuers import Issuers

GONE = frozenset({Reason.DELETING, Reason.DELETED})
LONGEST = 60.0  # seconds for all clusters together: their records stay published meanwhile


@dataclass(frozen=True, slots=True)
class Left:
    """A cluster whose token lives on, and how long, for people."""

    uid: str
    message: str


async def leave(context: PassContext, before: Before, drop: Mapping[str, Reason], issuers: Issuers) -> list[Left]:
    """Revoke the tokens of deselected clusters, or release them; return whose token lives on. Raises StoreError."""
    uids = [uid for uid in sorted(drop) if drop[uid] not in GONE and _holds_ours(context, before, uid)]
    leaving = {uid: before.candidates.published(uid) for uid in uids}
    if not leaving or context.dry_run:
        return []
    policy = context.policy
    left = [
        Left(uid, token_lives(candidate, policy, "Palette does not list the cluster any more"))
        for uid, candidate in leaving.items()
        if drop[uid] is Reason.DISAPPEARED
    ]
    reachable = [uid for uid in leaving if drop[uid] is not Reason.DISAPPEARED]
    if reachable:
        slots = asyncio.Semaphore(context.ports.concurrency)
        worker = worker_of(context, issuers, set(), await context.owned_policy(), slots=slots)
        said = await _leave_all(context, {uid: leaving[uid] for uid in reachable}, worker.leave)
        late = "the cluster did not answer in time"
        unanswered = objects_stay if policy.release_deselected else token_lives
        messages = {uid: said.get(uid, unanswered(leaving[uid], policy, late)) for uid in reachable}
        left += [Left(uid, message) for uid, message in messages.items() if message]
    return left


async def _leave_all(
    context: PassContext,
    leaving: Mapping[str, Candidate],
    leave_one: Callable[[Candidate], Awaitable[str]],
) -> dict[str, str]:
    """Return what was said of each cluster for which there was time. Raises LeaseLost."""
    said: dict[str, str] = {}
    fenced = False

    def on_done(outcome: Outcome[str, str]) -> None:
        nonlocal fenced
        fenced |= isinstance(outcome.error, kube.WritesFenced)
        if outcome.value is not None:
            said[outcome.key] = outcome.value

    with suppress(TimeoutError):
        async with asyncio.timeout(LONGEST):
            await fan_out(
                leaving,
                lambda uid: leave_one(leaving[uid]),
                limit=asyncio.Semaphore(context.ports.concurrency),
                timeout=LONGEST,
                stopping=context.ports.stopping,
                done=on_done,
                name=f"leave:{context.instance}",
            )
    if fenced:
        raise LeaseLost(f"the lease of {context.instance} ended before all tokens were revoked")
    return said


def _holds_ours(context: PassContext, before: Before, uid: str) -> bool:
    """Whether a token of ours may live in a published cluster; or any object of ours, if all of them are to go."""
    record, memory = before.records[uid], before.state.memory.get(uid)
    if context.policy.release_deselected and memory is not None and memory.generation is not None:
        return True
    return isinstance(record.auth, ServiceAccountAuth) and uid in before.state.credentials

"""Requests about one cluster: resync, rotate, pause and resume. They come from the control stream and from the page."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from palette_sync.assembly.store import utc_now
from palette_sync.core.cluster_answer import ClusterNow, looked, paused, refusal, resumed, rotated
from palette_sync.core.cluster_request import decode_cluster_request
from palette_sync.core.documents import DocumentError
from palette_sync.reconcile.report import Effect
from palette_sync.store.control import Answer, AnswerStatus, Verb

if TYPE_CHECKING:
    from palette_sync.core.cluster_answer import ClusterAnswer
    from palette_sync.core.cluster_request import ClusterRequest
    from palette_sync.core.model import InstanceState, Pause
    from palette_sync.runner.mailbox import PausedFuture, ReportFuture
    from palette_sync.store.control import Request

CLUSTER_VERBS = frozenset({Verb.RESYNC_CLUSTER, Verb.ROTATE, Verb.PAUSE, Verb.RESUME})
_REMOVED = Answer(AnswerStatus.FAILED, "a reload has just removed this instance")
NOT_RUN = Answer(AnswerStatus.FAILED, "the pass could not be run; see the daemon's log")


class ClusterCommands(Protocol):
    """What the daemon does with one cluster. None: the instance is not run any more."""

    def state(self, instance: str) -> InstanceState | None:
        """What is published, as far as this process knows."""
        ...

    def ask_cluster(self, instance: str, uid: str, *, rotate: bool, revoke: bool) -> ReportFuture | None:
        """Ask for work on one cluster now."""
        ...

    def pause(self, instance: str, uid: str, pause: Pause | None) -> PausedFuture | None:
        """Ask for a pause, or for its end."""
        ...


async def act(daemon: ClusterCommands, request: Request) -> Answer:
    """Carry out a request about one cluster, and return its last answer."""
    try:
        wanted = decode_cluster_request(request.arguments)
    except DocumentError as error:
        return Answer(AnswerStatus.FAILED, f"the request cannot be read: {error}")
    found = _now(daemon, request.instance, wanted.uid)
    if found is None:
        return _unknown(wanted.uid)
    if request.verb is Verb.PAUSE:
        return await _pause(daemon, request, wanted)
    if request.verb is Verb.RESUME:
        return await _resume(daemon, request.instance, found)
    return await _look(daemon, request.instance, wanted, rotate=request.verb is Verb.ROTATE)


async def _look(daemon: ClusterCommands, instance: str, wanted: ClusterRequest, *, rotate: bool) -> Answer:
    uid = wanted.uid
    found = _now(daemon, instance, uid)
    if found is not None and (refused := refusal(found, rotate=rotate)) is not None:
        return _answer(refused)
    future = daemon.ask_cluster(instance, uid, rotate=rotate, revoke=wanted.revoke)
    if future is None:
        return _REMOVED
    await asyncio.wait({future})
    if future.cancelled():
        return NOT_RUN
    report, found = future.result(), _now(daemon, instance, uid)
    if found is None:
        return _unknown(uid)
    effects = [effect for change in report.changes if change.uid == uid for effect in change.effects]
    if rotate:
        issued = Effect.ROTATED in effects
        return _answer(rotated(found, issued=issued, revoke=wanted.revoke, since=report.started_at))
    return _answer(looked(found, since=report.started_at, effects=list(dict.fromkeys(effects))))


async def _pause(daemon: ClusterCommands, request: Request, wanted: ClusterRequest) -> Answer:
    pause = wanted.pause(by=request.by, now=utc_now())
    if not pause.reason:
        return Answer(AnswerStatus.FAILED, "a pause needs a reason")
    failed = await _published(daemon.pause(request.instance, wanted.uid, pause), wanted.uid)
    if failed is not None:
        return failed
    found = _now(daemon, request.instance, wanted.uid)
    return _unknown(wanted.uid) if found is None else _answer(paused(found))


async def _resume(daemon: ClusterCommands, instance: str, before: ClusterNow) -> Answer:
    """End the pause, and look at the cluster at once: what is due has waited."""
    uid = before.record.uid
    ended = daemon.pause(instance, uid, None)
    look = daemon.ask_cluster(instance, uid, rotate=False, revoke=False)
    failed = await _published(ended, uid)
    if failed is not None:
        return failed
    if look is not None:
        await asyncio.wait({look})
    found = _now(daemon, instance, uid)
    return _unknown(uid) if found is None else _answer(resumed(found, was_paused=before.pause is not None))


async def _published(future: PausedFuture | None, uid: str) -> Answer | None:
    """Wait for a pause or its end; return why it was not published, or None."""
    if future is None:
        return _REMOVED
    await asyncio.wait({future})
    if future.cancelled():
        return NOT_RUN
    return None if future.result() else _unknown(uid)


def _now(daemon: ClusterCommands, instance: str, uid: str) -> ClusterNow | None:
    return ClusterNow.find(daemon.state(instance), uid, utc_now())


def _unknown(uid: str) -> Answer:
    text = f"no cluster with the uid {uid} is published, or the snapshot does not verify; see `palette-sync status`"
    return Answer(AnswerStatus.FAILED, text)


def _answer(found: ClusterAnswer) -> Answer:
    return Answer(AnswerStatus.DONE if found.done else AnswerStatus.FAILED, found.text, found.document)

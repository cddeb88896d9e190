"""The daemon's side of `palette-sync resync` and `reload`: hear requests on the control streams, act, answer."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

import structlog

from palette_sync.store.control import Answer, AnswerStatus, Request, RequestReader, Verb, answer
from palette_sync.store.redis import StoreError

if TYPE_CHECKING:
    from collections.abc import Collection

    from palette_sync.assembly.instance import Shared
    from palette_sync.reconcile.report import PassReport
    from palette_sync.runner.mailbox import ReportFuture

log = structlog.get_logger(__name__)

PAUSE = 2.0  # seconds before Redis is asked again, or before looking again whether an instance is led


class Commanded(Protocol):
    """What requests may do to the daemon."""

    @property
    def shared(self) -> Shared: ...

    def led(self) -> Collection[str]:
        """The instances whose lease this process holds."""
        ...

    def ask(self, instance: str, *, allow_prune: bool) -> ReportFuture | None:
        """None where the instance is not run any more."""
        ...

    async def reload(self) -> list[str]:
        """Returns the problems; none = applied."""
        ...


async def serve_requests(daemon: Commanded) -> None:
    """Hear and answer until cancelled. Redis away is borne."""
    desk = RequestReader(daemon.shared.store)
    deaf: dict[str, str] = {}
    async with asyncio.TaskGroup() as group:
        while True:
            led = daemon.led()
            if not led:
                await asyncio.sleep(PAUSE)
                continue
            try:
                found = await desk.wait(led, lambda: daemon.shared.sealer)
            except StoreError:
                await asyncio.sleep(PAUSE)  # the runners tell that Redis is away
                continue
            for instance in desk.unreadable_streams.keys() - deaf.keys():
                log.warning("requests_unheard", instance=instance, reason=desk.unreadable_streams[instance])
            deaf = dict(desk.unreadable_streams)
            if len(deaf) == len(led):
                await asyncio.sleep(PAUSE)
            for request in found:
                group.create_task(_serve(daemon, request), name=f"request:{request.instance}")


async def _serve(daemon: Commanded, request: Request) -> None:
    log.info("request_received", instance=request.instance, action=request.verb.value, by=request.by)
    try:
        await _answer(daemon, request, Answer(AnswerStatus.ACCEPTED))
        if request.verb is Verb.RELOAD:
            problems = await daemon.reload()
            outcome = (
                Answer(AnswerStatus.FAILED, "; ".join(problems)) if problems else Answer(AnswerStatus.DONE, "reloaded")
            )
        else:
            outcome = await _resync(daemon, request)
        await _answer(daemon, request, outcome)
    except asyncio.CancelledError:
        # A resync may still be under way: what it does is done, but nobody will tell.
        with suppress(StoreError):
            await _answer(
                daemon, request, Answer(AnswerStatus.FAILED, "the daemon is stopping; ask again when it is back")
            )
        raise
    except StoreError as error:
        log.warning("request_unanswered", instance=request.instance, reason=str(error))


async def _resync(daemon: Commanded, request: Request) -> Answer:
    promise = daemon.ask(request.instance, allow_prune=request.verb is Verb.ALLOW_PRUNE)
    if promise is None:
        return Answer(AnswerStatus.FAILED, "a reload has just removed this instance")
    await asyncio.wait({promise})
    if promise.cancelled():
        return Answer(AnswerStatus.FAILED, "the pass could not be run; see the daemon's log")
    report = promise.result()
    return Answer(AnswerStatus.FAILED if report.failed else AnswerStatus.DONE, told(report), summary(report))


async def _answer(daemon: Commanded, request: Request, given: Answer) -> None:
    await answer(daemon.shared.store, daemon.shared.sealer, request, given)


def told(report: PassReport) -> str:
    access = ", ".join(f"{count} {state}" for state, count in report.access.items()) or "no clusters"
    problems = "; ".join(filter(None, (report.error, *report.problems)))
    text = f"{access}; version {report.version}; {report.due} worked on, {len(report.changes)} changed"
    return f"{text}; {problems}" if problems else text


def summary(report: PassReport) -> dict[str, object]:
    return {
        "pass_id": report.pass_id,
        "version": report.version,
        "access": dict(report.access),
        "due": report.due,
        "changed": len(report.changes),
        "held": report.held,
        "skipped": report.skipped,
        "duration_s": round(report.duration_s, 3),
        "error": report.error,
        "problems": list(report.problems),
    }

"""The daemon's side of `palette-sync resync` and `reload`: reads requests from the control streams and answers them."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

import structlog

from palette_sync.reconcile.report import Effect
from palette_sync.store.control import Answer, AnswerStatus, Request, RequestReader, Verb, answer
from palette_sync.store.redis import StoreError

if TYPE_CHECKING:
    from collections.abc import Collection

    from palette_sync.assembly.instance import Shared
    from palette_sync.reconcile.report import Change, PassReport
    from palette_sync.runner.mailbox import ReportFuture
    from palette_sync.service.reload import Reloaded

log = structlog.get_logger(__name__)

NAMED, LISTED = 5, 100  # failed clusters that an answer names for people, and lists for programs
PAUSE = 2.0  # seconds before Redis is read again after an error, or before looking again for a led instance


class Commands(Protocol):
    """What a request may make the daemon do."""

    @property
    def shared(self) -> Shared: ...

    def leading(self) -> Collection[str]:
        """The instances whose lease this process holds."""
        ...

    def note(self, instance: str, action: str, by: str) -> None:
        """Remember for people that somebody asked for something."""
        ...

    def ask(self, instance: str, *, allow_prune: bool) -> ReportFuture | None:
        """Ask for a resync. Returns None if the instance is not run any more."""
        ...

    async def reload(self, *, allow_prune: bool) -> Reloaded:
        """Apply the configuration as the file is now, or reject it."""
        ...


async def serve_requests(daemon: Commands) -> None:
    """Read and answer requests until cancelled. While Redis cannot be read, this goes on trying."""
    store = daemon.shared.store
    reader = RequestReader(store.link, store.keys)
    unreadable: dict[str, str] = {}
    async with asyncio.TaskGroup() as group:
        while True:
            leading = daemon.leading()
            if not leading:
                await asyncio.sleep(PAUSE)
                continue
            try:
                found = await reader.wait(leading, lambda: daemon.shared.sealer)
            except StoreError:
                await asyncio.sleep(PAUSE)  # the runners log that Redis fails
                continue
            for instance in reader.unreadable_streams.keys() - unreadable.keys():
                log.warning("requests_unheard", instance=instance, reason=reader.unreadable_streams[instance])
            unreadable = dict(reader.unreadable_streams)
            if len(unreadable) == len(leading):
                await asyncio.sleep(PAUSE)
            for request in found:
                group.create_task(_serve(daemon, request), name=f"request:{request.instance}")


async def _serve(daemon: Commands, request: Request) -> None:
    log.info("request_received", instance=request.instance, action=request.verb.value, by=request.by)
    daemon.note(request.instance, request.verb.value, request.by)
    try:
        await _answer(daemon, request, Answer(AnswerStatus.ACCEPTED))
        if request.verb in {Verb.RELOAD, Verb.RELOAD_ALLOW_PRUNE}:
            reloaded = await daemon.reload(allow_prune=request.verb is Verb.RELOAD_ALLOW_PRUNE)
            if reloaded.problems:
                outcome = Answer(AnswerStatus.FAILED, "; ".join(reloaded.problems))
            else:
                outcome = Answer(AnswerStatus.DONE, "; ".join(["reloaded", *reloaded.notes]))
        else:
            outcome = await _resync(daemon, request)
        await _answer(daemon, request, outcome)
    except asyncio.CancelledError:
        # A resync may still be running. It is finished, but its result will not be reported.
        with suppress(StoreError):
            await _answer(
                daemon, request, Answer(AnswerStatus.FAILED, "the daemon is stopping; ask again when it is back")
            )
        raise
    except StoreError as error:
        log.warning("request_unanswered", instance=request.instance, reason=str(error))


async def _resync(daemon: Commands, request: Request) -> Answer:
    report_future = daemon.ask(request.instance, allow_prune=request.verb is Verb.ALLOW_PRUNE)
    if report_future is None:
        return Answer(AnswerStatus.FAILED, "a reload has just removed this instance")
    await asyncio.wait({report_future})
    if report_future.cancelled():
        return Answer(AnswerStatus.FAILED, "the pass could not be run; see the daemon's log")
    report = report_future.result()
    status = AnswerStatus.DONE if report.all_well else AnswerStatus.FAILED
    return Answer(status, summary(report), document(report))


async def _answer(daemon: Commands, request: Request, given: Answer) -> None:
    store = daemon.shared.store
    await answer(store.link, store.keys, daemon.shared.sealer, request, given)


def summary(report: PassReport) -> str:
    """One line for people."""
    access = ", ".join(f"{count} {state}" for state, count in report.access.items()) or "no clusters"
    problems = "; ".join(filter(None, (report.error, *report.problems)))
    text = f"{access}; version {report.version}; {report.due} worked on, {report.changed} changed"
    if report.held:
        text += f", {report.held} held (`palette-sync resync --allow-prune` drops them)"
    if report.silent:
        text += f", {report.silent} not answered yet (palette-sync goes on asking them)"
    if failed := _failed(report):
        names = ", ".join(f"{one.name} ({one.reason})" for one in failed[:NAMED])
        text += f"; failed: {names}{' ...' if len(failed) > NAMED else ''}"
    return f"{text}; {problems}" if problems else text


def _failed(report: PassReport) -> list[Change]:
    return sorted((one for one in report.changes if Effect.FAILED in one.effects), key=lambda one: one.name)


def document(report: PassReport) -> dict[str, object]:
    """The same for programs."""
    return {
        "pass_id": report.pass_id,
        "version": report.version,
        "access": dict(report.access),
        "due": report.due,
        "changed": report.changed,
        "failed": [
            {"name": one.name, "reason": one.reason.value, "message": one.message} for one in _failed(report)[:LISTED]
        ],
        "held": report.held,
        "skipped": report.skipped,
        "silent": report.silent,
        "duration_s": round(report.duration_s, 3),
        "error": report.error,
        "problems": list(report.problems),
    }

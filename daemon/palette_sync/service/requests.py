"""The daemon's side of `palette-sync resync` and `reload`: reads requests from the control streams and answers them."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import structlog

from palette_sync.assembly.instance import holder
from palette_sync.reconcile.report import Effect
from palette_sync.service.cluster_requests import CLUSTER_VERBS, NOT_RUN, ClusterCommands, act
from palette_sync.store.control import (
    EVERYBODY,
    Answer,
    AnswerStatus,
    Request,
    RequestReader,
    Verb,
    answer,
    ask_everybody,
    pass_on,
    send_again,
)
from palette_sync.store.redis import StoreError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from palette_sync.assembly.instance import Shared
    from palette_sync.reconcile.report import Change, PassReport
    from palette_sync.runner.mailbox import ReportFuture
    from palette_sync.runner.status import Progress
    from palette_sync.service.reload import Reloaded

log = structlog.get_logger(__name__)

NAMED, LISTED = 5, 100  # failed clusters that an answer names for people, and lists for programs
STOPPING = Answer(AnswerStatus.FAILED, "the daemon is stopping; ask again when it is back")
PROGRESS_PAUSE = 2.0  # seconds between two answers that say how far a resync has come
PAUSE = 2.0  # seconds before Redis is read again after an error
REPORTED_FOR = 60.0  # seconds for which the answers of the others to a reload that SIGHUP asked for are awaited


class Commands(ClusterCommands, Protocol):
    """What a request may make the daemon do."""

    @property
    def shared(self) -> Shared: ...

    @property
    def member(self) -> str:
        """The id under which this process announces itself to the others."""
        ...

    @property
    def own_requests(self) -> Collection[str]:
        """Ids of requests to every daemon that this process has sent. It has carried them out already."""
        ...

    def leading(self) -> Collection[str]:
        """The instances whose lease this process holds."""
        ...

    def has_left(self, instance: str) -> bool:
        """Whether it is for another process to lead the instance: this one stands by, or ends."""
        ...

    def note(self, instance: str, action: str, by: str) -> None:
        """Remember for people that somebody asked for something."""
        ...

    def ask(self, instance: str, *, allow_prune: bool) -> ReportFuture | None:
        """Ask for a resync. Returns None if the instance is not run any more."""
        ...

    def progress(self, instance: str) -> Progress | None:
        """How far the pass at work has come; None if none is at work."""
        ...

    async def reload(self, *, allow_prune: bool) -> Reloaded:
        """Apply the configuration as the file is now, or reject it."""
        ...


async def serve_requests(daemon: Commands, passed_on: list[Request]) -> None:
    """Read and answer requests until cancelled. While Redis cannot be read, this goes on trying.

    What is at work when this is cancelled is passed on to the next process that leads, and added to `passed_on`.
    """
    store = daemon.shared.store
    reader = RequestReader(store.link, store.keys)
    unreadable: dict[str, str] = {}
    async with asyncio.TaskGroup() as group:
        while True:
            streams = [EVERYBODY, *daemon.leading()]
            try:
                found = await reader.wait(streams, lambda: daemon.shared.sealer)
            except StoreError:
                await asyncio.sleep(PAUSE)  # the runners log that Redis fails
                continue
            for instance in reader.unreadable_streams.keys() - unreadable.keys():
                log.warning("requests_unheard", instance=instance, reason=reader.unreadable_streams[instance])
            unreadable = dict(reader.unreadable_streams)
            if len(unreadable) == len(streams):
                await asyncio.sleep(PAUSE)
            for request in found:
                if request.id not in daemon.own_requests:
                    group.create_task(_serve(daemon, request, passed_on), name=f"request:{request.instance}")


async def ask_others_to_reload(daemon: Commands, others: Collection[str], *, request_id: str, by: str) -> None:
    """Ask every other daemon to reload, as `palette-sync reload` does, and log what each of the `others` answers."""
    shared, silent = daemon.shared, set(others) - {daemon.member}
    if not silent:
        return
    store = shared.store
    asking = ask_everybody(store.link, store.keys, shared.sealer, Verb.RELOAD, by=by, request_id=request_id)
    with suppress(StoreError, TimeoutError):
        async with asyncio.timeout(REPORTED_FOR), aclosing(asking):
            async for found in asking:
                if found is None or found.word is AnswerStatus.ACCEPTED:
                    continue
                member = str(found.document.get("member", ""))
                silent.discard(member)
                if found.word is AnswerStatus.DONE:
                    log.info("reload_answered", member=member, reason=found.text)
                else:
                    log.warning("reload_answered", member=member, reason=found.text)
                if not silent:
                    break
    if silent:
        log.warning("reload_unanswered", members=sorted(silent), reason="look at the logs of these processes")


async def send_all_again(daemon: Commands, passed_on: Iterable[Request]) -> None:
    """At the end of a drain: it may have lasted longer than a request is fresh. Who has claimed it ignores this."""
    store = daemon.shared.store
    with suppress(StoreError, TimeoutError):
        async with asyncio.timeout(PAUSE):
            for request in passed_on:
                await send_again(store.link, store.keys, daemon.shared.sealer, request)


async def _serve(daemon: Commands, request: Request, passed_on: list[Request]) -> None:
    log.info("request_received", instance=request.instance, action=request.verb.value, by=request.by)
    outcome: Answer | None = None
    for instance in daemon.leading() if request.verb.concerns_everybody else [request.instance]:
        daemon.note(instance, request.verb.value, request.by)
    try:
        await _answer(daemon, request, Answer(AnswerStatus.ACCEPTED))
        if request.verb.concerns_everybody:
            outcome = _reloaded(await daemon.reload(allow_prune=request.verb is Verb.RELOAD_ALLOW_PRUNE))
        elif request.verb in CLUSTER_VERBS:
            outcome = await act(daemon, request)
            if outcome is NOT_RUN and daemon.has_left(request.instance):
                outcome = None
        else:
            outcome = await _resync(daemon, request)
        if outcome is None:
            await asyncio.sleep(PAUSE)  # until this process has stopped to read the requests of the instance
            await _pass_on(daemon, request)
        else:
            await _answer(daemon, request, outcome)
    except asyncio.CancelledError:
        with suppress(StoreError):
            if outcome is None and not request.verb.concerns_everybody:
                passed_on.append(request)
                await _pass_on(daemon, request)
            else:
                await _answer(daemon, request, outcome or STOPPING)
        raise
    except StoreError as error:
        log.warning("request_unanswered", instance=request.instance, reason=str(error))


def _reloaded(reloaded: Reloaded) -> Answer:
    found = {"problems": reloaded.problems, "notes": reloaded.notes}
    if reloaded.problems:
        return Answer(AnswerStatus.FAILED, "; ".join(reloaded.problems), found)
    return Answer(AnswerStatus.DONE, "; ".join(["reloaded", *reloaded.notes]), found)


async def _pass_on(daemon: Commands, request: Request) -> None:
    """A pass of the request may still be running. It is finished, and the next leader begins anew."""
    store = daemon.shared.store
    await _answer(daemon, request, Answer(AnswerStatus.PASSED_ON, f"{holder()} passed it on to the next leader"))
    await pass_on(store.link, store.keys, daemon.shared.sealer, request)
    log.info("request_passed_on", instance=request.instance, action=request.verb.value, by=request.by)


async def _resync(daemon: Commands, request: Request) -> Answer | None:
    """None: this process does not lead any more, so another one has to carry the request out."""
    report_future = daemon.ask(request.instance, allow_prune=request.verb is Verb.ALLOW_PRUNE)
    if report_future is None:
        return Answer(AnswerStatus.FAILED, "a reload has just removed this instance")
    await _until_done(daemon, request, report_future)
    if report_future.cancelled():
        if daemon.has_left(request.instance):
            return None
        return Answer(AnswerStatus.FAILED, "the pass could not be run; see the daemon's log")
    report = report_future.result()
    status = AnswerStatus.DONE if report.all_well else AnswerStatus.FAILED
    return Answer(status, summary(report), document(report))


async def _until_done(daemon: Commands, request: Request, future: ReportFuture) -> None:
    """Wait for a pass, and report from time to time how far it has come."""
    last: Progress | None = None
    while not (await asyncio.wait({future}, timeout=PROGRESS_PAUSE))[0]:
        now = daemon.progress(request.instance)
        if now is not None and now != last:
            last = now
            stage, done, total = now
            text = f"{stage}: {done} of {total}" if total else stage
            await _answer(
                daemon, request, Answer(AnswerStatus.ACCEPTED, text, {"stage": stage, "done": done, "total": total})
            )


async def _answer(daemon: Commands, request: Request, given: Answer) -> None:
    store = daemon.shared.store
    given = replace(given, document={**given.document, "member": daemon.member})
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

"""The daemon's side of `resync` and `reload`: every request is answered, whatever happens to its instance."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from builders import NOW
from integration.store_builders import until
from palette_sync.reconcile.report import PassReport
from palette_sync.service import requests
from palette_sync.service.reload import Reloaded
from palette_sync.service.requests import send_all_again, serve_requests
from palette_sync.store import control
from palette_sync.store.control import EVERYBODY, Answer, AnswerStatus, Request, Verb, ask
from palette_sync.store.seal import SealKeys

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    import pytest

    from palette_sync.store.redis import Store


@dataclass
class Shared:
    store: Store
    sealer: SealKeys


@dataclass
class Daemon:
    """Leads alpha. A resync returns `report_future`; a reload finds `problems` and `notes`."""

    shared: Any
    report_future: asyncio.Future[Any] | None = None
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    asked: list[tuple[str, bool]] = field(default_factory=list)
    passed_on: list[Request] = field(default_factory=list)
    standby: bool = False
    member: str = "host:1:a"
    own_requests: list[str] = field(default_factory=list)
    stages: Iterator[tuple[str, int, int] | None] = field(default_factory=lambda: iter(()))
    noted: list[tuple[str, str, str]] = field(default_factory=list)

    def leading(self) -> list[str]:
        return [] if self.standby else ["alpha"]

    def has_left(self, instance: str) -> bool:
        return self.standby

    def note(self, instance: str, action: str, by: str) -> None:
        self.noted.append((instance, action, by))

    def ask(self, instance: str, *, allow_prune: bool) -> asyncio.Future[Any] | None:
        self.asked.append((instance, allow_prune))
        return self.report_future

    def progress(self, _instance: str) -> tuple[str, int, int] | None:
        return next(self.stages, None)

    async def reload(self, *, allow_prune: bool) -> Reloaded:
        self.asked.append(("reload", allow_prune))
        return Reloaded(self.problems, self.notes)


@asynccontextmanager
async def serving(daemon: Daemon) -> AsyncIterator[None]:
    task = asyncio.create_task(serve_requests(daemon, daemon.passed_on))
    try:
        yield
        assert not task.done(), "it goes on"
    finally:
        task.cancel()
        await asyncio.wait({task})


async def last_answer(store: Store, sealer: SealKeys, verb: Verb) -> Answer:
    """The last answer."""
    instance = EVERYBODY if verb.concerns_everybody else "alpha"
    answers = [one async for one in ask(store.link, store.keys, sealer, instance, verb, by="a test") if one is not None]
    assert answers[0] == Answer(AnswerStatus.ACCEPTED, document={"member": "host:1:a"})
    return answers[-1]


def done() -> asyncio.Future[Any]:
    report: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    report.set_result(PassReport("alpha", "p", NOW, 0.1, 1, 1, access={"ready": 1}))
    return report


def asked(store: Store, sealer: SealKeys) -> asyncio.Task[list[AnswerStatus]]:
    """The words of all answers to a resync."""

    async def words() -> list[AnswerStatus]:
        answers = ask(store.link, store.keys, sealer, "alpha", Verb.ALLOW_PRUNE, by="a test")
        return [one.word async for one in answers if one is not None]

    return asyncio.create_task(words())


TAKEN_OVER = [AnswerStatus.ACCEPTED, AnswerStatus.PASSED_ON, AnswerStatus.ACCEPTED, AnswerStatus.DONE]


async def test_a_resync_that_the_end_of_a_leader_interrupts_is_answered_by_the_next_one(
    store: Store, seal_keys: SealKeys
) -> None:
    shared = Shared(store, seal_keys)
    first = Daemon(shared, report_future=asyncio.get_running_loop().create_future())
    second = Daemon(shared, report_future=done())
    async with serving(first):
        words = asked(store, seal_keys)
        await until(lambda: first.asked)
    async with serving(second):
        assert await words == TAKEN_OVER
        await send_all_again(first, first.passed_on)
        assert await asked(store, seal_keys) == [AnswerStatus.ACCEPTED, AnswerStatus.DONE]

    assert first.asked == [("alpha", True)]
    assert second.asked == [("alpha", True)] * 2, "what was sent again had been claimed"


async def test_a_resync_that_was_passed_on_long_ago_is_fresh_again_at_the_end_of_the_drain(
    store: Store, seal_keys: SealKeys
) -> None:
    shared = Shared(store, seal_keys)
    first = Daemon(shared, report_future=asyncio.get_running_loop().create_future())
    async with serving(first):
        words = asked(store, seal_keys)
        await until(lambda: first.asked)
    await store.link.command("test", "DEL", store.keys.control("alpha"))  # as if it were too old to be carried out
    async with serving(Daemon(shared, report_future=done())):
        await send_all_again(first, first.passed_on)
        assert (await words)[-2:] == TAKEN_OVER[-2:]


async def test_a_resync_whose_leader_hands_over_is_answered_by_the_next_one(
    store: Store, seal_keys: SealKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "PAUSE", 0.01)
    shared = Shared(store, seal_keys)
    first = Daemon(shared, report_future=asyncio.get_running_loop().create_future())
    async with serving(first):
        words = asked(store, seal_keys)
        await until(lambda: first.asked)
        first.standby = True
        first.report_future.cancel()  # type: ignore[union-attr]
        async with serving(Daemon(shared, report_future=done())):
            assert await words == TAKEN_OVER

    assert first.passed_on == []


def failed(text: str, **document: Any) -> Answer:
    return Answer(AnswerStatus.FAILED, text, {**document, "member": "host:1:a"})


def reloaded(*notes: str) -> Answer:
    text = "; ".join(["reloaded", *notes])
    return Answer(AnswerStatus.DONE, text, {"problems": [], "notes": list(notes), "member": "host:1:a"})


async def test_a_resync_of_an_instance_that_a_reload_removed_is_answered(store: Store, seal_keys: SealKeys) -> None:
    daemon = Daemon(Shared(store, seal_keys))
    async with serving(daemon):
        answer = await last_answer(store, seal_keys, Verb.ALLOW_PRUNE)

    assert answer == failed("a reload has just removed this instance")
    assert daemon.asked == [("alpha", True)]


async def test_a_resync_whose_pass_could_not_be_run_is_answered(store: Store, seal_keys: SealKeys) -> None:
    daemon = Daemon(Shared(store, seal_keys), report_future=asyncio.get_running_loop().create_future())
    async with serving(daemon):
        asyncio.get_running_loop().call_later(0.05, daemon.report_future.cancel)  # type: ignore[union-attr]
        answer = await last_answer(store, seal_keys, Verb.RESYNC)

    assert answer.word is AnswerStatus.FAILED
    assert "see the daemon's log" in answer.text


async def test_a_request_with_keys_that_a_reload_brought_while_the_daemon_listened_is_heard(
    store: Store, seal_keys: SealKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    listening, read = asyncio.Event(), control.read_on

    async def signal_and_read(*args: Any, **kwargs: Any) -> Any:
        listening.set()
        return await read(*args, **kwargs)

    monkeypatch.setattr(control, "read_on", signal_and_read)
    daemon = Daemon(Shared(store, seal_keys))
    async with serving(daemon):
        await listening.wait()
        newer = SealKeys.from_lines(SealKeys.generate_line("newer"))
        daemon.shared = Shared(store, newer)

        assert await last_answer(store, newer, Verb.RELOAD) == reloaded()


async def test_a_reload_passes_on_what_may_be_dropped_and_answers_with_its_notes(
    store: Store, seal_keys: SealKeys
) -> None:
    daemon = Daemon(Shared(store, seal_keys), notes=["a pattern matches nothing"])
    async with serving(daemon):
        for verb in (Verb.RELOAD, Verb.RELOAD_ALLOW_PRUNE):
            answer = await last_answer(store, seal_keys, verb)
            assert answer == reloaded("a pattern matches nothing")

    assert daemon.asked == [("reload", False), ("reload", True)]


async def test_the_problems_of_a_reload_are_answered(store: Store, seal_keys: SealKeys) -> None:
    async with serving(Daemon(Shared(store, seal_keys), problems=["one", "two"])):
        assert await last_answer(store, seal_keys, Verb.RELOAD) == failed("one; two", problems=["one", "two"], notes=[])
    async with serving(Daemon(Shared(store, seal_keys))):
        assert await last_answer(store, seal_keys, Verb.RELOAD) == reloaded()


async def test_a_long_resync_says_how_far_it_has_come_once_for_each_step(
    store: Store, seal_keys: SealKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "PROGRESS_PAUSE", 0.01)
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def stages() -> Iterator[tuple[str, int, int] | None]:
        yield None
        yield ("listing Palette", 0, 0)
        yield ("working on clusters", 1, 3)
        yield ("working on clusters", 1, 3)
        future.cancel()
        yield ("working on clusters", 1, 3)

    daemon = Daemon(Shared(store, seal_keys), report_future=future, stages=stages())
    async with serving(daemon):
        asked = ask(store.link, store.keys, seal_keys, "alpha", Verb.RESYNC, by="a test")
        answers = [one async for one in asked if one is not None]

    assert [(one.word, one.text) for one in answers[:-1]] == [
        (AnswerStatus.ACCEPTED, ""),
        (AnswerStatus.ACCEPTED, "listing Palette"),
        (AnswerStatus.ACCEPTED, "working on clusters: 1 of 3"),
    ]
    assert answers[2].document == {"stage": "working on clusters", "done": 1, "total": 3, "member": "host:1:a"}
    assert answers[-1].word is AnswerStatus.FAILED

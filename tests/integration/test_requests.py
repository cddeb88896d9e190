"""The daemon's side of `resync` and `reload`: every request is answered, whatever happens to its instance."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from palette_sync.service.reload import Reloaded
from palette_sync.service.requests import serve_requests
from palette_sync.store import control
from palette_sync.store.control import Answer, AnswerStatus, Verb, ask
from palette_sync.store.seal import SealKeys

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

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
    noted: list[tuple[str, str, str]] = field(default_factory=list)

    def leading(self) -> list[str]:
        return ["alpha"]

    def note(self, instance: str, action: str, by: str) -> None:
        self.noted.append((instance, action, by))

    def ask(self, instance: str, *, allow_prune: bool) -> asyncio.Future[Any] | None:
        self.asked.append((instance, allow_prune))
        return self.report_future

    async def reload(self, *, allow_prune: bool) -> Reloaded:
        self.asked.append(("reload", allow_prune))
        return Reloaded(self.problems, self.notes)


@asynccontextmanager
async def serving(daemon: Daemon) -> AsyncIterator[None]:
    task = asyncio.create_task(serve_requests(daemon))
    try:
        yield
        assert not task.done(), "it goes on"
    finally:
        task.cancel()
        await asyncio.wait({task})


async def last_answer(store: Store, sealer: SealKeys, verb: Verb) -> Answer:
    """The last answer."""
    answers = [one async for one in ask(store.link, store.keys, sealer, "alpha", verb, by="a test") if one is not None]
    assert answers[0] == Answer(AnswerStatus.ACCEPTED)
    return answers[-1]


async def test_a_resync_of_an_instance_that_a_reload_removed_is_answered(store: Store, seal_keys: SealKeys) -> None:
    daemon = Daemon(Shared(store, seal_keys))
    async with serving(daemon):
        answer = await last_answer(store, seal_keys, Verb.ALLOW_PRUNE)

    assert answer == Answer(AnswerStatus.FAILED, "a reload has just removed this instance")
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

        assert await last_answer(store, newer, Verb.RELOAD) == Answer(AnswerStatus.DONE, "reloaded")


async def test_a_reload_passes_on_what_may_be_dropped_and_answers_with_its_notes(
    store: Store, seal_keys: SealKeys
) -> None:
    daemon = Daemon(Shared(store, seal_keys), notes=["a pattern matches nothing"])
    async with serving(daemon):
        for verb in (Verb.RELOAD, Verb.RELOAD_ALLOW_PRUNE):
            answer = await last_answer(store, seal_keys, verb)
            assert answer == Answer(AnswerStatus.DONE, "reloaded; a pattern matches nothing")

    assert daemon.asked == [("reload", False), ("reload", True)]


async def test_the_problems_of_a_reload_are_answered(store: Store, seal_keys: SealKeys) -> None:
    async with serving(Daemon(Shared(store, seal_keys), problems=["one", "two"])):
        assert await last_answer(store, seal_keys, Verb.RELOAD) == Answer(AnswerStatus.FAILED, "one; two")
    async with serving(Daemon(Shared(store, seal_keys))):
        assert await last_answer(store, seal_keys, Verb.RELOAD) == Answer(AnswerStatus.DONE, "reloaded")

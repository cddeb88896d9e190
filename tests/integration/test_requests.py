"""The daemon's side of `resync` and `reload`: whatever becomes of the instance meanwhile, who asks is answered."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from palette_sync.service.requests import serve_requests
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
    """Leads alpha; `promise` is what a resync is promised, `problems` what a reload finds."""

    shared: Any
    promise: asyncio.Future[Any] | None = None
    problems: list[str] = field(default_factory=list)
    asked: list[tuple[str, bool]] = field(default_factory=list)

    def led(self) -> list[str]:
        return ["alpha"]

    def ask(self, instance: str, *, allow_prune: bool) -> asyncio.Future[Any] | None:
        self.asked.append((instance, allow_prune))
        return self.promise

    async def reload(self) -> list[str]:
        return self.problems


@asynccontextmanager
async def serving(daemon: Daemon) -> AsyncIterator[None]:
    task = asyncio.create_task(serve_requests(daemon))
    try:
        yield
        assert not task.done(), "it goes on"
    finally:
        task.cancel()
        await asyncio.wait({task})


async def told(store: Store, sealer: SealKeys, verb: Verb) -> Answer:
    """The last answer."""
    answers = [one async for one in ask(store, sealer, "alpha", verb, by="a test") if one is not None]
    assert answers[0] == Answer(AnswerStatus.ACCEPTED)
    return answers[-1]


async def test_a_resync_of_an_instance_that_a_reload_removed_is_answered(store: Store, seal_keys: SealKeys) -> None:
    daemon = Daemon(Shared(store, seal_keys))
    async with serving(daemon):
        answer = await told(store, seal_keys, Verb.ALLOW_PRUNE)

    assert answer == Answer(AnswerStatus.FAILED, "a reload has just removed this instance")
    assert daemon.asked == [("alpha", True)]


async def test_a_resync_whose_pass_could_not_be_run_is_answered(store: Store, seal_keys: SealKeys) -> None:
    daemon = Daemon(Shared(store, seal_keys), promise=asyncio.get_running_loop().create_future())
    async with serving(daemon):
        asyncio.get_running_loop().call_later(0.05, daemon.promise.cancel)  # type: ignore[union-attr]
        answer = await told(store, seal_keys, Verb.RESYNC)

    assert answer.word is AnswerStatus.FAILED
    assert "see the daemon's log" in answer.text


async def test_a_request_with_keys_that_a_reload_brought_while_the_daemon_listened_is_heard(
    store: Store, seal_keys: SealKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    listening, read = asyncio.Event(), store.read_control

    async def told_when_it_begins(*args: Any, **kwargs: Any) -> Any:
        listening.set()
        return await read(*args, **kwargs)

    monkeypatch.setattr(store, "read_control", told_when_it_begins)
    daemon = Daemon(Shared(store, seal_keys))
    async with serving(daemon):
        await listening.wait()
        newer = SealKeys.from_lines(SealKeys.generate_line("newer"))
        daemon.shared = Shared(store, newer)

        assert await told(store, newer, Verb.RELOAD) == Answer(AnswerStatus.DONE, "reloaded")


async def test_the_problems_of_a_reload_are_told(store: Store, seal_keys: SealKeys) -> None:
    async with serving(Daemon(Shared(store, seal_keys), problems=["one", "two"])):
        assert await told(store, seal_keys, Verb.RELOAD) == Answer(AnswerStatus.FAILED, "one; two")
    async with serving(Daemon(Shared(store, seal_keys))):
        assert await told(store, seal_keys, Verb.RELOAD) == Answer(AnswerStatus.DONE, "reloaded")

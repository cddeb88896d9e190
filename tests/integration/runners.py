"""Runners on a stage: driven by their mailboxes alone, watched through an observer."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from integration.store_builders import Proxy, until
from palette_sync.assembly.instance import runtime_of
from palette_sync.runner import Runner, RunnerState
from palette_sync.store import lease
from palette_sync.store.redis import Store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    import pytest

    from integration.stage import Stage
    from palette_sync.palette import PaletteClient
    from palette_sync.reconcile.report import PassReport
    from palette_sync.runner import InstanceRuntime


class NoRecorder:
    def request(self, api: str, outcome: str) -> None: ...

    def retry(self, api: str) -> None: ...


class Watcher:
    """Keeps what a runner reported. `on_status` and `on_finished` may raise, or act while the runner waits."""

    def __init__(self) -> None:
        self.reports: list[PassReport] = []
        self.listed: list[bool] = []
        self.failed: list[str] = []
        self.states: list[RunnerState] = []
        self.on_status: Callable[[Runner], None] = lambda _: None
        self.on_finished: Callable[[PassReport], None] = lambda _: None

    def pass_finished(self, report: PassReport, *, listed: bool) -> None:
        self.on_finished(report)
        self.reports.append(report)
        self.listed.append(listed)

    def pass_failed(self, instance: str, reason: str) -> None:
        self.failed.append(reason)

    def store_failed(self, instance: str) -> None:
        pass

    def status_changed(self, runner: Runner) -> None:
        if not self.states or self.states[-1] is not runner.status.state:
            self.states.append(runner.status.state)
        self.on_status(runner)


def runtime(stage: Stage, instance: str = "alpha", **changes: Any) -> InstanceRuntime:
    """The configured instance, with a lease that outlasts any stall; `changes` are fields of `InstanceRuntime`."""
    made = runtime_of(stage.shared, instance, recorder=NoRecorder())
    return replace(made, **({"lease_ttl": 600.0, "holder": "test:1"} | changes))


def look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let leases be renewed, and runners look again, every few milliseconds, however long a lease lasts.

    So what a holder notices is noticed soon, and still no stall of the machine outlasts its lease.
    """
    rest = Runner._rest

    async def brief(self: Runner, seconds: float, *ends: asyncio.Event) -> None:
        await rest(self, min(seconds, 0.05), *ends)

    monkeypatch.setattr(Runner, "_rest", brief)
    monkeypatch.setattr(lease, "RENEWALS", 10_000)


class Running:
    """A runner at work, and what it reported."""

    def __init__(self, stage: Stage, given: InstanceRuntime, watcher: Watcher) -> None:
        self.late = asyncio.Event()
        self.watcher = watcher
        self.runner = Runner(given, watcher, late=self.late, clock=stage.clock)
        self.mailbox, self.status = self.runner.mailbox, self.runner.status
        self.task = asyncio.create_task(self.runner.run(), name="runner:alpha")

    async def reaches(self, state: RunnerState) -> None:
        await until(lambda: self.status.state is state)

    async def resync(self, **options: bool) -> PassReport:
        return await self.mailbox.ask(**options)

    async def passes(self, count: int) -> PassReport:
        """Wait until so many passes were finished; returns the last of them."""
        await until(lambda: len(self.watcher.reports) >= count)
        return self.watcher.reports[count - 1]

    async def nudge(self) -> PassReport:
        """A pass over the known clusters."""
        before = len(self.watcher.reports)
        self.mailbox.nudge()
        return await self.passes(before + 1)

    async def list(self) -> PassReport:
        before = len(self.watcher.reports)
        self.mailbox.tick()
        return await self.passes(before + 1)

    async def stop(self) -> None:
        self.runner.stop()
        await self.task


@asynccontextmanager
async def running(
    stage: Stage, given: InstanceRuntime | None = None, *, watcher: Watcher | None = None
) -> AsyncIterator[Running]:
    """A runner that is stopped at the end; it must end by itself then."""
    one = Running(stage, given or runtime(stage), watcher or Watcher())
    try:
        yield one
        if not one.task.done():
            await one.stop()
    finally:
        one.task.cancel()
        await asyncio.wait({one.task})


def issued(stage: Stage) -> dict[str, int]:
    """How many tokens each cluster's API server granted."""
    return {uid: one.tokens.issued for uid, one in stage.simulator.world.clusters.items() if one.tokens.issued}


async def flush(raw: Any, stage: Stage) -> None:
    """Lose everything that belongs to this stage; other tests share the server."""
    keys = [key async for key in raw.scan_iter(match=f"*{stage.settings.redis.prefix}*", count=1000)]
    await raw.delete(*keys)


async def dump(raw: Any, stage: Stage) -> dict[bytes, bytes]:
    keys = [key async for key in raw.scan_iter(match=f"*{stage.settings.redis.prefix}*", count=1000)]
    return {key: await raw.dump(key) for key in keys}


async def restore(raw: Any, kept: dict[bytes, bytes]) -> None:
    for key, value in kept.items():
        await raw.restore(key, 0, value)


async def through(stage: Stage, proxy: Proxy) -> Store:
    """The stage's store, seen through a proxy."""
    return Store.open(proxy.url, prefix=stage.settings.redis.prefix, sealer=stage.shared.sealer)


class Around:
    """Stands around a Palette client; what a subclass does not have is the client's own."""

    def __init__(self, client: PaletteClient) -> None:
        self._client = client

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._client.__aexit__(*error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


class Gate:
    """Holds up a call of Palette's clients from when it is `reached` until the gate is `opened`; listings search."""

    def __init__(self, call: str = "post_json") -> None:
        self.reached, self.opened = asyncio.Event(), asyncio.Event()
        self._call = call

    def before(self, client: PaletteClient) -> Any:
        around = Around(client)

        async def held_up(*given: Any, **named: Any) -> Any:
            self.reached.set()
            await self.opened.wait()
            return await getattr(client, self._call)(*given, **named)

        setattr(around, self._call, held_up)
        return around

"""Several processes: a standby knows what the leader knows, and the newest memory fills a Redis that lost data."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from integration.runners import Watcher, dump, flush, issued, restore, runtime, through
from integration.store_builders import Proxy, until
from palette_sync.assembly.instance import open_shared
from palette_sync.assembly.store import utc_now
from palette_sync.core.leadership import Decision, Standing
from palette_sync.runner import Runner, RunnerState, instance
from palette_sync.service import membership as membership_module
from palette_sync.service.configuration import ActiveConfiguration
from palette_sync.service.membership import Membership
from palette_sync.simulator import Fault
from palette_sync.store import members as members_module
from palette_sync.store.members import MemberBook

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection
    from datetime import datetime
    from pathlib import Path

    from integration.stage import Stage

# A window of this length is waited for on an empty store, so it is short; leases last longer than any stall.
EXTRA = '[service]\nlease_ttl = "2s"\n'


class Process:
    """One daemon's membership and runner of `alpha`."""

    def __init__(self, stage: Stage, name: str, clock: Callable[[], datetime]) -> None:
        self.watcher = Watcher()
        self.runners: list[Runner] = []
        configuration = ActiveConfiguration(stage.directory, stage.shared, loaded_at=utc_now())
        self.membership = Membership(configuration, self.runners, id=name)  # type: ignore[arg-type]
        given = runtime(stage, holder=f"{name}:1", lease_ttl=2.0)
        self.runner = Runner(given, self.watcher, late=asyncio.Event(), elections=self.membership, clock=clock)
        self.runners.append(self.runner)
        self.tasks = [
            asyncio.create_task(self.membership.run(), name=f"members:{name}"),
            asyncio.create_task(self.runner.run(), name=f"runner:{name}"),
        ]

    @property
    def leads(self) -> bool:
        return self.runner.status.state is RunnerState.LEADING

    async def list(self) -> None:
        self.runner.mailbox.tick()
        done = len(self.watcher.reports)
        await until(lambda: len(self.watcher.reports) > done)

    async def stop(self) -> None:
        """End in order, as after SIGTERM."""
        self.tasks[0].cancel()
        self.membership.draining = True
        await self.membership.drain()
        self.runner.stop()
        await asyncio.wait(self.tasks)
        await self.membership.leave()

    async def kill(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.wait(self.tasks)


@asynccontextmanager
async def company(stage: Stage, *names: str) -> AsyncIterator[list[Process]]:
    """Processes with one Redis, each with a connection of its own."""
    async with AsyncExitStack() as stack:
        processes = []
        for name in names:
            shared = await stack.enter_async_context(open_shared(stage.settings))
            processes.append(Process(replace(stage, shared=shared), name, stage.clock))
            stack.push_async_callback(processes[-1].kill)
        yield processes


async def leader_and_standby(processes: Collection[Process]) -> tuple[Process, Process]:
    await until(lambda: sum(one.leads for one in processes) == 1)
    (leader,) = [one for one in processes if one.leads]
    (standby,) = [one for one in processes if not one.leads]
    return leader, standby


async def test_a_leader_works_again_as_soon_as_redis_answers(
    stage_of: Any, valkey_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instance, "STORE_PAUSES", (600.0,))
    stage: Stage = await stage_of(clusters=1, oidc_share=0.0, extra=EXTRA)
    proxy = Proxy(valkey_url, tmp_path)
    async with await through(stage, proxy) as store:
        process = Process(replace(stage, shared=replace(stage.shared, store=store)), "a", stage.clock)
        async with proxy:
            await until(lambda: process.leads)
        await until(lambda: process.runner._store_failures > 0)
        async with Proxy(valkey_url, tmp_path):
            await until(lambda: process.leads)
            await process.kill()


async def test_a_standby_knows_what_the_leader_publishes(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=3, oidc_share=0.0, extra=EXTRA)
    async with company(stage, "a", "b") as processes:
        leader, standby = await leader_and_standby(processes)
        await leader.list()
        await until(lambda: standby.runner.memory == leader.runner.memory)

        known, state = standby.runner.last_state, await stage.state()
        assert known is not None
        assert known.records == state.records
        assert known.credentials == state.credentials
        assert known.memory == state.memory
        assert known.scopes == state.scopes
        assert standby.runner.status.state is RunnerState.STANDBY
        standby.runner.settle()
        assert standby.runner.status.access == {"ready": 3}


async def test_a_standby_keeps_no_request_that_somebody_waits_for(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=1, oidc_share=0.0, extra=EXTRA)
    async with company(stage, "a", "b") as processes:
        _, standby = await leader_and_standby(processes)
        answer = standby.runner.mailbox.ask(allow_prune=True)

        await until(answer.cancelled)
        assert standby.runner.mailbox.pending.options is None


async def test_a_standby_fills_a_wiped_redis_if_the_leader_died(stage_of: Any, raw: Any) -> None:
    stage: Stage = await stage_of(clusters=3, oidc_share=0.0, extra=EXTRA)
    async with company(stage, "a", "b") as processes:
        leader, standby = await leader_and_standby(processes)
        await leader.list()
        before, tokens = await stage.state(), issued(stage)
        await until(lambda: standby.runner.memory == leader.runner.memory)
        await leader.kill()
        await flush(raw, stage)

        await until(lambda: standby.leads)
        await standby.list()

        after = await stage.state()
        assert after.records == before.records
        assert after.credentials.keys() == before.credentials.keys()
        assert after.head is not None
        assert before.head is not None
        assert after.head.epoch > before.head.epoch
        assert issued(stage) == tokens, "no token is issued anew"


async def test_an_empty_redis_is_not_begun_from_nothing_beside_a_process_that_remembers(
    stage_of: Any, raw: Any
) -> None:
    """The new process asks first: the one that remembers has not noticed yet that Redis lost everything."""
    stage: Stage = await stage_of(clusters=3, oidc_share=0.0, extra=EXTRA)
    async with company(stage, "a") as (first,):
        await until(lambda: first.leads)
        await first.list()
        before, tokens = await stage.state(), issued(stage)
        await flush(raw, stage)
        async with company(stage, "b") as (fresh,):
            fresh.runner.mailbox.tick()
            await until(lambda: _head_of(stage))

            assert (await stage.state()).records == before.records
            assert issued(stage) == tokens
            assert fresh.watcher.reports == []


async def _head_of(stage: Stage) -> bool:
    return (await stage.state()).head is not None


async def test_an_empty_redis_is_not_begun_from_nothing_just_after_it_was_away(
    stage_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While Redis was away nobody could announce itself, so the window begins when it is back."""
    stage: Stage = await stage_of(clusters=1, oidc_share=0.0, extra=EXTRA)
    configuration = ActiveConfiguration(stage.directory, stage.shared, loaded_at=utc_now())
    runner = Runner(runtime(stage, holder="new:1", lease_ttl=2.0), Watcher(), late=asyncio.Event())
    new = Membership(configuration, [runner], id="new")  # type: ignore[arg-type]
    assert (await new.confirm("alpha")).standing is Standing.NO_MEMORY
    real, real_time, away = time.monotonic, MemberBook.server_time, 60.0

    async def later(self: MemberBook) -> datetime:
        return await real_time(self) + timedelta(seconds=away)

    monkeypatch.setattr(MemberBook, "server_time", later)
    monkeypatch.setattr(members_module, "time", SimpleNamespace(monotonic=lambda: real() + away))

    assert (await new.confirm("alpha")).standing is Standing.NO_MEMORY
    for _ in range(4):
        away += 0.6
        last = await new.confirm("alpha")
    assert last.leads


async def test_a_new_process_does_not_lead_before_those_that_redis_names_could_be_heard(
    stage_of: Any, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis came back with older data, of which a new process cannot know that it is older."""
    stage: Stage = await stage_of(clusters=1, oidc_share=0.0, extra=EXTRA)
    await stage.run()
    configuration = ActiveConfiguration(stage.directory, stage.shared, loaded_at=utc_now())
    runner = Runner(runtime(stage, holder="new:1", lease_ttl=2.0), Watcher(), late=asyncio.Event())
    gone = Membership(configuration, [runner], id="gone")  # type: ignore[arg-type]
    assert (await gone.confirm("alpha")).leads
    real = MemberBook.server_time

    async def later(self: MemberBook) -> datetime:
        return await real(self) + timedelta(minutes=1)

    monkeypatch.setattr(MemberBook, "server_time", later)
    new = Membership(configuration, [runner], id="new")  # type: ignore[arg-type]

    assert (await new.confirm("alpha")).standing is Standing.OTHERS_UNHEARD
    moment = time.monotonic()
    monkeypatch.setattr(members_module, "time", SimpleNamespace(monotonic=lambda: moment + 2.1))
    assert (await new.confirm("alpha")).leads


async def test_older_memory_never_fills_a_redis_that_came_back_older(stage_of: Any, raw: Any) -> None:
    stage: Stage = await stage_of(clusters=3, oidc_share=0.0, extra=EXTRA)
    async with company(stage, "a", "b") as processes:
        leader, standby = await leader_and_standby(processes)
        await leader.list()
        await until(lambda: standby.runner.memory == leader.runner.memory)
        older = await dump(raw, stage)
        await standby.kill()  # it hears of nothing any more, as if it were stopped
        stage.advance(hours=17)
        await leader.list()
        newer = await stage.state()
        assert leader.runner.memory > standby.runner.memory  # type: ignore[operator]
        await flush(raw, stage)
        await restore(raw, {key: one for key, one in older.items() if not key.endswith((b":lease", b":members"))})

        found = await standby.membership.confirm("alpha")

        assert not found.leads
        await leader.list()
        after = await stage.state()
        assert {uid: one.issued_at for uid, one in after.credentials.items()} == {
            uid: one.issued_at for uid, one in newer.credentials.items()
        }


async def test_a_drained_leader_hands_over_at_once(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=2, oidc_share=0.0, extra=EXTRA)
    async with company(stage, "a", "b") as processes:
        leader, standby = await leader_and_standby(processes)
        await leader.list()
        stage.simulator.requests.reset()

        await leader.stop()
        await until(lambda: standby.leads)
        await standby.list()

        assert stage.kube_requests() == 0, "the new leader touches no cluster"


async def test_who_ended_is_passed_over_at_once_also_by_those_that_did_not_see_it_drain(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=1, oidc_share=0.0, extra=EXTRA)
    await stage.run()
    configuration = ActiveConfiguration(stage.directory, stage.shared, loaded_at=utc_now())
    both = {
        name: Membership(configuration, [Runner(runtime(stage), Watcher(), late=asyncio.Event())], id=name)  # type: ignore[arg-type]
        for name in ("a", "b")
    }
    for _ in range(2):
        decided = {name: await one.confirm("alpha") for name, one in both.items()}
    (leader,) = [name for name, one in decided.items() if one.leads]
    (standby,) = both.keys() - {leader}

    await both[leader].drain()
    await both[leader].leave()

    assert (await both[standby].confirm("alpha")).leads
    await both[standby].leave()
    third = Membership(configuration, [Runner(runtime(stage), Watcher(), late=asyncio.Event())], id="c")  # type: ignore[arg-type]
    assert (await third.confirm("alpha")).standing is not Standing.OTHERS_UNHEARD, "nobody has to be waited for"


async def test_a_process_that_should_not_lead_any_more_hands_over_between_passes(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=1, oidc_share=0.0, extra=EXTRA)
    async with company(stage, "a", "b") as processes:
        leader, standby = await leader_and_standby(processes)
        await leader.list()

        leader.membership.draining = True

        await until(lambda: standby.leads and not leader.leads)
        await standby.list()
        assert leader.runner.status.detail.startswith("Draining")


@pytest.mark.parametrize("standing", [Standing.ANOTHER_LEADS, Standing.STEPPED_BACK])
async def test_an_instance_moves_only_after_a_while(stage_of: Any, standing: Standing) -> None:
    stage: Stage = await stage_of(clusters=1, extra=EXTRA)
    async with company(stage, "a") as (one,):
        await until(lambda: one.leads)
        one.membership._decisions["alpha"] = Decision(standing, "b")
        assert not one.runner._hands_over()
        one.runner._clock = lambda: stage.clock() + timedelta(minutes=1)
        assert one.runner._hands_over()


async def test_a_process_whose_keys_do_not_verify_what_is_published_stands_by(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=1, oidc_share=0.0, extra=EXTRA)
    async with company(stage, "a", "b") as processes:
        leader, standby = await leader_and_standby(processes)
        await leader.list()
        place = standby.membership._places["alpha"]
        await until(lambda: place.order is not None)
        real = standby.membership.configuration.shared.store.newest

        async def unverified(instance: str) -> Any:
            await real(instance)
            return None, False

        standby.membership.configuration.shared.store.newest = unverified  # type: ignore[method-assign]
        await until(lambda: standby.membership.decision("alpha") == Decision(Standing.KEYS_DIFFER))


@pytest.mark.parametrize("standing", [Standing.ANOTHER_LEADS, Standing.STEPPED_BACK])
async def test_a_lease_that_nobody_takes_is_taken_in_the_end(
    stage_of: Any, monkeypatch: pytest.MonkeyPatch, standing: Standing
) -> None:
    stage: Stage = await stage_of(clusters=1, extra=EXTRA)
    monkeypatch.setattr(membership_module, "decide", lambda *_given, **_named: Decision(standing, "elsewhere"))
    async with company(stage, "a") as (one,):
        await until(lambda: one.leads)


async def test_an_older_configuration_leads_only_while_nobody_has_the_newest(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=1, oidc_share=0.0, extra=EXTRA)
    async with company(stage, "a", "b") as processes:
        leader, standby = await leader_and_standby(processes)
        await leader.list()
        configuration = standby.membership.configuration
        changed = stage.settings.model_copy(
            update={"service": stage.settings.service.model_copy(update={"concurrency": 3})}
        )
        configuration.shared = replace(configuration.shared, settings=changed)
        configuration.loaded_at += timedelta(seconds=1)

        await until(lambda: standby.leads and not leader.leads)

        assert leader.membership.decision("alpha") == Decision(Standing.CONFIG_DIFFERS, standby.membership.id)
        await standby.stop()
        await until(lambda: leader.leads)


async def test_nothing_is_published_as_complete_at_once_where_palette_lists_nothing(stage_of: Any) -> None:
    """Redis lost everything and nobody remembers; readers hold clusters, and the API key has lost its roles."""
    stage: Stage = await stage_of(clusters=0)

    await stage.run()
    first = (await stage.state()).head
    stage.advance(minutes=9)
    await stage.run()
    stage.advance(minutes=2)
    await stage.run(known_only=True)
    second = (await stage.state()).head
    await stage.run()
    third = (await stage.state()).head

    assert [one is not None and (one.version, one.complete) for one in (first, second, third)] == [
        (1, False),
        (1, False),
        (2, True),
    ]


async def test_an_operator_confirms_that_palette_is_empty(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=0)

    await stage.run(allow_prune=True)

    head = (await stage.state()).head
    assert head is not None
    assert head.complete


async def test_a_listing_that_failed_publishes_nothing_where_nothing_is_published(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=2)
    stage.simulator.faults.add(Fault(target="palette", kind="status", status=401))

    await stage.run()

    assert (await stage.state()).head is None

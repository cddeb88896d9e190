"""Redis fails while a runner works: nothing is issued that could not be published, and nothing is lost."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from integration.runners import flush, issued, running, runtime, through
from integration.store_builders import Proxy, until
from palette_sync.reconcile import publish
from palette_sync.runner import RunnerState
from palette_sync.simulator import Fault
from palette_sync.store import batches
from palette_sync.store.redis import Store

if TYPE_CHECKING:
    from pathlib import Path

    from integration.stage import Stage

VERSION = b"version\r\n$1\r\n1\r\n"  # how Redis is sent a version: the field name, the schema, then the number


async def test_while_redis_is_down_nothing_is_issued_and_requests_are_kept(
    stage_of: Any, valkey_url: str, tmp_path: Path
) -> None:
    stage: Stage = await stage_of(clusters=2, oidc_share=0.0)
    proxy = Proxy(valkey_url, tmp_path)
    async with await through(stage, proxy) as store:
        stage.shared = replace(stage.shared, store=store)
        async with running(stage) as one:
            with capture_logs() as logs:
                await one.reaches(RunnerState.STORELESS)
                await until(lambda: one.runner._store_failures >= 2)
                async with proxy:
                    await one.list()
                    stage.advance(hours=17)
                one.mailbox.nudge()
                await one.reaches(RunnerState.STORELESS)

                assert set(issued(stage).values()) == {1}, "a token could not have been published"
                async with Proxy(valkey_url, tmp_path):
                    report = await one.passes(2)
                    await one.stop()

            assert (report.due, set(issued(stage).values())) == (2, {2})
            events = [line["event"] for line in logs if line["event"].startswith("store_")]
            assert events == ["store_away", "store_back", "store_away", "store_back"], "said once each"
    assert one.watcher.failed == ["StoreUnavailable"]


async def test_an_outage_that_outlasts_the_lease_is_no_standby(stage_of: Any, valkey_url: str, tmp_path: Path) -> None:
    """Metrics of an instance that another process leads are dropped; while Redis is down they must stay."""
    stage: Stage = await stage_of(clusters=1, oidc_share=0.0)
    proxy = Proxy(valkey_url, tmp_path)
    async with await through(stage, proxy) as store:
        stage.shared = replace(stage.shared, store=store)
        async with running(stage, runtime(stage, lease_ttl=0.3)) as one:
            async with proxy:
                await one.list()
            await until(lambda: one.runner._store_failures > 0)
            async with Proxy(valkey_url, tmp_path):
                await one.reaches(RunnerState.LEADING)
                await one.stop()

    assert RunnerState.STORELESS in one.watcher.states
    assert RunnerState.STANDBY not in one.watcher.states


async def test_what_was_published_before_redis_went_down_empty_in_the_middle_of_a_pass_is_not_issued_again(
    stage_of: Any, raw: Any, valkey_url: str, tmp_path: Path
) -> None:
    stage: Stage = await stage_of(clusters=4, oidc_share=0.0)
    slow = next(iter(stage.simulator.world.clusters))
    stage.simulator.faults.add(Fault(target="kube", kind="latency", cluster=slow, seconds=1.0))
    proxy = Proxy(valkey_url, tmp_path)
    async with await through(stage, proxy) as store:
        stage.shared = replace(stage.shared, store=store)
        async with running(stage) as one:
            async with proxy:
                await one.reaches(RunnerState.LEADING)
                one.mailbox.tick()
                async with Store.open(valkey_url, prefix=store.keys.prefix, sealer=stage.shared.sealer) as direct:
                    await until(lambda: _credentials(direct))
                    early = set((await direct.load("alpha")).credentials)
            assert slow not in early
            await flush(raw, stage)
            stage.simulator.faults.clear()
            await one.reaches(RunnerState.STORELESS)
            async with Proxy(valkey_url, tmp_path):
                assert dict((await one.passes(1)).access) == {"ready": 4}
                await one.stop()

    assert {uid: count for uid, count in issued(stage).items() if uid in early} == dict.fromkeys(early, 1)


async def test_tokens_that_were_issued_before_redis_died_and_not_published_are_published_once_it_is_back(
    stage_of: Any, valkey_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage: Stage = await stage_of(clusters=4, oidc_share=0.0)
    proxy = Proxy(valkey_url, tmp_path)
    monkeypatch.setattr(publish, "LAST_TRIES", ())
    async with await through(stage, proxy) as store:
        stage.shared = replace(stage.shared, store=store)
        async with running(stage) as one:
            async with proxy:
                await one.list()
                stage.advance(hours=17)
                slow = next(iter(stage.simulator.world.clusters))
                stage.simulator.faults.add(Fault(target="kube", kind="latency", cluster=slow, seconds=0.3))
                proxy.refuse = VERSION  # as if Redis refused versions, but not yet the lease
                one.mailbox.nudge()
                await until(lambda: sum(issued(stage).values()) >= 7)
                await until(lambda: proxy.lost > 0)
            stage.simulator.faults.clear()
            await one.reaches(RunnerState.STORELESS)
            before = issued(stage)
            async with Proxy(valkey_url, tmp_path):
                await one.passes(2)
                await one.stop()
                state = await stage.state()
                pods = [await stage.pods(uid) for uid in state.records]

    assert sum(before.values()) >= 7
    assert {uid: issued(stage)[uid] - count for uid, count in before.items()} == {
        uid: int(before[uid] == 1) for uid in before
    }, "only what had not been issued is"
    assert all(pods)


async def test_an_interrupted_refill_starts_again(
    stage_of: Any, raw: Any, valkey_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage: Stage = await stage_of(clusters=6, oidc_share=0.0)
    monkeypatch.setattr(batches, "MOST_CHANGES", 4)
    proxy = Proxy(valkey_url, tmp_path)
    async with await through(stage, proxy) as store:
        stage.shared = replace(stage.shared, store=store)
        async with running(stage) as one, proxy:
            await one.list()
            before, tokens = await stage.state(), issued(stage)
            await flush(raw, stage)
            proxy.refuse = VERSION + b"$1\r\n2\r\n"  # the second version never arrives
            one.mailbox.tick()
            await until(lambda: one.runner._store_failures > 0)
            part = await stage.state()
            assert part.head is not None
            assert 0 < len(part.records) < 6
            proxy.refuse = None
            await one.passes(2)
            after = await stage.state()
            await one.stop()

    assert after.records == before.records
    assert after.head is not None
    assert after.head.complete
    assert issued(stage) == tokens


async def _credentials(store: Store) -> int:
    return len((await store.load("alpha")).credentials)


async def test_a_store_that_refuses_versions_is_tried_less_and_less_often_and_nothing_is_issued(
    stage_of: Any, raw: Any
) -> None:
    stage: Stage = await stage_of(clusters=2, oidc_share=0.0)
    key = stage.shared.store.keys.history("alpha")
    await raw.lpush(key, "somebody else's")
    async with running(stage) as one:
        with capture_logs() as logs:
            one.mailbox.tick()
            await until(lambda: one.runner._store_failures >= 3)

            assert "holds another kind of value" in one.status.detail
            assert issued(stage) == {}
            assert stage.simulator.requests.count("palette") == 0
            await raw.delete(key)
            await one.passes(1)
            await until(lambda: one.status.busy_since is None)
        assert [line["event"] for line in logs if line["event"].startswith("store_")] == ["store_away", "store_back"]
        assert one.runner._store_failures == 0

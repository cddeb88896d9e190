"""Redis lost data, or others changed it: a runner publishes again what it knows, and issues no new token."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from integration.runners import dump, flush, issued, look_often, restore, running
from integration.store_builders import until
from palette_sync.core.model import AccessState
from palette_sync.core.reasons import Reason
from palette_sync.runner import RunnerState
from palette_sync.simulator import Fault

if TYPE_CHECKING:
    from integration.stage import Stage


async def test_redis_flushed_between_passes_is_filled_again_and_no_token_issued(stage_of: Any, raw: Any) -> None:
    stage: Stage = await stage_of(clusters=4, oidc_share=0.5)
    async with running(stage) as one:
        await one.list()
        before, tokens = await stage.state(), issued(stage)
        await flush(raw, stage)

        with capture_logs() as logs:
            await one.resync()

        after = await stage.state()
        assert "store_refilled" in [line["event"] for line in logs]
        assert after.trusted
        assert after.head is not None
        assert after.head.complete
        assert after.head.epoch > before.head.epoch  # type: ignore[union-attr]
        assert after.records == before.records
        assert after.issuers.keys() == before.issuers.keys()
        assert issued(stage) == tokens
        for uid in tokens:
            assert await stage.pods(uid) > 0


async def test_a_flushed_redis_is_noticed_without_a_request(
    stage_of: Any, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_often(monkeypatch)
    stage: Stage = await stage_of(clusters=2, oidc_share=0.0)
    async with running(stage) as one:
        await one.list()
        before = await stage.state()
        await flush(raw, stage)

        await until(lambda: _published(stage))

        assert (await stage.state()).records == before.records
    assert sum(issued(stage).values()) == 2


async def _published(stage: Stage) -> bool:
    return (await stage.state()).head is not None


async def test_redis_that_comes_back_with_older_data_is_filled_again(stage_of: Any, raw: Any) -> None:
    stage: Stage = await stage_of(clusters=2, oidc_share=0.0)
    async with running(stage) as one:
        await one.list()
        older = await dump(raw, stage)
        stage.advance(hours=17)
        await one.list()
        newer, tokens = await stage.state(), issued(stage)
        assert set(tokens.values()) == {2}
        await flush(raw, stage)
        await restore(raw, older)

        await one.resync()

        after = await stage.state()
        assert after.credentials.keys() == newer.credentials.keys()
        assert {uid: one.issued_at for uid, one in after.credentials.items()} == {
            uid: one.issued_at for uid, one in newer.credentials.items()
        }
        assert issued(stage) == tokens
        # Readers have seen the versions that Redis lost, so their numbers are used only in another epoch.
        assert newer.head is not None
        assert after.head is not None
        assert after.head.epoch > newer.head.epoch


async def test_a_dead_token_stays_withdrawn_when_redis_comes_back_with_older_data(stage_of: Any, raw: Any) -> None:
    """The next failed attempt must not offer readers the token that the API server has refused."""
    stage: Stage = await stage_of(clusters=1, oidc_share=0.0)
    (cluster,) = stage.simulator.world.clusters.values()
    async with running(stage) as one:
        await one.list()
        older = await dump(raw, stage)
        cluster.tokens.revoke_all()
        stage.simulator.world.set_admin_download(cluster.uid, allowed=False)
        await one.resync()
        await until(lambda: _withdrawn(stage))
        await flush(raw, stage)
        await restore(raw, older)
        await raw.delete(stage.shared.store.keys.lease("alpha"))  # it was restored too, and would only expire later
        stage.simulator.world.set_admin_download(cluster.uid, allowed=True)
        stage.simulator.faults.add(Fault(target="kube", kind="status", status=503))

        await one.resync()
        await until(lambda: _failed(stage, cluster.uid, Reason.SERVER_FAILURE))

        after = await stage.state()
        assert after.records[cluster.uid].access.state is AccessState.FAILED
        assert not after.credentials


async def _withdrawn(stage: Stage) -> bool:
    return not (await stage.state()).credentials


async def _failed(stage: Stage, uid: str, reason: Reason) -> bool:
    return (await stage.state()).records[uid].access.reason is reason


async def test_older_data_with_the_same_content_is_published_anew_because_readers_hold_a_newer_version(
    stage_of: Any, raw: Any
) -> None:
    stage: Stage = await stage_of(clusters=2, oidc_share=0.0)
    async with running(stage) as one:
        await one.list()
        older = await dump(raw, stage)
        await flush(raw, stage)
        await one.resync()
        newer = await stage.state()
        await flush(raw, stage)
        await restore(raw, older)
        await raw.delete(stage.shared.store.keys.lease("alpha"))  # it was restored too, and would only expire later

        await one.resync()

        after = await stage.state()
        assert after.records == newer.records
        assert newer.head is not None
        assert after.head is not None
        assert (after.head.epoch, after.head.version) > (newer.head.epoch, newer.head.version)
        assert one.runner.memory == (after.head.epoch, after.head.version)


async def test_a_tampered_record_is_repaired_from_memory(stage_of: Any, raw: Any) -> None:
    stage: Stage = await stage_of(clusters=3, oidc_share=0.0)
    async with running(stage) as one:
        await one.list()
        before, tokens = await stage.state(), issued(stage)
        uid = next(iter(before.records))
        key = stage.shared.store.keys.clusters("alpha")
        evil = (await raw.hget(key, uid)).replace(b"https://127.0.0.1", b"https://127.0.0.9")
        await raw.hset(key, uid, evil)
        assert not (await stage.state()).trusted

        await one.list()

        after = await stage.state()
        assert after.trusted
        assert after.records == before.records
        assert issued(stage) == tokens


async def test_a_version_of_somebody_else_is_a_conflict_that_the_next_look_resolves(stage_of: Any, raw: Any) -> None:
    stage: Stage = await stage_of(clusters=2, oidc_share=0.0)
    async with running(stage) as one:
        await one.list()
        await raw.hset(stage.shared.store.keys.head("alpha"), "version", "41")
        stage.advance(hours=17)

        with capture_logs() as logs:
            report = await one.nudge()

        assert "store_changed" in [line["event"] for line in logs]
        assert report.error is None
        state = await stage.state()
        assert state.trusted
        assert state.head.version > 41  # type: ignore[union-attr]
        assert one.status.state is RunnerState.LEADING
        for uid in state.records:
            assert await stage.pods(uid) > 0


async def test_a_token_that_no_key_opens_any_more_is_replaced_after_a_flush(stage_of: Any, raw: Any) -> None:
    stage: Stage = await stage_of(clusters=2, oidc_share=0.0)
    async with running(stage) as one:
        await one.list()
        memory = one.runner._last_published.state
        assert memory is not None
        lost = next(iter(memory.credentials))
        one.runner._last_published.state = replace(
            memory, credentials={**memory.credentials, lost: replace(memory.credentials[lost], sealed="no jwe")}
        )
        await flush(raw, stage)

        await one.list()

        assert (await stage.state()).credentials.keys() == memory.credentials.keys()
        assert issued(stage) == {uid: 1 + (uid == lost) for uid in memory.credentials}


async def test_after_a_flush_no_token_is_issued_that_the_fence_would_lose(stage_of: Any, raw: Any) -> None:
    stage: Stage = await stage_of(clusters=2, oidc_share=0.0)
    async with running(stage) as one:
        await one.list()
        await flush(raw, stage)
        stage.advance(hours=17)

        await one.nudge()

        assert set(issued(stage).values()) == {2}
        for uid in issued(stage):
            assert await stage.pods(uid) > 0


@pytest.mark.parametrize("version", ["x", "-1", "9" * 20, "9" * 5000])
async def test_a_damaged_head_is_repaired_from_memory(stage_of: Any, raw: Any, version: str) -> None:
    stage: Stage = await stage_of(clusters=2, oidc_share=0.0)
    async with running(stage) as one:
        await one.list()
        before, tokens = await stage.state(), issued(stage)
        await raw.hset(stage.shared.store.keys.head("alpha"), "version", version)

        await one.list()

        after = await stage.state()
        assert (after.trusted, after.records) == (True, before.records)
        assert issued(stage) == tokens
        assert await stage.pods(next(iter(after.records))) > 0


async def test_a_redis_whose_clock_is_behind_gets_a_higher_epoch_after_it_lost_everything(
    stage_of: Any, raw: Any
) -> None:
    stage: Stage = await stage_of(clusters=2, oidc_share=0.0)
    seconds, _ = await raw.time()
    await raw.set(stage.shared.store.keys.epoch("alpha"), str((int(seconds) + 3600) * 1000))
    async with running(stage) as one:
        await one.list()
        before = await stage.state()
        await flush(raw, stage)

        await one.resync()

        after = await stage.state()
        assert before.head is not None
        assert after.head is not None
        assert after.head.epoch > before.head.epoch, "readers refuse a lower epoch"
        assert after.records == before.records

"""One leader per instance: a runner stands by, takes over, and notices that it lost its lease."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from integration.runners import issued, look_often, running, runtime
from integration.store_builders import until
from palette_sync.runner import RunnerState
from palette_sync.store.lease import Lease

if TYPE_CHECKING:
    from integration.stage import Stage


async def test_behind_another_holder_it_stands_by_and_takes_over(
    stage_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_often(monkeypatch)
    stage: Stage = await stage_of(clusters=2, oidc_share=0.0)
    await stage.run()
    async with running(stage) as one:
        await one.list()
        await one.stop()
    looks, take = [0], Lease.acquire

    async def counted(*given: Any, **named: Any) -> Any:
        looks[0] += 1
        return await take(*given, **named)

    lease = await Lease.acquire(stage.shared.store.link, stage.shared.store.keys, "alpha", ttl=600, holder="host-b:77")
    monkeypatch.setattr(Lease, "acquire", counted)
    async with running(stage) as one:
        with capture_logs() as logs:
            await one.reaches(RunnerState.STANDBY)
            assert "process 77 on host-b" in one.status.detail
            assert one.status.read, "a standby serves what the other published"
            assert one.status.access == {"ready": 2}
            one.mailbox.resync()
            seen = looks[0]
            await until(lambda: looks[0] >= seen + 3)
            assert one.watcher.reports == []
            await lease.release()
            report = await one.passes(1)

        assert [line["event"] for line in logs if line["event"] == "standing_by"] == ["standing_by"], "logged once"
        assert (report.due, one.status.state) == (2, RunnerState.LEADING), "what was asked for meanwhile was kept"
    assert sum(issued(stage).values()) == 2


async def test_of_two_daemons_one_leads_and_the_other_takes_over_without_touching_a_cluster(
    stage_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_often(monkeypatch)
    stage: Stage = await stage_of(clusters=3, oidc_share=0.0)
    async with running(stage, runtime(stage, holder="a:1")) as first:
        await first.list()
        async with running(stage, runtime(stage, holder="b:2")) as second:
            await second.reaches(RunnerState.STANDBY)
            second.mailbox.tick()
            stage.simulator.requests.reset()
            await first.stop()
            report = await second.passes(1)

            assert (report.due, report.changes, stage.kube_requests()) == (0, (), 0)
            assert second.status.state is RunnerState.LEADING
    assert set(issued(stage).values()) == {1}


async def test_fenced_off_by_another_writer_it_leads_again_with_a_new_epoch(stage_of: Any, raw: Any) -> None:
    stage: Stage = await stage_of(clusters=2, oidc_share=0.0)
    async with running(stage) as one:
        await one.list()
        key = stage.shared.store.keys.epoch("alpha")
        another = int(await raw.get(key)) + 1_000_000
        await raw.set(key, str(another))

        report = await one.resync()

        assert report.error is None
        assert int(await raw.get(key)) == another + 1
        assert RunnerState.STORELESS in one.watcher.states
        assert RunnerState.STANDBY not in one.watcher.states, "nobody else leads"
        assert one.status.state is RunnerState.LEADING
        assert one.watcher.failed == ["Fenced"]


async def test_a_lease_that_was_taken_away_is_noticed_without_a_request(
    stage_of: Any, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_often(monkeypatch)
    stage: Stage = await stage_of(clusters=1)
    async with running(stage) as one:
        await one.reaches(RunnerState.LEADING)
        await raw.set(stage.shared.store.keys.lease("alpha"), '{"holder":"host-b:9"}')
        await raw.incr(stage.shared.store.keys.epoch("alpha"))

        await one.reaches(RunnerState.STANDBY)
        await raw.delete(stage.shared.store.keys.lease("alpha"))
        await one.reaches(RunnerState.LEADING)


async def test_after_an_outage_its_own_former_lease_does_not_hold_it_up(stage_of: Any, raw: Any) -> None:
    stage: Stage = await stage_of(clusters=1, oidc_share=0.0)
    key = stage.shared.store.keys.lease("alpha")
    async with running(stage) as one:
        await one.list()
        held = await raw.get(key)
        epoch = int(await raw.get(stage.shared.store.keys.epoch("alpha")))
        one.runner._former_lease.lost.set()  # type: ignore[union-attr]
        await until(lambda: RunnerState.STORELESS in one.watcher.states)
        await raw.set(key, held)  # as if it could not have been given back

        await one.reaches(RunnerState.LEADING)

        assert int(await raw.get(stage.shared.store.keys.epoch("alpha"))) > epoch
        await one.list()

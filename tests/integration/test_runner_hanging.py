"""A runner and clusters that hang: nobody waits for them, and nothing that is done in them is lost."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from integration.runners import issued, running
from integration.store_builders import until
from palette_sync.core.due import SUSPICION
from palette_sync.core.model import AccessState
from palette_sync.core.reasons import Reason
from palette_sync.reconcile import lanes
from palette_sync.runner import mailbox
from palette_sync.simulator import Fault

if TYPE_CHECKING:
    from integration.stage import Stage

HANG = 'cluster_timeout = "3s"'


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clusters count as hanging sooner, and as busy only where they would not in these tests."""
    monkeypatch.setattr(lanes, "LEAVE_AFTER", 0.6)
    monkeypatch.setattr(lanes, "LAG", 600.0)


def hang(stage: Stage, uid: str, **changes: Any) -> Any:
    return stage.simulator.faults.add(Fault(target="kube", kind="hang", cluster=uid, **changes))


async def test_a_pass_does_not_wait_for_a_cluster_that_hangs(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=3, oidc_share=0.0, extra=f"[defaults]\n{HANG}\n")
    silent, *others = stage.simulator.world.clusters
    hang(stage, silent)
    async with running(stage) as one:
        report = await one.list()

        assert dict(report.access) == {"ready": 2}, "a new cluster is not listed before the first pass is complete"
        assert any("have not answered" in note for note in report.notes)
        assert not (await stage.state()).head.complete  # type: ignore[union-attr]

        await one.passes(2)
        state = await stage.state()
        assert state.head is not None
        assert state.head.complete
        assert (state.records[silent].access.state, state.records[silent].access.reason) == ("failed", "Unreachable")
        assert state.memory[silent].hung
        assert state.memory[silent].failures == 1
        assert {uid: state.records[uid].access.state for uid in others} == dict.fromkeys(others, AccessState.READY)


async def test_what_was_issued_beside_the_passes_is_published(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=2, oidc_share=0.0)
    slow = next(iter(stage.simulator.world.clusters))
    stage.simulator.faults.add(Fault(target="kube", kind="latency", cluster=slow, seconds=1.0, times=2))
    async with running(stage) as one:
        assert dict((await one.list()).access) == {"ready": 1}

        await until(lambda: one.status.access == {"ready": 2})
        assert set(issued(stage).values()) == {1}
        assert (await stage.state()).head.complete  # type: ignore[union-attr]
        assert await stage.pods(slow) > 0


async def test_a_stop_publishes_what_is_issued_beside_the_passes(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=2, oidc_share=0.0)
    slow = next(iter(stage.simulator.world.clusters))
    stage.simulator.faults.add(Fault(target="kube", kind="latency", cluster=slow, seconds=1.0, times=2))
    async with running(stage) as one:
        await one.list()
        await until(lambda: issued(stage).get(slow) == 1)
        assert not one.runner.idle

        await one.stop()

    assert (await stage.record(slow)).access.state is AccessState.READY
    assert await stage.pods(slow) > 0


async def test_a_runner_that_waits_only_for_silent_clusters_is_idle_and_ends_at_once(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=1, oidc_share=0.0)  # with ten minutes for each cluster
    (silent,) = stage.simulator.world.clusters
    hang(stage, silent)
    async with running(stage) as one:
        await one.list()

        assert one.runner.idle
        await one.stop()

    assert silent not in (await stage.state()).records


async def test_a_cluster_that_hung_rests_and_then_uses_a_place_of_its_own(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=2, oidc_share=0.0, extra=f"[defaults]\n{HANG}\n")
    silent, _ = stage.simulator.world.clusters
    fault = hang(stage, silent)
    async with running(stage) as one:
        await one.list()
        await until(lambda: one.status.access == {"ready": 1, "failed": 1})
        assert (await one.list()).due == 0, "it rests"

        stage.advance(minutes=1)
        assert silent not in {change.uid for change in (await one.nudge()).changes}, "nobody waits for it"
        await until(lambda: len(one.watcher.reports) >= 1 and one.status.busy_since is None)
        stage.simulator.faults.remove(fault)
        stage.advance(minutes=30)
        one.mailbox.nudge()
        await until(lambda: one.status.access == {"ready": 2})

    memory = (await stage.state()).memory[silent]
    assert (memory.failures, memory.hung) == (0, False)


async def test_a_long_pass_ends_early_once_something_else_is_wanted_and_goes_on_by_urgency(
    stage_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mailbox, "URGENT_AFTER", 0.0)
    extra = "[service]\nconcurrency = 1\n"
    stage: Stage = await stage_of(clusters=8, oidc_share=0.0, extra=extra, latency=0.02)
    async with running(stage) as one:
        await one.list()
        asked = one.mailbox.ask()
        await until(lambda: stage.simulator.requests.count("kube") > 100)
        one.mailbox.nudge()

        report = await asked

    reports = one.watcher.reports
    assert len(reports) >= 3
    assert reports[1].postponed
    assert report.due == 8, "whoever asked for a resync gets the report of all of its passes"
    assert not report.postponed
    assert [one.due for one in reports[1:]] != [8]
    assert sum(one.due - len(one.postponed) for one in reports[1:]) == 8


async def test_one_refused_token_makes_the_others_be_verified_within_minutes(
    stage_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For example after the signing key or the audience of all clusters was changed."""
    monkeypatch.setattr("palette_sync.kube.tokens.PROOF_PAUSES", (0.0,))
    stage: Stage = await stage_of(clusters=6, oidc_share=0.0)
    async with running(stage) as one:
        await one.list()
        stage.advance(minutes=1)
        for cluster in stage.simulator.world.clusters.values():
            cluster.tokens.revoke_all()
        first = next(iter(stage.simulator.world.clusters))
        stage.simulator.world.set_health(first, "UnHealthy")

        await one.list()
        assert sum(issued(stage).values()) == 7, "the one that Palette reports on"
        assert one.status.wakes_at is not None
        assert one.status.wakes_at <= stage.clock() + SUSPICION

        for _ in range(10):
            stage.advance(seconds=SUSPICION.total_seconds() / 10)
            await one.nudge()

        assert set(issued(stage).values()) == {2}
        assert dict((await one.list()).access) == {"ready": 6}


async def test_a_record_says_that_its_token_lapsed_at_that_second(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=1, oidc_share=0.0)
    (uid,) = stage.simulator.world.clusters
    async with running(stage) as one:
        await one.list()
        end = (await stage.state()).credentials[uid].expires_at
        assert end is not None
        stage.simulator.world.set_admin_download(uid, allowed=False)
        stage.advance(seconds=(end - stage.clock()).total_seconds() - 5)
        await one.nudge()  # the renewal fails
        assert one.status.access == {"degraded": 1}
        assert one.status.wakes_at is not None
        assert one.status.wakes_at <= end

        stage.advance(seconds=5)
        assert one.runner.settle(), "the status does not wait for a pass"
        assert one.status.reasons == {("failed", "TokenLapsed"): 1}
        assert not one.runner.settle()
        report = await one.nudge()

    assert [change.reason for change in report.changes] in ([Reason.TOKEN_LAPSED], [Reason.KUBECONFIG_FORBIDDEN])
    assert (await stage.record(uid)).access.state is AccessState.FAILED


async def test_resyncs_in_an_outage_do_not_lengthen_the_rest(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=1, oidc_share=0.0)
    (uid,) = stage.simulator.world.clusters
    async with running(stage) as one:
        await one.list()
        fault = stage.simulator.faults.add(Fault(target="kube", kind="drop", cluster=uid))
        await one.resync()
        memory = (await stage.state()).memory[uid]
        for _ in range(4):
            stage.advance(seconds=1)
            await one.resync()

        again = (await stage.state()).memory[uid]
        assert (again.failures, again.retry_at) == (1, memory.retry_at)
        assert again.retry_at is not None
        assert again.retry_at - stage.clock() < timedelta(seconds=30)

        stage.simulator.faults.remove(fault)
        await one.resync()
        assert one.status.access == {"ready": 1}

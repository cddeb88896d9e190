"""When a runner works on known clusters: what is due wakes it, without a listing of Palette."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from integration.runners import Watcher, issued, running
from integration.store_builders import until
from palette_sync.simulator import Fault

if TYPE_CHECKING:
    from integration.stage import Stage

SEARCH = "/v1/dashboard/spectroclusters/search"


async def test_it_knows_when_the_first_thing_will_be_due(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=3, oidc_share=0.0)
    async with running(stage) as one:
        assert one.runner.due_queue(5) == []
        await one.list()
        queue = one.runner.due_queue(2)

        assert len(queue) == 2
        assert one.status.wakes_at == queue[0][0] > stage.clock()
        assert {uid for _, uid in queue} <= stage.simulator.world.clusters.keys()
        assert one.status.first_lapse is not None


async def test_a_nudge_renews_what_is_due_without_asking_palette_what_there_is(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=2, oidc_share=0.0)
    async with running(stage) as one:
        await one.list()
        stage.advance(hours=17)
        stage.simulator.requests.reset()

        report = await one.nudge()

        assert {change.reason for change in report.changes} <= {"TokenDue"}
        assert issued(stage) == dict.fromkeys(stage.simulator.world.clusters, 2)
        assert stage.simulator.requests.count("palette", path_regex=SEARCH) == 0
        assert one.watcher.listed == [True, False]


async def test_known_passes_that_find_nothing_come_further_and_further_apart(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=1, oidc_share=0.0)
    watcher = Watcher()
    async with running(stage, watcher=watcher) as one:
        await one.list()
        quiet = []
        for _ in range(9):
            await one.nudge()
            quiet.append(one.runner._pause)
        assert quiet == [0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0]
        stage.advance(hours=17)
        await one.nudge()
        assert one.runner._pause == 0.2


async def test_what_is_overdue_wakes_it_only_after_a_pause(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=1, oidc_share=0.0)
    async with running(stage) as one:
        await one.list()
        stage.simulator.faults.add(Fault(target="palette", kind="status", status=503, path="adminKubeconfig"))
        stage.advance(hours=17)
        await one.nudge()
        now = stage.clock()

        assert one.status.renewals_failing == 1
        assert one.status.wakes_at is not None
        assert now + timedelta(seconds=10) < one.status.wakes_at < now + timedelta(minutes=1), "the backoff's end"

        stage.advance(minutes=5)
        await one.runner._update_status(one.runner._publisher)  # type: ignore[arg-type]
        assert one.status.wakes_at == stage.clock() + timedelta(seconds=0.2)


async def test_a_nudge_that_came_during_a_pass_is_answered_by_it(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=1, oidc_share=0.0)
    watcher = Watcher()
    async with running(stage, watcher=watcher) as one:
        watcher.on_finished = lambda _: None
        one.mailbox.tick()
        await until(lambda: one.status.busy_since is not None)
        one.mailbox.nudge()
        await one.passes(1)
        await until(lambda: one.status.busy_since is None)

        assert not one.mailbox.wanted.is_set()
        assert len(watcher.reports) == 1


@pytest.mark.parametrize("skew", [-90_000, -3_700, -240, 240, 3_700])
async def test_a_cluster_whose_clock_is_wrong_has_tokens_that_live_as_long_as_they_seem(
    stage_of: Any, skew: float
) -> None:
    stage: Stage = await stage_of(clusters=2, oidc_share=0.0)
    stage.simulator.world.advance(skew)
    for uid in stage.simulator.world.clusters:
        stage.simulator.world.set_token_cap(uid, 900)
    begun = stage.clock()

    await stage.run()
    again = await stage.run()

    assert again.due == 0
    for credential in (await stage.state()).credentials.values():
        assert credential.expires_at is not None
        # Measured by our clock, not the cluster's, from the start of the pass, which takes less than a minute.
        assert timedelta(0) <= credential.issued_at - begun.replace(microsecond=0) < timedelta(minutes=1)
        assert (credential.expires_at - credential.issued_at).total_seconds() == 900

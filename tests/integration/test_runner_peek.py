"""A runner peeks between listings: what is new gets access at once, and a look that finds nothing costs no version."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from integration.runners import running
from integration.store_builders import until
from palette_sync.core.model import AccessState

if TYPE_CHECKING:
    from integration.stage import Stage


async def test_a_cluster_that_becomes_running_is_published_by_the_next_peek(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=4, oidc_share=0.0)
    world = stage.simulator.world
    slow = next(iter(world.clusters.values()))
    world.set_state(slow.uid, "Provisioning")
    async with running(stage) as one:
        await one.list()
        assert (await stage.record(slow.uid)).access.state is AccessState.PENDING
        stage.simulator.requests.reset()
        world.advance(1)
        world.set_state(slow.uid, "Running")

        one.mailbox.peek()
        report = await one.passes(2)

        assert one.watcher.listed == [True, False]
        assert [change.uid for change in report.changes] == [slow.uid]
        assert (await stage.record(slow.uid)).access.state is AccessState.READY
        assert stage.simulator.requests.count("palette", path_regex=".*/search") == 1


async def test_a_peek_that_finds_nothing_runs_no_pass_and_writes_nothing(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=4)
    async with running(stage) as one:
        await one.list()
        before = (await stage.state()).head
        stage.simulator.requests.reset()
        stage.advance(minutes=1)

        one.mailbox.peek()
        await until(lambda: stage.simulator.requests.count("palette", path_regex=".*/search") == 1)
        await until(lambda: one.status.busy_since is None)

        assert len(one.watcher.reports) == 1
        assert (await stage.state()).head == before
        assert len(stage.simulator.requests.entries) == 1


async def test_a_nudge_that_waits_beside_a_peek_is_not_lost(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=4, oidc_share=0.0)
    world = stage.simulator.world
    async with running(stage) as one:
        await one.list()
        world.advance(1)
        await world.add_cluster("alpha", min(world.instances["alpha"].projects), name="added")

        one.mailbox.peek()
        one.mailbox.nudge()
        await one.passes(3)

        assert one.watcher.listed == [True, False, False]


async def test_a_peek_before_the_first_listing_asks_palette_for_nothing(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=4)
    async with running(stage) as one:
        one.mailbox.peek()
        await until(lambda: not one.mailbox.wanted.is_set() and one.status.busy_since is None)

        assert stage.simulator.requests.count("palette") == 0
        report = await one.list()
        assert report.clusters == 4

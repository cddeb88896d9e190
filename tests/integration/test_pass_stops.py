"""A pass that must end early starts no more clusters, publishes what was issued, and leaves the rest for later."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any

import pytest

from integration.stage import LEASE
from integration.store_builders import until
from palette_sync.assembly.instance import client_of, ports_of
from palette_sync.core.model import AccessState
from palette_sync.reconcile.ports import PassOptions, Stop
from palette_sync.reconcile.run import run_pass
from palette_sync.simulator import Fault
from palette_sync.store.lease import Lease
from palette_sync.store.redis import LeaseLost

if TYPE_CHECKING:
    from collections.abc import Callable

    from integration.stage import Stage
    from palette_sync.reconcile.report import PassReport


async def run_until(stage: Stage, *, stop_at: int, late: bool) -> PassReport:
    """One pass that is asked to stop (or has run out of time) once `stop_at` clusters are done."""
    stop = Stop(asyncio.Event(), asyncio.Event())

    def progress(what: str, done: int, _total: int) -> None:
        if what == "working on clusters" and done == stop_at:
            stop.stopping.set()
            if late:
                stop.late.set()

    async with (
        client_of("alpha", stage.settings.instances["alpha"], stage.shared.limits) as client,
        await Lease.acquire(
            stage.shared.store.link, stage.shared.store.keys, "alpha", ttl=LEASE, holder="test:1"
        ) as lease,
    ):
        publisher = await stage.shared.store.publisher("alpha", epoch=lease.epoch, writer="test")
        ports = ports_of(
            stage.shared, "alpha", client, publisher=publisher, progress=progress, clock=stage.clock, stop=stop
        )
        report, _ = await run_pass(ports, pass_id="stopped")
        return report


async def test_a_stop_starts_no_more_clusters_and_finishes_those_in_progress(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=12, oidc_share=0.0, extra="[service]\nconcurrency = 2\n")

    report = await run_until(stage, stop_at=1, late=False)

    state = await stage.state()
    issued = {cluster.uid for cluster in stage.simulator.world.clusters.values() if cluster.tokens.issued}
    assert 0 < len(issued) < 12
    assert state.credentials.keys() == issued, "every token that was issued is published"
    assert report.skipped == 12 - len(issued)
    assert state.head is not None
    assert not state.head.complete, "a pass that was cut short is not complete"

    stage.simulator.requests.reset()
    rest = await stage.run()
    assert dict(rest.access) == {"ready": 12}
    assert all(cluster.tokens.issued == 1 for cluster in stage.simulator.world.clusters.values())
    assert (await stage.state()).head.complete  # type: ignore[union-attr]


async def test_a_state_change_that_the_stopped_pass_did_not_reach_is_due_in_the_next_pass(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=1, oidc_share=0.0)
    await stage.run()
    (uid,) = stage.simulator.world.clusters
    stage.simulator.world.set_health(uid, "UnHealthy")

    assert (await run_until(stage, stop_at=0, late=False)).skipped == 1
    report = await stage.run()

    assert [(report.due, change.message) for change in report.changes] == [
        (1, "Palette reports Running/UnHealthy, before Running/Healthy")
    ]
    assert (await stage.run()).due == 0


async def test_a_late_pass_cancels_clusters_that_hang_and_publishes_the_rest(stage_of: Any) -> None:
    # The cluster's own timeout of ten minutes is far away, so only the lateness of the pass can end the work on it.
    stage: Stage = await stage_of(clusters=6, oidc_share=0.0)
    victim = next(iter(stage.simulator.world.clusters))
    stage.simulator.faults.add(Fault(target="kube", kind="hang", cluster=victim))

    report = await run_until(stage, stop_at=5, late=True)

    state = await stage.state()
    assert report.skipped == 1
    assert len(state.credentials) == 5
    assert victim not in state.credentials
    assert all(state.records[uid].access.state is AccessState.READY for uid in state.credentials)


async def run_with_lease(
    stage: Stage, *, may_write: Callable[[], bool] = lambda: True, lost: asyncio.Event | None = None, **options: bool
) -> None:
    """One pass whose lease ends when the test says so."""
    async with (
        client_of("alpha", stage.settings.instances["alpha"], stage.shared.limits) as client,
        await Lease.acquire(
            stage.shared.store.link, stage.shared.store.keys, "alpha", ttl=LEASE, holder="test:1"
        ) as lease,
    ):
        publisher = await stage.shared.store.publisher("alpha", epoch=lease.epoch, writer="test")
        ports = ports_of(
            stage.shared,
            "alpha",
            client,
            publisher=publisher,
            clock=stage.clock,
            may_write=may_write,
            lease_lost=lost,
        )
        await run_pass(ports, pass_id="fenced", options=PassOptions(**options))


async def test_no_cluster_is_written_to_once_the_lease_may_have_ended(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=6, oidc_share=0.0)

    with pytest.raises(LeaseLost, match="the lease of alpha ended during the pass"):
        await run_with_lease(stage, may_write=lambda: False)

    assert stage.kube_requests(method="GET") > 0, "clusters are still read"
    assert stage.kube_writes() == 0
    assert not any(cluster.tokens.issued for cluster in stage.simulator.world.clusters.values()), "nor tokens issued"


async def test_a_lease_that_ends_in_the_middle_of_a_pass_allows_no_further_write(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=6, oidc_share=0.0, extra="[service]\nconcurrency = 2\n")
    asked = [0]

    def may_write() -> bool:
        asked[0] += 1
        return asked[0] <= 14

    with pytest.raises(LeaseLost):
        await run_with_lease(stage, may_write=may_write)

    writes = [
        one
        for one in stage.simulator.requests.entries
        if one.target == "kube" and one.method != "GET" and not one.path.endswith("/selfsubjectaccessreviews")
    ]
    assert len(writes) in {6, 7}, "each write asks before it connects and before it is sent, token requests too"


async def test_a_write_is_not_sent_if_the_lease_ends_while_it_connects(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=1, oidc_share=0.0)
    answers = itertools.cycle([True, False])  # before it connects, and when it is sent

    with pytest.raises(LeaseLost, match="the lease of alpha ended during the pass"):
        await run_with_lease(stage, may_write=lambda: next(answers))

    assert next(answers) is True, "each write asked twice"
    assert stage.kube_writes() == 0
    assert not any(cluster.tokens.issued for cluster in stage.simulator.world.clusters.values())


async def test_a_lost_lease_ends_a_pass_whose_clusters_hang(stage_of: Any) -> None:
    # The clusters' own timeout of ten minutes is far away, so only the lost lease can end the pass.
    stage: Stage = await stage_of(clusters=2, oidc_share=0.0)
    stage.simulator.faults.add(Fault(target="kube", kind="hang"))
    lost = asyncio.Event()
    running = asyncio.create_task(run_with_lease(stage, lost=lost))
    await until(lambda: stage.kube_requests() > 0)

    lost.set()

    with pytest.raises(LeaseLost):
        await running


async def test_a_record_stays_while_its_token_could_not_be_revoked_because_the_lease_ended(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=2, oidc_share=0.0)
    await stage.run()
    before = await stage.state()
    stage.reconfigure("", '\n[defaults]\nexclude_projects = ["retail"]\n')

    with pytest.raises(LeaseLost, match="before all tokens were revoked"):
        await run_with_lease(stage, may_write=lambda: False)

    assert (await stage.state()).records.keys() == before.records.keys()

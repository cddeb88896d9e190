"""A pass over known clusters does what is due without listing what Palette has."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from builders import token_in
from integration.stage import LEASE
from palette_sync.assembly.instance import client_of, ports_of
from palette_sync.core.model import AccessState
from palette_sync.events import Interrupted
from palette_sync.palette import discover
from palette_sync.reconcile.issuers import RETRY
from palette_sync.reconcile.ports import Stop
from palette_sync.reconcile.run import run_pass
from palette_sync.simulator import Fault
from palette_sync.store.lease import Lease

if TYPE_CHECKING:
    from integration.stage import Stage
    from palette_sync.core.model import IssuerMetadata, SealedCredential

LISTINGS = "/v1/users/info|/v1/dashboard"


def listings(stage: Stage) -> int:
    return stage.simulator.requests.count("palette", path_regex=f".*({LISTINGS}).*")


async def set_renewals(stage: Stage, moments: dict[str, timedelta], *, life: timedelta | None = None) -> None:
    """Publish the same tokens with other renewal times, given as the time until then."""
    store, sealer = stage.shared.store, stage.shared.sealer
    now = stage.clock().replace(microsecond=0)

    def moved(uid: str, one: SealedCredential) -> Any:
        from palette_sync.core.model import Credential

        token = token_in(publisher.state, uid, sealer=sealer, prefix=store.keys.prefix)
        expires = one.expires_at if life is None else one.issued_at + life
        return Credential(token, one.issued_at, now + moments[uid], expires)

    async with await Lease.acquire(store.link, store.keys, "alpha", ttl=LEASE, holder="test:1") as lease:
        publisher = await store.publisher("alpha", epoch=lease.epoch, writer="test:1")
        tokens = {uid: moved(uid, one) for uid, one in publisher.state.credentials.items() if uid in moments}
        await publisher.publish(now=now, rotated=tokens)


async def test_a_pass_with_nothing_due_sends_no_request_and_publishes_no_version(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=6)
    await stage.run()
    before = await stage.state()

    report = await stage.run(known_only=True)

    assert len(stage.simulator.requests.entries) == 0
    assert (report.due, report.changes, report.error, report.problems) == (0, (), None, ())
    assert (report.clusters, dict(report.access)) == (6, {"ready": 6})
    after = await stage.state()
    assert after.head.version == before.head.version  # type: ignore[union-attr]
    assert (after.records, after.scopes, after.memory) == (before.records, before.scopes, before.memory)


@pytest.mark.parametrize("restarted", [True, False])
async def test_due_tokens_are_renewed_without_a_listing_and_records_keep_what_was_listed(
    stage_of: Any, *, restarted: bool
) -> None:
    stage: Stage = await stage_of(clusters=3, oidc_share=0.0)
    await stage.run()
    rows, before = stage.rows, await stage.state()
    assert rows is not None
    assert rows.keys() == before.records.keys()
    stage.advance(hours=17)

    report = await stage.run(known_only=True, rows=None if restarted else rows)

    assert (report.due, dict(report.access)) == (3, {"ready": 3})
    assert listings(stage) == 0
    after = await stage.state()
    assert after.records == before.records, "titles and links are as they were listed"
    assert all(cluster.tokens.issued == 2 for cluster in stage.simulator.world.clusters.values())
    for uid in after.records:
        assert after.credentials[uid].issued_at > before.credentials[uid].issued_at
        assert await stage.pods(uid) > 0
    assert stage.rows == ({} if restarted else rows), "the scopes of the last listing stay known"


async def test_a_pass_with_rows_uses_what_palette_listed_last(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=2, oidc_share=0.0)
    await stage.run()
    assert stage.rows is not None
    uid = next(iter(stage.rows))
    paused = {**stage.rows, uid: replace(stage.rows[uid], paused=True)}
    stage.advance(hours=17)

    report = await stage.run(known_only=True, rows=paused)

    assert report.due == 1, "a paused cluster is left alone"
    assert (await stage.record(uid)).access.reason == "Paused"


async def test_such_a_pass_neither_drops_nor_counts_missing_clusters(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=12, oidc_share=0.0)
    await stage.run()
    world = stage.simulator.world
    for uid in list(world.clusters)[:8]:
        world.remove_cluster(uid)
    held = await stage.run()
    assert held.held == 8
    noted = (await stage.state()).status["held"]

    for _ in range(3):
        report = await stage.run(known_only=True, allow_prune=True)

        assert (report.held, report.clusters) == (8, 12)
    state = await stage.state()
    assert len(state.records) == 12
    assert state.status["held"] == noted


async def test_such_a_pass_keeps_the_error_of_a_scope_that_could_not_be_listed(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=4)
    sick = next(iter(stage.simulator.world.instances["alpha"].projects.values()))
    stage.simulator.faults.add(Fault(target="palette", kind="status", status=403, project_uid=sick.uid))
    await stage.run()
    before = await stage.state()

    await stage.run(known_only=True)

    after = await stage.state()
    assert after.scopes == before.scopes
    assert after.scopes[sick.uid].error
    assert after.status["pass"] == before.status["pass"]
    assert not after.head.complete  # type: ignore[union-attr]


async def test_without_a_listing_an_empty_store_stays_empty(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=2)

    report = await stage.run(known_only=True)

    assert (report.clusters, report.version) == (0, 0)
    assert (await stage.state()).head is None


async def test_a_token_that_expired_before_its_renewal_fails_the_record_and_is_issued_again(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=1, oidc_share=0.0)
    await stage.run()
    (uid,) = stage.simulator.world.clusters
    fault = stage.simulator.faults.add(Fault(target="palette", kind="status", status=403, path="adminKubeconfig"))
    stage.advance(hours=25)

    assert dict((await stage.run(known_only=True)).access) == {"failed": 1}
    assert (await stage.record(uid)).access.state is AccessState.FAILED
    stage.simulator.faults.remove(fault)
    stage.advance(minutes=1)
    assert dict((await stage.run(known_only=True)).access) == {"ready": 1}


# -- renewals that share a pass --------------------------------------------------------------------------------------


async def test_renewals_within_a_minute_share_a_pass_and_later_ones_wait(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=3, oidc_share=0.0)
    await stage.run()
    now, soon, later = list(stage.simulator.world.clusters.values())
    moments = {now.uid: timedelta(0), soon.uid: timedelta(seconds=50), later.uid: timedelta(seconds=120)}
    await set_renewals(stage, moments)

    report = await stage.run(known_only=True)

    assert report.due == 2
    assert [one.tokens.issued for one in (now, soon, later)] == [2, 2, 1]


async def test_of_short_lived_tokens_only_those_within_a_twelfth_of_their_life_share_a_pass(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=3, oidc_share=0.0)
    await stage.run()
    now, soon, later = list(stage.simulator.world.clusters.values())
    moments = {now.uid: timedelta(0), soon.uid: timedelta(seconds=9), later.uid: timedelta(seconds=40)}
    await set_renewals(stage, moments, life=timedelta(minutes=4))

    report = await stage.run(known_only=True)

    assert report.due == 2
    assert [one.tokens.issued for one in (now, soon, later)] == [2, 2, 1]


# -- OIDC issuers ----------------------------------------------------------------------------------------------------


async def issuer_of(stage: Stage) -> IssuerMetadata:
    (issuer,) = (await stage.state()).issuers.values()
    return issuer


async def test_expired_metadata_is_read_again_through_one_cluster(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=3, oidc_share=1.0)
    await stage.run()
    before = await issuer_of(stage)
    stage.advance(minutes=16)  # the simulated issuer allows 15

    report = await stage.run(known_only=True)

    assert report.due == 1
    assert stage.simulator.requests.count("issuer") == 2
    assert listings(stage) == 0
    after = await issuer_of(stage)
    assert after.fetched_at > before.fetched_at  # type: ignore[operator]
    assert after.valid_until > stage.clock()  # type: ignore[operator]


async def test_metadata_that_cannot_be_read_again_stays_in_use_and_is_retried_after_a_pause(
    stage_of: Any,
) -> None:
    stage: Stage = await stage_of(clusters=2, oidc_share=1.0)
    await stage.run()
    before = await issuer_of(stage)
    fault = stage.simulator.faults.add(Fault(target="issuer", kind="status", status=503))
    stage.advance(minutes=16)

    failing = await stage.run(known_only=True)

    assert (failing.due, dict(failing.access)) == (1, {"ready": 2})
    kept = await issuer_of(stage)
    assert kept.error is not None
    assert (kept.fetched_at, kept.key_ids) == (before.fetched_at, before.key_ids)
    assert kept.valid_until == stage.clock().replace(microsecond=0) + RETRY
    assert (await stage.run(known_only=True)).due == 0, "no attempt before the pause is over"
    stage.simulator.faults.remove(fault)
    stage.advance(minutes=6)
    assert (await stage.run(known_only=True)).due == 1
    mended = await issuer_of(stage)
    assert mended.error is None
    assert mended.fetched_at > before.fetched_at  # type: ignore[operator]


async def test_while_palette_fails_an_issuer_is_read_through_one_cluster_and_not_through_each_in_turn(
    stage_of: Any,
) -> None:
    stage: Stage = await stage_of(clusters=4, oidc_share=1.0)
    await stage.run()
    before = await issuer_of(stage)
    stage.simulator.faults.add(Fault(target="palette", kind="status", status=403, path="/oidc$"))
    stage.advance(minutes=16)

    for _ in range(3):
        report = await stage.run(known_only=True)
        assert dict(report.access) == {"degraded": 1, "ready": 3}

    kept = await issuer_of(stage)
    assert (kept.key_ids, kept.fetched_at) == (before.key_ids, before.fetched_at)
    assert str(kept.error).startswith("Palette refuses the kubeconfig")
    stage.simulator.faults.clear()
    stage.advance(minutes=6)
    report = await stage.run(known_only=True)
    assert dict(report.access) == {"ready": 4}
    assert (await issuer_of(stage)).error is None


async def test_metadata_that_was_read_again_counts_although_the_cluster_itself_failed(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=1, oidc_share=1.0)
    await stage.run()
    stage.simulator.faults.add(Fault(target="kube", kind="drop"))
    stage.advance(minutes=16)

    assert dict((await stage.run(known_only=True)).access) == {"degraded": 1}

    issuer = await issuer_of(stage)
    assert issuer.error is None
    assert issuer.valid_until > stage.clock() + RETRY  # type: ignore[operator]


# -- an interrupted listing ------------------------------------------------------------------------------------------


async def test_an_interrupted_listing_leaves_everything_as_it_was(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=4)
    await stage.run()
    before = await stage.state()
    await stage.simulator.world.add_cluster("alpha", None, "fresh")
    stage.simulator.requests.reset()
    stage.simulator.faults.add(Fault(target="palette", kind="hang", path="/v1/dashboard/spectroclusters/search"))
    stop = Stop(asyncio.Event(), asyncio.Event())

    def progress(what: str, _done: int, _total: int) -> None:
        if what == "listing Palette":
            asyncio.get_running_loop().call_later(0.2, stop.stopping.set)

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
        with pytest.raises(Interrupted):
            await run_pass(ports, pass_id="stopped")

    assert stage.kube_requests() == 0
    assert await stage.state() == before
    left = [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("listing")]
    assert left == []


# Rows that a peek found.


async def peeked(stage: Stage, *uids: str) -> Any:
    """A discovery of these clusters alone, as a peek returns it."""
    settings = stage.settings.instances["alpha"]
    async with client_of("alpha", settings, stage.shared.limits) as client:
        found = await discover(client, choose=lambda _: True, tenant_scope=True, include_virtual=False)
    listings = [
        replace(one, clusters=tuple(c for c in one.clusters if c.uid in uids), short="") for one in found.listings
    ]
    return replace(found, projects=None, listings=tuple(one for one in listings if one.clusters))


async def test_rows_of_a_peek_get_access_and_nothing_else_is_touched_or_dropped(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=6, oidc_share=0.0)
    await stage.run(scheduled=True)
    before = await stage.state()
    world = stage.simulator.world
    vanished = next(iter(world.clusters))
    world.remove_cluster(vanished)
    added = await world.add_cluster("alpha", min(world.instances["alpha"].projects), name="added")

    report = await stage.run(peeked=await peeked(stage, added.uid))

    after = await stage.state()
    assert after.records.keys() == before.records.keys() | {added.uid}
    assert after.records[added.uid].access.state is AccessState.READY
    assert [change.name for change in report.changes] == [after.records[added.uid].name]
    assert {uid for uid in before.records if after.records[uid] != before.records[uid]} == set()
    assert after.scopes == before.scopes
    assert after.status["pass"] == before.status["pass"]
    assert report.problems == ()
    assert listings(stage) == 0
    assert stage.kube_requests(vanished) == 0


async def test_a_peek_does_not_end_the_absence_of_a_cluster_that_it_did_not_see(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=6, oidc_share=0.0)
    await stage.run(scheduled=True)
    uids = list(stage.simulator.world.clusters)
    stage.simulator.world.remove_cluster(uids[0])
    await stage.run(scheduled=True)
    absent = (await stage.state()).status["held"]
    assert set(absent) == {uids[0]}
    stage.advance(hours=1)

    await stage.run(peeked=await peeked(stage, uids[1]))

    after = await stage.state()
    assert after.status["held"] == absent
    assert uids[0] in after.records

"""`replace-legacy --yes` leaves no `LegacyToken` behind, in the clusters and in what is published."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from integration.test_pass_access import put_what_the_plugin_leaves
from palette_sync.assembly.instance import holder
from palette_sync.cli import replace_legacy
from palette_sync.core.model import AccessState
from palette_sync.core.pause import PAUSE_TAG
from palette_sync.core.reasons import Reason
from palette_sync.store.control import RequestReader, Verb
from palette_sync.store.lease import Lease

if TYPE_CHECKING:
    from integration.stage import Stage
    from palette_sync.simulator.cluster import SimCluster

SECRET = "backstage-sa-token"


async def migrated(stage_of: Any) -> tuple[Stage, SimCluster]:
    stage: Stage = await stage_of(projects=1, clusters=1, oidc_share=0.0)
    cluster = next(iter(stage.simulator.world.clusters.values()))
    put_what_the_plugin_leaves(cluster)
    await stage.run()
    assert (await stage.record(cluster.uid)).access.reason is Reason.LEGACY_TOKEN
    return stage, cluster


async def deleted(stage: Stage, *, yes: bool = True) -> list[tuple[str, ...] | None]:
    """What the command does with one instance: the Secrets of each cluster."""
    settings = stage.settings.instances["alpha"]
    return [one.value for one in await replace_legacy.of_instance(stage.shared, "alpha", settings, yes=yes)]


async def test_the_record_says_verified_as_soon_as_the_secret_is_gone(stage_of: Any) -> None:
    stage, cluster = await migrated(stage_of)
    assert await deleted(stage, yes=False) == [(SECRET,)]
    assert (await stage.record(cluster.uid)).access.reason is Reason.LEGACY_TOKEN, "it was only listed"

    assert await deleted(stage) == [(SECRET,)]

    assert cluster.kube.get("Secret", "backstage-system", SECRET) is None
    record = await stage.record(cluster.uid)
    assert (record.access.state, record.access.reason, record.access.message) == (
        AccessState.READY,
        Reason.VERIFIED,
        "",
    )
    assert not (await stage.state()).memory[cluster.uid].legacy
    assert (await stage.run()).due == 0
    assert await stage.pods(cluster.uid) > 0


async def test_a_daemon_that_leads_the_instance_is_asked_to_look(stage_of: Any) -> None:
    stage, cluster = await migrated(stage_of)
    store = stage.shared.store
    reader = RequestReader(store.link, store.keys)
    await reader.wait(["alpha"], lambda: stage.shared.sealer)

    async with await Lease.acquire(store.link, store.keys, "alpha", ttl=600, holder=holder()):
        assert await deleted(stage) == [(SECRET,)]
        requests = await reader.wait(["alpha"], lambda: stage.shared.sealer)

    assert cluster.kube.get("Secret", "backstage-system", SECRET) is None
    assert [request.verb for request in requests] == [Verb.RESYNC]


async def test_nothing_is_deleted_in_a_paused_cluster(stage_of: Any) -> None:
    stage, cluster = await migrated(stage_of)
    stage.simulator.world.set_tags(cluster.uid, [PAUSE_TAG])
    await stage.run()

    settings = stage.settings.instances["alpha"]
    (outcome,) = await replace_legacy.of_instance(stage.shared, "alpha", settings, yes=True)

    assert "resume it first" in str(outcome.error)
    assert cluster.kube.get("Secret", "backstage-system", SECRET) is not None

"""`release` leaves a simulated world as it was before: every object of every cluster is compared."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from integration.test_pass_access import put_what_the_plugin_leaves
from integration.test_pass_leave import lives, token_of
from palette_sync.cli import release
from palette_sync.core.reasons import Reason
from palette_sync.simulator import Fault
from palette_sync.simulator.kube_resources import RESOURCES
from palette_sync.store.lease import Lease
from palette_sync.store.redis import LeaseHeld

if TYPE_CHECKING:
    from integration.stage import Stage
    from palette_sync.reconcile.release_instance import ReleasedCluster
    from palette_sync.simulator.cluster import SimCluster

NAMESPACE, ACCOUNT, SECRET = "backstage-system", "backstage-sa", "backstage-sa-token"
ROLE, BINDING = "backstage-read-only", "backstage-read-only-binding"
SECRET_MODE = "[defaults.token]\nsource = 'secret'\nrotate_every = '1d'\noverlap = '10m'\n"


def objects(cluster: SimCluster) -> dict[str, Any]:
    """Every object of a cluster, without what changes with each write."""
    found = {}
    for resource in RESOURCES:
        for one in [] if resource.virtual else cluster.kube.list(resource):
            metadata = {key: value for key, value in one["metadata"].items() if key != "resourceVersion"}
            metadata["labels"] = metadata.get("labels") or {}
            name = f"{resource.kind} {metadata.get('namespace', '')}/{metadata['name']}"
            found[name] = json.loads(json.dumps({**one, "metadata": metadata}))
    return found


async def world(stage_of: Any, extra: str = "", *, clusters: int = 1, **options: Any) -> tuple[Stage, list[SimCluster]]:
    stage: Stage = await stage_of(projects=1, clusters=clusters, oidc_share=0.0, extra=extra, **options)
    clusters_of = list(stage.simulator.world.clusters.values())
    for cluster in clusters_of:
        cluster.kube.termination_delay = 0.0
    return stage, clusters_of


async def released(stage: Stage, *uids: str, yes: bool = True, keep_adopted: bool = False) -> list[ReleasedCluster]:
    chosen = list(uids) or list((await stage.state()).records)
    choice = release.Choice(yes=yes, keep_adopted=keep_adopted)
    return await release.of_instance(stage.shared, "alpha", stage.settings.instances["alpha"], chosen, {}, choice)


@pytest.mark.parametrize("extra", ["", SECRET_MODE], ids=["request", "secret"])
async def test_it_leaves_no_trace_in_any_cluster(stage_of: Any, extra: str) -> None:
    stage, clusters = await world(stage_of, extra, clusters=3)
    for cluster in clusters:
        cluster.kube.fill_delay = 0.0
    before = {cluster.uid: objects(cluster) for cluster in clusters}
    await stage.run()
    stage.advance(days=1, minutes=1)
    await stage.run()
    assert all(len(objects(cluster)) > len(before[cluster.uid]) + 4 for cluster in clusters)
    server, token = await token_of(stage, clusters[0].uid)

    results = await released(stage)

    assert [one.error for one in results] == ["", "", ""]
    for cluster in clusters:
        assert objects(cluster) == before[cluster.uid]
    assert not await lives(server, token)
    state = await stage.state()
    assert (state.records, state.credentials, state.memory) == ({}, {}, {})
    assert state.trusted, "readers accept the version without clusters"


async def test_a_look_changes_nothing_and_shows_what_would_be_done(stage_of: Any) -> None:
    stage, (cluster,) = await world(stage_of)
    await stage.run()
    before = objects(cluster)

    (result,) = await released(stage, yes=False)

    assert [(action.verb, action.kind, action.name) for action in result.actions] == [
        ("delete", "Secret", SECRET),
        ("delete", "ClusterRoleBinding", BINDING),
        ("delete", "ClusterRole", ROLE),
        ("delete", "ServiceAccount", ACCOUNT),
        ("delete", "Namespace", NAMESPACE),
    ]
    assert {action.reason for action in result.actions} == {Reason.RELEASED}
    assert objects(cluster) == before
    assert cluster.uid in (await stage.state()).records


async def test_what_was_adopted_is_handed_back_as_it_was(stage_of: Any) -> None:
    stage, (cluster,) = await world(stage_of)
    put_what_the_plugin_leaves(cluster)
    before = objects(cluster)
    await stage.run()
    await stage.run(resync=True)
    assert objects(cluster) != before

    (result,) = await released(stage)

    assert objects(cluster) == before, "the plugin's objects stand there as before, without our labels"
    assert {(action.verb, action.name) for action in result.actions} == {
        ("delete", f"{SECRET}-2"),
        ("hand back", SECRET),
        ("hand back", ROLE),
        ("hand back", BINDING),
        ("hand back", ACCOUNT),
    }


async def test_what_was_adopted_can_be_kept_as_it_is(stage_of: Any) -> None:
    stage, (cluster,) = await world(stage_of)
    put_what_the_plugin_leaves(cluster)
    await stage.run()
    await stage.run(resync=True)
    before = objects(cluster)

    (result,) = await released(stage, keep_adopted=True)

    assert [(action.verb, action.name) for action in result.actions] == [("delete", f"{SECRET}-2")]
    gone = {f"Secret {NAMESPACE}/{SECRET}-2"}
    assert objects(cluster) == {name: one for name, one in before.items() if name not in gone}


async def test_a_release_whose_lease_ends_writes_no_more(stage_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    stage, (cluster,) = await world(stage_of)
    await stage.run()
    before = objects(cluster)
    monkeypatch.setattr(Lease, "may_write", lambda _self: False)

    (result,) = await released(stage)

    assert result.error
    assert objects(cluster) == before
    assert cluster.uid in (await stage.state()).records


async def test_a_namespace_that_was_there_before_stays(stage_of: Any) -> None:
    stage, (cluster,) = await world(stage_of)
    cluster.kube.put("Namespace", None, NAMESPACE, {"metadata": {"name": NAMESPACE}})
    before = objects(cluster)
    await stage.run()

    await released(stage)

    assert objects(cluster) == before


@pytest.mark.parametrize("kind", ["Pod", "ConfigMap", "Secret", "ServiceAccount", "Service", "RoleBinding"])
async def test_a_namespace_of_ours_in_which_others_live_stays_without_our_labels(stage_of: Any, kind: str) -> None:
    stage, (cluster,) = await world(stage_of)
    await stage.run()
    cluster.kube.put(kind, NAMESPACE, "theirs", {"metadata": {"name": "theirs"}})

    (result,) = await released(stage)

    assert cluster.kube.get(kind, NAMESPACE, "theirs") is not None
    namespace = cluster.kube.get("Namespace", None, NAMESPACE)
    assert namespace is not None
    assert namespace["metadata"]["labels"] == {"kubernetes.io/metadata.name": NAMESPACE}
    assert result.actions[-1].message == f"{kind} theirs lives in it"


async def test_objects_under_former_names_go_too(stage_of: Any) -> None:
    stage, (cluster,) = await world(stage_of)
    before = objects(cluster)
    await stage.run()
    stage.reconfigure("", "\n[defaults.rbac]\nnamespace = 'other'\ncluster_role = 'other'\n")
    await stage.run()
    assert cluster.kube.get("ClusterRole", None, ROLE) is not None

    await released(stage)

    assert objects(cluster) == before


async def test_objects_of_another_installation_stay(stage_of: Any) -> None:
    stage, (cluster,) = await world(stage_of)
    await stage.run()
    role = {"metadata": {"name": "theirs", "labels": {"app.kubernetes.io/managed-by": "palette-sync"}}}
    role["metadata"]["labels"]["palette-sync.io/owner"] = "staging"  # type: ignore[index]
    cluster.kube.put("ClusterRole", None, "theirs", role)

    await released(stage)

    assert cluster.kube.get("ClusterRole", None, "theirs") is not None
    assert cluster.kube.get("ClusterRole", None, ROLE) is None


async def test_a_credential_that_may_not_list_finds_what_has_the_configured_names(stage_of: Any) -> None:
    stage, (cluster,) = await world(stage_of)
    before = objects(cluster)
    await stage.run()
    for path in ("/namespaces$", "/clusterroles$", "/clusterrolebindings$"):
        stage.simulator.faults.add(Fault(target="kube", kind="status", status=403, path=path))

    (result,) = await released(stage)

    assert result.error == ""
    assert objects(cluster) == before


async def test_a_namespace_into_which_nobody_may_look_stays(stage_of: Any) -> None:
    stage, (cluster,) = await world(stage_of)
    await stage.run()
    stage.simulator.faults.add(Fault(target="kube", kind="status", status=403, path="/pods$"))

    (result,) = await released(stage)

    assert cluster.kube.get("Namespace", None, NAMESPACE) is not None
    assert "may not be listed" in result.actions[-1].message
    assert cluster.kube.get("ServiceAccount", NAMESPACE, ACCOUNT) is None


async def test_an_object_that_changes_meanwhile_is_looked_at_again(stage_of: Any) -> None:
    stage, (cluster,) = await world(stage_of)
    before = objects(cluster)
    await stage.run()
    stage.simulator.faults.add(Fault(target="kube", kind="status", status=409, path=f"/{ROLE}$", times=1))

    (result,) = await released(stage)

    assert objects(cluster) == before
    assert len(result.actions) == 5, "each is named once"


async def test_only_the_named_clusters_are_left(stage_of: Any) -> None:
    stage, (one, other) = await world(stage_of, clusters=2)
    await stage.run()
    kept = objects(other)

    await released(stage, one.uid)

    assert objects(other) == kept
    assert set((await stage.state()).records) == {other.uid}
    assert await stage.pods(other.uid) > 0


async def test_a_cluster_that_cannot_be_reached_keeps_its_record_and_can_be_left_later(stage_of: Any) -> None:
    stage, (cluster, other) = await world(stage_of, clusters=2)
    before = objects(cluster)
    await stage.run()
    fault = stage.simulator.faults.add(Fault(target="kube", kind="drop", cluster=cluster.uid))

    results = {one.uid: one for one in await released(stage)}

    assert results[cluster.uid].error
    assert not results[other.uid].error
    assert set((await stage.state()).records) == {cluster.uid}

    stage.simulator.faults.remove(fault)
    await released(stage)
    assert objects(cluster) == before
    assert (await stage.state()).records == {}


async def test_in_a_cluster_without_access_nobody_looks(stage_of: Any) -> None:
    stage, (cluster,) = await world(stage_of)
    cluster.state = "Provisioning"
    await stage.run()
    stage.simulator.requests.reset()

    assert [one.error for one in await released(stage)] == [""]

    assert stage.kube_requests() == 0
    assert (await stage.state()).records == {}


async def test_it_waits_for_no_daemon_that_leads_the_instance(stage_of: Any) -> None:
    stage, (cluster,) = await world(stage_of)
    await stage.run()
    before = objects(cluster)
    store = stage.shared.store

    async with await Lease.acquire(store.link, store.keys, "alpha", ttl=600, holder="daemon"):
        with pytest.raises(LeaseHeld):
            await released(stage)

    assert objects(cluster) == before

"""The rights that docs/security.md names are enough, and none of them can be left out."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from palette_sync.core.model import AccessState
from palette_sync.core.reasons import Reason
from palette_sync.simulator.inventory import ALL_RIGHTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.stage import Stage
    from palette_sync.reconcile.report import PassReport
    from palette_sync.simulator.cluster import SimCluster

PAGE = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
OWNER = "palette-sync.io/owner"
READING = {"get", "list", "watch"}
ROLE, BINDING = "backstage-read-only", "backstage-read-only-binding"

ADMIN = "cluster.adminKubeconfigDownload"
OIDC_ROLE = frozenset({"project.list", "cluster.list", "cluster.get"})


async def states(stage: Stage) -> set[AccessState]:
    return {record.access.state for record in (await stage.state()).records.values()}


@pytest.mark.parametrize(("oidc_share", "role"), [(0.0, OIDC_ROLE | {ADMIN}), (1.0, OIDC_ROLE)])
async def test_the_smallest_palette_role_is_enough(stage_of: Any, oidc_share: float, role: frozenset[str]) -> None:
    stage = await stage_of(clusters=4, oidc_share=oidc_share)
    stage.simulator.world.instances["alpha"].key_rights = role

    report = await stage.run()

    assert not report.failed
    assert await states(stage) == {AccessState.READY}


@pytest.mark.parametrize("missing", sorted(OIDC_ROLE | {ADMIN}))
async def test_no_right_of_the_smallest_palette_role_can_be_left_out(stage_of: Any, missing: str) -> None:
    stage = await stage_of(clusters=4, oidc_share=0.0)
    stage.simulator.world.instances["alpha"].key_rights = ALL_RIGHTS - {missing}

    report = await stage.run()

    assert report.failed
    assert AccessState.READY not in await states(stage)
    told = [report.error or "", *report.problems, *(change.message for change in report.changes)]
    assert any(missing in text for text in told), told


async def test_virtual_clusters_need_rights_of_their_own(stage_of: Any) -> None:
    stage = await stage_of(clusters=4, oidc_share=0.0, extra="[defaults]\ninclude_virtual = true\n")
    world = stage.simulator.world
    virtual = next(iter(world.clusters.values()))
    virtual.virtual = True
    world.instances["alpha"].key_rights = OIDC_ROLE | {ADMIN}

    await stage.run()
    assert virtual.uid not in (await stage.state()).records

    world.instances["alpha"].key_rights |= {"virtualCluster.list"}
    await stage.run()
    assert (await stage.record(virtual.uid)).access.reason is not Reason.VERIFIED

    world.instances["alpha"].key_rights |= {"virtualCluster.get"}
    await stage.run(resync=True)
    assert (await stage.record(virtual.uid)).access.state is AccessState.READY


# In a cluster.


def documented_rules() -> list[dict[str, list[str]]]:
    found = re.search(r"<!-- smallest-cluster-role -->\n```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    rules: list[dict[str, list[str]]] = yaml.load(found[1], yaml.CSafeLoader)["rules"]
    return rules


def single_rights() -> Iterator[tuple[str, str, str]]:
    for rule in documented_rules():
        yield from product(rule["apiGroups"], rule["resources"], rule["verbs"])


def rules_of(rights: Any) -> list[dict[str, list[str]]]:
    return [{"apiGroups": [group], "resources": [resource], "verbs": [verb]} for group, resource, verb in rights]


async def with_admin(stage_of: Any, rules: list[dict[str, list[str]]]) -> tuple[Stage, SimCluster]:
    """A cluster whose admin kubeconfig may do what `rules` say, beside the rights that palette-sync grants."""
    stage: Stage = await stage_of(projects=1, clusters=1, oidc_share=0.0, extra="[defaults.token]\nsource = 'secret'\n")
    cluster = next(iter(stage.simulator.world.clusters.values()))
    cluster.admin_group = "palette-sync-admins"
    granted = {"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list", "watch"]}
    meta = {"metadata": {"name": "palette-sync-admin"}}
    cluster.kube.put("ClusterRole", None, "palette-sync-admin", {**meta, "rules": [*rules, granted]})
    subject = {"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": cluster.admin_group}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "palette-sync-admin"}
    cluster.kube.put("ClusterRoleBinding", None, "palette-sync-admin", {**meta, "roleRef": role, "subjects": [subject]})
    return stage, cluster


async def use_every_right(stage: Stage, cluster: SimCluster) -> list[PassReport]:
    """Give access, rotate, switch to requested tokens, and repair every object."""
    reports = [await stage.run()]
    stage.advance(days=45)  # beyond the rotation of a Secret
    reports.append(await stage.run())
    stage.advance(days=2)  # beyond the overlap: the retired Secret is deleted
    reports.append(await stage.run())
    stage.reconfigure("source = 'secret'", "source = 'request'")
    for kind, namespace, name in (
        ("Namespace", None, "backstage-system"),
        ("ServiceAccount", "backstage-system", "backstage-sa"),
        ("ClusterRole", None, ROLE),
    ):
        if cluster.kube.get(kind, namespace, name) is not None:
            cluster.kube.patch(kind, namespace, name, {"metadata": {"labels": {OWNER: None}}})
    if cluster.kube.get("ClusterRoleBinding", None, BINDING) is not None:
        cluster.kube.patch("ClusterRoleBinding", None, BINDING, {"subjects": []})
    reports.append(await stage.run(resync=True))
    secret = (await stage.state()).memory[cluster.uid].generation
    if secret is not None and cluster.kube.get("Secret", "backstage-system", secret) is not None:
        cluster.kube.patch("Secret", "backstage-system", secret, {"metadata": {"labels": {OWNER: None}}})
    binding = cluster.kube.get("ClusterRoleBinding", None, BINDING)
    if binding is not None:  # another role in a binding can only be changed by a new binding
        cluster.kube.put(
            "ClusterRoleBinding", None, BINDING, {**binding, "roleRef": {**binding["roleRef"], "name": "view"}}
        )
    return [*reports, await stage.run(resync=True)]


async def test_the_smallest_cluster_role_is_enough(stage_of: Any) -> None:
    stage, cluster = await with_admin(stage_of, documented_rules())

    assert not any(report.failed for report in await use_every_right(stage, cluster))
    assert (await stage.record(cluster.uid)).access.state is AccessState.READY


@pytest.mark.parametrize("right", [right for right in single_rights() if right[2] not in READING], ids="-".join)
async def test_no_writing_right_of_the_cluster_role_can_be_left_out(stage_of: Any, right: tuple[str, str, str]) -> None:
    """Reading is part of what palette-sync grants, so only writing can be left out."""
    stage, cluster = await with_admin(stage_of, rules_of(one for one in single_rights() if one != right))

    reports = await use_every_right(stage, cluster)

    assert any(report.failed for report in reports), "nothing needed it"

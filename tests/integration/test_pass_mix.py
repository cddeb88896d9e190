"""A world with clusters of every kind: what can be had is ready, what cannot says why, and nothing is asked in vain."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest

from integration.clouds import ENABLED, Clouds
from palette_sync.assembly.instance import client_of
from palette_sync.cli.check_clouds import cloud_findings
from palette_sync.cli.finding import OK, PROBLEM, WARNING, Finding
from palette_sync.core.reasons import Reason
from palette_sync.palette import discover
from palette_sync.simulator import Fault
from palette_sync.simulator.mix import MIX

if TYPE_CHECKING:
    from integration.stage import Stage

BY_CLOUD = {
    "eks-authenticator": Reason.NEEDS_AWS_CREDENTIALS,
    "eks-cli": Reason.NEEDS_AWS_CREDENTIALS,
    "gke-plugin": Reason.NEEDS_GOOGLE_CREDENTIALS,
    "aks-kubelogin": Reason.NEEDS_AZURE_CREDENTIALS,
}
NEVER = {
    "aks-expired": Reason.ADMIN_CREDENTIAL_REFUSED,
    "no-file": Reason.KUBECONFIG_NOT_READY,
    "imported": Reason.IMPORTED,
}


async def mixed(stage_of: Any, extra: str = "") -> Stage:
    stage: Stage = await stage_of(projects=1, clusters=len(MIX), tenant_scoped=0, mix=True, extra=extra)
    return stage


async def reasons(stage: Stage) -> dict[str, Reason]:
    """Why each kind of cluster has no access; those that are ready are left out."""
    records = (await stage.state()).records
    kinds = {cluster.uid: MIX[index].name for index, cluster in enumerate(stage.simulator.world.clusters.values())}
    return {kinds[uid]: one.access.reason for uid, one in records.items() if one.access.state.value != "ready"}


async def test_what_can_be_had_is_ready_and_everything_else_says_why(stage_of: Any) -> None:
    stage = await mixed(stage_of)

    await stage.run()

    assert await reasons(stage) == BY_CLOUD | NEVER
    assert all(reason.remedy for reason in (BY_CLOUD | NEVER).values())


async def test_nothing_is_asked_again_without_need(stage_of: Any) -> None:
    """Within the hours before a settled failure is looked at again, only the file that may come is asked for."""
    stage = await mixed(stage_of)
    await stage.run()
    clusters = list(stage.simulator.world.clusters.values())
    settled = {clusters[index].uid for index, kind in enumerate(MIX) if kind.name in {*BY_CLOUD, "imported"}}

    asked: set[str] = set()
    for _ in range(4):
        stage.advance(hours=1)
        await stage.run()
        asked |= {one.path.split("/")[3] for one in stage.simulator.requests.entries if "/assets/" in one.path}

    assert not asked & settled
    assert await reasons(stage) == BY_CLOUD | NEVER


async def test_with_the_credentials_of_the_clouds_only_what_nobody_can_have_is_left(
    stage_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = await mixed(stage_of, extra=ENABLED)
    async with AsyncExitStack() as stack:
        await Clouds(monkeypatch).give(stage, stack)

        await stage.run()

    assert await reasons(stage) == NEVER


async def test_a_plan_names_the_same_reasons(stage_of: Any) -> None:
    stage = await mixed(stage_of)

    planned = {change.reason for change in (await stage.plan()).changes}

    assert {*BY_CLOUD.values(), *NEVER.values()} <= planned


async def findings_of(stage: Stage) -> list[Finding]:
    """What `check` finds in the kubeconfigs of managed clusters, one of each type."""
    stage.simulator.requests.reset()
    for cluster in stage.simulator.world.clusters.values():
        if cluster.admin_file in {"kubeadm", "aks-token", "eks-token"}:
            stage.simulator.world.set_state(cluster.uid, "Provisioning")
    async with client_of("alpha", stage.settings.instances["alpha"], stage.shared.limits) as client:
        found = await discover(client, choose=lambda _: True, tenant_scope=False, include_virtual=False)
        rows = [row for listing in found.listings for row in listing.clusters]
        return await cloud_findings(stage.shared.policies["alpha"], client, rows, stage.shared.cloud)


async def test_check_looks_at_one_file_of_each_type_of_managed_cluster(stage_of: Any) -> None:
    stage = await mixed(stage_of)

    findings = await findings_of(stage)

    assert {one.level for one in findings} == {WARNING}
    assert [one.remedy for one in findings] == [
        BY_CLOUD[kind].remedy for kind in ("aks-kubelogin", "eks-cli", "gke-plugin")
    ]
    assert stage.simulator.requests.count("palette", path_regex=".*/assets/.*") == 3
    assert stage.kube_requests() == 0


async def test_check_gets_one_token_of_each_cloud_and_says_which_one_it_does_not_get(
    stage_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = await mixed(stage_of, extra=ENABLED)
    async with AsyncExitStack() as stack:
        clouds = Clouds(monkeypatch)
        await clouds.give(stage, stack)
        clouds.google.status = 403

        findings = await findings_of(stage)

    assert [one.level for one in findings] == [OK, OK, PROBLEM]
    assert "CloudCredentialsUnavailable" in findings[-1].what
    assert stage.kube_requests() == 0


async def test_check_says_what_is_wrong_with_a_file_and_leaves_absent_ones_alone(stage_of: Any) -> None:
    stage = await mixed(stage_of)
    stage.simulator.faults.add(Fault(target="palette", path="/assets/adminKubeconfig", kind="garbage", times=1))
    stage.simulator.faults.add(Fault(target="palette", path="/assets/adminKubeconfig", kind="status", status=403))

    findings = await findings_of(stage)

    assert [one.level for one in findings] == [WARNING]
    assert "KubeconfigMalformed" in findings[0].what

"""Palette loses clusters, fails half-way, or returns dangerous kubeconfigs."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import pytest

from palette_sync.core.model import AccessState
from palette_sync.reconcile.report import Effect
from palette_sync.simulator import Fault

if TYPE_CHECKING:
    from pathlib import Path

    from integration.stage import Stage


async def lose(stage: Stage, count: int) -> list[str]:
    """Remove clusters from Palette without a trace."""
    gone = [cluster.uid for cluster in stage.simulator.world.clusters.values() if cluster.project_uid][:count]
    for uid in gone:
        stage.simulator.world.remove_cluster(uid)
    return gone


async def test_a_large_loss_is_held_until_three_passes_agree(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=12)
    await stage.run()
    gone = set(await lose(stage, 6))

    for passes in (1, 2):
        report = await stage.run()
        state = await stage.state()
        assert gone <= state.records.keys()
        assert gone <= state.credentials.keys() | {uid for uid in gone if uid not in state.credentials}
        assert report.held == 6
        assert state.status["held"] == dict.fromkeys(sorted(gone), passes)
        assert Effect.HELD in {effect for change in report.changes for effect in change.effects}
    report = await stage.run()

    state = await stage.state()
    assert not gone & state.records.keys()
    assert not gone & state.credentials.keys()
    assert not gone & state.memory.keys()
    assert state.status["held"] == {}
    assert len(state.records) == 6


async def test_allow_prune_drops_a_large_loss_at_once(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=12)
    await stage.run()
    gone = set(await lose(stage, 6))

    await stage.run(allow_prune=True)

    assert not gone & (await stage.state()).records.keys()


async def test_clusters_that_come_back_end_the_hold(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=12, projects=1)
    await stage.run()
    before = await stage.state()
    empty = '{"items": [], "listmeta": {"continue": "", "count": 0, "limit": 0, "offset": 0}}'
    project = next(iter(stage.simulator.world.instances["alpha"].projects))
    fault = stage.simulator.faults.add(
        Fault(target="palette", kind="status", status=200, body=empty, path="/search$", project_uid=project)
    )
    await stage.run()
    await stage.run()
    stage.simulator.faults.remove(fault)

    report = await stage.run()

    assert report.held == 0
    after = await stage.state()
    assert after.records == before.records
    assert after.status["held"] == {}


async def test_the_clusters_of_a_removed_project_are_dropped(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=9, projects=4)
    await stage.run()
    project = next(iter(stage.simulator.world.instances["alpha"].projects))
    gone = {one.uid for one in stage.simulator.world.clusters.values() if one.project_uid == project}

    stage.simulator.world.remove_project(project)
    await stage.run()

    state = await stage.state()
    assert len(gone) == 2
    assert not gone & state.records.keys()
    assert project not in state.scopes


async def test_deselected_and_deleting_clusters_are_dropped_at_once_however_many_they_are(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=12, projects=2)
    await stage.run()
    keep, _ = stage.simulator.world.instances["alpha"].projects.values()
    stage.reconfigure("", f"[defaults]\ninclude_projects = ['{keep.name}']\n")
    dying = next(one.uid for one in stage.simulator.world.clusters.values() if one.project_uid == keep.uid)
    stage.simulator.world.set_state(dying, "Deleting")

    report = await stage.run()

    reasons = {change.reason for change in report.changes if Effect.DROPPED in change.effects}
    assert reasons == {"ProjectExcluded", "Deleting"}
    records = (await stage.state()).records
    assert dying not in records
    assert all(record.project is None or record.project.uid == keep.uid for record in records.values())
    assert stage.kube_requests() == 0, "a dropped cluster receives no request"


async def test_a_cluster_that_moves_to_another_project_keeps_its_name_and_its_token(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=4, projects=2, oidc_share=0.0)
    await stage.run()
    before = await stage.state()
    one, two = stage.simulator.world.instances["alpha"].projects
    moved = next(cluster.uid for cluster in stage.simulator.world.clusters.values() if cluster.project_uid == one)

    stage.simulator.world.move_cluster(moved, two)
    await stage.run()

    after = await stage.state()
    project = after.records[moved].project
    assert project is not None
    assert project.uid == two
    assert after.records[moved].name == before.records[moved].name
    assert after.credentials == before.credentials


KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: x
contexts: [{{name: x, context: {{cluster: x, user: x}}}}]
clusters: [{{name: x, cluster: {cluster}}}]
users: [{{name: x, user: {user}}}]
"""


@pytest.mark.parametrize(
    ("reason", "cluster", "user"),
    [
        ("ExecRefused", "{server: 'https://127.0.0.1:1'}", "{exec: {command: touch, args: [MARKER]}}"),
        ("FilePathRefused", "{server: 'https://127.0.0.1:1'}", "{tokenFile: MARKER}"),
        ("NotHttps", "{server: 'http://127.0.0.1:1'}", "{token: abc}"),
        ("InsecureTLS", "{server: 'https://127.0.0.1:1', insecure-skip-tls-verify: true}", "{token: abc}"),
    ],
)
@pytest.mark.parametrize("encoded", [False, True])
async def test_a_dangerous_kubeconfig_is_refused_with_its_own_reason_and_never_acted_on(
    stage_of: Any, tmp_path: Path, reason: str, cluster: str, user: str, *, encoded: bool
) -> None:
    stage: Stage = await stage_of(clusters=1, projects=1, oidc_share=0.0)
    marker = tmp_path / "executed"
    body = KUBECONFIG.format(cluster=cluster, user=user).replace("MARKER", str(marker)).encode()
    served = base64.b64encode(body) if encoded else body
    stage.simulator.faults.add(
        Fault(target="palette", kind="status", status=200, body=served.decode(), path="adminKubeconfig$")
    )

    await stage.run()

    (record,) = (await stage.state()).records.values()
    assert (record.access.state, record.access.reason) == (AccessState.FAILED, reason)
    assert not marker.exists()
    assert stage.kube_requests() == 0


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("garbage", "Malformed"), ("redirect", "Malformed"), ("truncate", "Unreachable"), ("drop", "Unreachable")],
)
async def test_a_broken_api_server_affects_only_its_own_record(stage_of: Any, kind: str, reason: str) -> None:
    stage: Stage = await stage_of(clusters=3, oidc_share=0.0)
    victim = next(iter(stage.simulator.world.clusters))
    stage.simulator.faults.add(Fault(target="kube", kind=kind, cluster=victim))  # type: ignore[arg-type]

    report = await stage.run()

    assert dict(report.access) == {"failed": 1, "ready": 2}
    assert (await stage.record(victim)).access.reason == reason


async def test_another_tenant_than_the_configured_one_is_refused_before_anything_is_read(stage_of: Any) -> None:
    stage: Stage = await stage_of(extra="[defaults]\ntenant = 'somebody-else'\n")

    report = await stage.run()

    assert report.error
    assert "somebody-else" in report.error
    assert stage.simulator.requests.count("palette") == 1
    assert (await stage.state()).records == {}


async def test_a_pass_succeeds_although_palette_limits_its_requests(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=6)
    stage.simulator.faults.add(
        Fault(target="palette", kind="status", status=429, headers={"Retry-After": "0"}, times=4)
    )

    report = await stage.run()

    assert not report.failed
    assert dict(report.access) == {"ready": 6}

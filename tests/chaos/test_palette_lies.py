"""Palette loses clusters, fails half-way, or returns dangerous kubeconfigs."""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from integration.stage import NOON
from palette_sync.core.model import AccessState
from palette_sync.core.prune import absences_of
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


async def test_a_large_loss_is_held_for_a_day(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=12)
    await stage.run()
    gone = set(await lose(stage, 6))

    for minutes in (0, 11, 12 * 60, 11 * 60):
        stage.advance(minutes=minutes)
        report = await stage.run()
        state = await stage.state()
        assert gone <= state.records.keys()
        assert report.held == 6
        noted = absences_of(state.status)
        assert noted.keys() == gone
        assert {one.since for one in noted.values()} == {NOON.replace(microsecond=0)}
        assert {one.until for one in noted.values()} == {NOON.replace(microsecond=0) + timedelta(days=1)}
        assert Effect.HELD in {effect for change in report.changes for effect in change.effects}
    stage.advance(hours=2)
    report = await stage.run()

    state = await stage.state()
    assert not gone & state.records.keys()
    assert not gone & state.credentials.keys()
    assert not gone & state.memory.keys()
    assert state.status["held"] == {}
    assert len(state.records) == 6


async def test_an_empty_answer_for_a_small_fleet_is_held_and_its_tokens_are_renewed(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=4, projects=1, oidc_share=0.0)
    await stage.run()
    before = await stage.state()
    empty = '{"items": [], "listmeta": {"continue": "", "count": 0, "limit": 50, "offset": 0}}'
    stage.simulator.faults.add(Fault(target="palette", kind="status", status=200, body=empty, path="search$"))

    first = await stage.run()
    stage.advance(hours=17)
    second = await stage.run()

    assert not any(Effect.DROPPED in change.effects for report in (first, second) for change in report.changes)
    assert (first.held, second.held) == (4, 4)
    assert (second.due, dict(second.access)) == (4, {"ready": 4})
    after = await stage.state()
    assert after.records.keys() == before.records.keys()
    for uid, credential in after.credentials.items():
        assert credential.issued_at > before.credentials[uid].issued_at
        assert await stage.pods(uid) > 0


async def test_a_key_that_loses_its_roles_empties_no_instance(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=4, projects=2)
    await stage.run()
    before = await stage.state()
    stage.simulator.world.set_key_permission("alpha", "project", [])

    for _ in range(3):
        stage.advance(minutes=11)
        await stage.run()

    after = await stage.state()
    assert after.records.keys() == before.records.keys()
    assert {str(one.reason) for one in absences_of(after.status).values()} == {"AccessLost"}


async def test_three_resyncs_within_seconds_drop_nothing(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=12)
    await stage.run()
    gone = set(await lose(stage, 2))

    reports = [await stage.run(resync=True) for _ in range(3)]

    assert all(report.clusters == 12 for report in reports)
    assert gone <= (await stage.state()).records.keys()


async def test_a_small_loss_goes_with_the_second_scheduled_listing(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=12, projects=1)
    await stage.run()
    gone = set(await lose(stage, 2))

    await stage.run()
    stage.advance(minutes=10)
    plan = await stage.plan()
    await stage.run()

    assert {change.uid for change in plan.changes if Effect.DROPPED in change.effects} == gone
    assert not gone & (await stage.state()).records.keys()


async def test_a_listing_with_a_wrong_total_adds_and_refreshes_and_drops_nothing(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=6, projects=1)
    await stage.run()
    instance = stage.simulator.world.instances["alpha"]
    instance.behaviour.listing_lie = "total-too-high"
    (gone,) = await lose(stage, 1)
    added = await stage.simulator.world.add_cluster(instance, next(iter(instance.projects)))

    for _ in range(3):
        stage.advance(minutes=11)
        report = await stage.run()

    state = await stage.state()
    assert {gone, added.uid} <= state.records.keys()
    assert (await stage.record(added.uid)).access.state is AccessState.READY
    assert any("instead of the announced" in problem for problem in report.problems)
    assert all("instead of the announced" in (scope.error or "") for scope in state.scopes.values())


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


async def test_the_clusters_of_a_removed_project_are_held_until_an_operator_allows_it(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=9, projects=4)
    await stage.run()
    project = next(iter(stage.simulator.world.instances["alpha"].projects))
    gone = {one.uid for one in stage.simulator.world.clusters.values() if one.project_uid == project}

    stage.simulator.world.remove_project(project)
    await stage.run()

    state = await stage.state()
    assert len(gone) == 2
    assert gone <= state.records.keys()
    assert {str(one.reason) for one in absences_of(state.status).values()} == {"AccessLost"}
    assert project not in state.scopes

    await stage.run(allow_prune=True)

    assert not gone & (await stage.state()).records.keys()


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
    requests = [entry for entry in stage.simulator.requests.entries if entry.target == "kube"]
    assert {entry.cluster for entry in requests if entry.cluster == dying} == set()
    written = {(one.method, one.path.split("/")[-2]) for one in requests if one.method != "GET"}
    assert written == {("DELETE", "secrets")}, "a deselected cluster has its tokens revoked and nothing else done to it"


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

"""Tokens in time: asked about again after the API server's cache, shorter lives, and CAs that readers can verify."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import pytest

from integration.test_pass_access import put_what_the_plugin_leaves
from palette_sync.core.model import AccessState, ca_pem_of
from palette_sync.core.reasons import Reason
from palette_sync.reconcile.report import Effect
from palette_sync.simulator import Fault

if TYPE_CHECKING:
    from integration.stage import Stage
    from palette_sync.simulator.cluster import SimCluster

NAMESPACE, SECRET, ROLE = "backstage-system", "backstage-sa-token", "backstage-read-only"
VIEW = "[defaults.rbac]\npreset = 'view'\n"


async def one_cluster(stage_of: Any, extra: str = "", **options: Any) -> tuple[Stage, SimCluster]:
    stage: Stage = await stage_of(projects=1, clusters=1, oidc_share=0.0, extra=extra, **options)
    return stage, next(iter(stage.simulator.world.clusters.values()))


def rotated(report: Any) -> bool:
    return any(Effect.ROTATED in change.effects for change in report.changes)


async def test_a_token_that_only_the_servers_cache_accepts_is_found_out_soon(stage_of: Any) -> None:
    """The token of the preset `view` may not read Secrets, so a deleted one shows once the cache has passed."""
    stage, cluster = await one_cluster(stage_of, VIEW)
    cluster.tokens.cache_seconds = 10.0
    await stage.run()
    await stage.run(resync=True)
    cluster.kube.remove("Secret", NAMESPACE, SECRET)
    await stage.run(resync=True)
    assert (await stage.record(cluster.uid)).access.state is AccessState.READY, "the cache answers"

    stage.advance(seconds=11)
    assert (await stage.run()).due == 0
    stage.advance(seconds=2)
    report = await stage.run()

    assert rotated(report)
    assert await stage.pods(cluster.uid) > 0


async def test_asking_again_is_done_once(stage_of: Any) -> None:
    stage, _ = await one_cluster(stage_of, VIEW)
    await stage.run()
    await stage.run(resync=True)
    stage.advance(seconds=13)

    assert (await stage.run()).due == 1
    stage.advance(seconds=60)
    assert (await stage.run()).due == 0


async def test_a_shortened_validity_renews_at_once_and_only_once(stage_of: Any) -> None:
    stage, cluster = await one_cluster(stage_of)
    await stage.run()
    stage.reconfigure("", "[defaults.token]\nvalidity = '1h'\n")

    report = await stage.run()

    assert rotated(report)
    credential = (await stage.state()).credentials[cluster.uid]
    assert credential.expires_at is not None
    assert (credential.expires_at - credential.issued_at).total_seconds() == 3600
    assert (await stage.run()).due == 0


async def test_a_secret_of_before_the_shortened_rotation_is_replaced_once(stage_of: Any) -> None:
    stage, cluster = await one_cluster(stage_of, "[defaults.token]\nsource = 'secret'\nrotate_every = '30d'\n")
    await stage.run()
    stage.advance(days=2)
    stage.reconfigure("rotate_every = '30d'", "rotate_every = '1d'")

    assert rotated(await stage.run())
    assert cluster.kube.names("Secret", NAMESPACE) == [SECRET, f"{SECRET}-2"]
    assert (await stage.run()).due == 0


async def test_a_token_of_a_secret_that_is_refused_leads_to_a_new_generation(stage_of: Any) -> None:
    """Signing keys were replaced and the memory of the cluster is gone: the Secret was read again for ever."""
    stage, cluster = await one_cluster(stage_of, "[defaults.token]\nsource = 'secret'\n")
    await stage.run()
    stage.advance(hours=1)
    cluster.tokens.revoke_all()
    keys = stage.shared.store.keys
    await stage.shared.store.link.client.delete(keys.work("alpha"), keys.credentials("alpha"))

    await stage.run(resync=True)

    record = await stage.record(cluster.uid)
    assert record.access.state is AccessState.READY
    assert cluster.kube.names("Secret", NAMESPACE) == [SECRET, f"{SECRET}-2"]
    assert await stage.pods(cluster.uid) > 0


async def test_a_plan_with_a_deleted_role_asks_once(stage_of: Any) -> None:
    stage, cluster = await one_cluster(stage_of)
    await stage.run()
    cluster.kube.remove("ClusterRole", None, ROLE)

    report = await stage.plan(resync=True)

    assert [action.reason for change in report.changes for action in change.actions] == [Reason.MISSING]
    assert stage.simulator.requests.count("kube", path_regex=".*selfsubjectaccessreviews") == 1


async def test_a_plan_reports_what_rbac_would_refuse(stage_of: Any) -> None:
    stage, cluster = await one_cluster(stage_of)
    body = '{"kind":"Status","reason":"Forbidden","message":"attempting to grant RBAC permissions not currently held"}'
    stage.simulator.faults.add(
        Fault(target="kube", kind="status", status=403, method="POST", path="clusterroles$", body=body)
    )

    report = await stage.plan()

    assert [(change.effects[0], change.reason) for change in report.changes] == [(Effect.FAILED, Reason.FORBIDDEN)]
    assert "not currently held" in report.changes[0].message
    assert stage.kube_writes(cluster.uid) == 0


async def test_a_scheduled_verification_finds_out_that_a_legacy_secret_is_gone(stage_of: Any) -> None:
    """The token of the preset `view` may not read Secrets."""
    rbac = "[defaults.rbac]\npreset = 'view'\nadopt = 'always'\n"
    stage, cluster = await one_cluster(stage_of, rbac + "[defaults]\nverify_interval = '1h'\n")
    put_what_the_plugin_leaves(cluster)
    await stage.run()
    assert (await stage.record(cluster.uid)).access.reason is Reason.LEGACY_TOKEN
    cluster.kube.remove("Secret", NAMESPACE, SECRET)

    cluster.admin_download = False
    stage.advance(hours=1, minutes=1)
    await stage.run()
    assert (await stage.record(cluster.uid)).access.reason is Reason.LEGACY_TOKEN, "nobody could look"

    cluster.admin_download = True
    stage.advance(hours=1, minutes=1)
    await stage.run()
    assert (await stage.record(cluster.uid)).access.reason is Reason.VERIFIED


async def test_a_cluster_whose_ca_is_no_root_is_withheld(stage_of: Any) -> None:
    stage, cluster = await one_cluster(stage_of)
    cluster.use_intermediate_authority(presents_root=False)

    await stage.run()

    record = await stage.record(cluster.uid)
    assert (record.access.state, record.access.reason) == (AccessState.FAILED, Reason.CHAIN_INCOMPLETE)
    assert "[defaults.trust]" in record.access.message
    assert cluster.tokens.issued == 0
    assert stage.kube_writes(cluster.uid) == 0


@pytest.mark.parametrize("mode", ["service-account", "oidc"])
async def test_a_root_that_the_server_presents_is_published(stage_of: Any, mode: str) -> None:
    stage, cluster = await one_cluster(stage_of)
    stage.reconfigure('mode = "service-account"', f'mode = "{mode}"')
    cluster.oidc = mode == "oidc"
    cluster.use_intermediate_authority(presents_root=True)

    await stage.run()

    record = await stage.record(cluster.uid)
    assert record.access.state is AccessState.READY
    assert record.server is not None
    assert ca_pem_of(record.server).startswith(cluster.ca_pem)
    assert ca_pem_of(record.server).count("BEGIN CERTIFICATE") == 2
    if mode == "service-account":
        assert await stage.pods(cluster.uid) > 0
    assert (await stage.run(resync=True)).changes == ()


async def test_a_cluster_that_was_served_with_such_a_ca_is_withheld_until_a_rule_gives_the_root(
    stage_of: Any, tmp_path: Any
) -> None:
    stage, cluster = await one_cluster(stage_of)
    await stage.run()
    root = cluster.use_intermediate_authority(presents_root=False)

    await stage.run(resync=True)
    record = await stage.record(cluster.uid)
    assert (record.access.state, record.access.reason) == (AccessState.FAILED, Reason.CHAIN_INCOMPLETE)

    (tmp_path / "root.pem").write_text(root.pem)
    stage.reconfigure("", f"[[defaults.trust.rules]]\ncluster = '*'\nca_file = '{tmp_path / 'root.pem'}'\n")
    await stage.run(resync=True)

    record = await stage.record(cluster.uid)
    assert record.access.state is AccessState.READY
    assert record.server is not None
    assert record.server.ca_data == base64.b64encode(root.pem.encode()).decode()
    assert (await stage.run()).due == 0


async def test_a_dead_token_is_recognised_where_answers_are_slow_and_the_time_is_short(stage_of: Any) -> None:
    """The proof asks again after a refusal, and the time for the cluster must not be over before it says so."""
    stage, cluster = await one_cluster(stage_of, '[defaults]\ncluster_timeout = "3s"\n')
    await stage.run()
    cluster.tokens.revoke_all()
    stage.simulator.world.set_admin_download(cluster.uid, allowed=False)
    stage.simulator.faults.add(Fault(target="kube", kind="latency", path="selfsubjectaccessreviews", seconds=0.9))

    await stage.run(resync=True)

    state = await stage.state()
    assert state.records[cluster.uid].access.state is AccessState.FAILED
    assert "refuses the published token" in state.records[cluster.uid].access.message
    assert cluster.uid not in state.credentials, "a token that is proven dead is not published"

"""The ways to a cluster's API server: its own address, Spectro Proxy, and which of them is tried first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from palette_sync.core.model import AccessState, OidcAuth, ca_data_of
from palette_sync.core.reasons import Reason
from palette_sync.core.ways import Way
from palette_sync.simulator import Fault

if TYPE_CHECKING:
    from integration.stage import Stage
    from palette_sync.simulator.cluster import AdminFile, SimCluster

OIDC = "[defaults.auth]\nmode = 'oidc'\n"


async def one_cluster(
    stage_of: Any, kind: AdminFile = "kubeadm", *, extra: str = "", proxied: bool = True, oidc: bool = False
) -> tuple[Stage, SimCluster]:
    stage: Stage = await stage_of(projects=1, clusters=1, oidc_share=float(oidc), extra=extra)
    cluster = next(iter(stage.simulator.world.clusters.values()))
    stage.simulator.world.set_admin_file(cluster.uid, kind)
    if proxied:
        await stage.simulator.world.put_proxy_before(cluster.uid)
    return stage, cluster


def downloads(stage: Stage) -> list[str]:
    """The files that the last pass asked Palette for, in order."""
    entries = [one for one in stage.simulator.requests.entries if "/assets/" in one.path]
    return [one.path.rpartition("/")[2] + (f"?{one.query}" if one.query else "") for one in entries]


async def way_of(stage: Stage, cluster: SimCluster) -> Way | None:
    return (await stage.state()).memory[cluster.uid].way


ADMIN, PROXIED = "adminKubeconfig", "kubeconfig?frp=true"


async def test_a_cluster_that_answers_at_its_own_address_needs_one_file(stage_of: Any) -> None:
    stage, cluster = await one_cluster(stage_of)

    await stage.run()

    record = await stage.record(cluster.uid)
    assert record.server is not None
    assert record.server.url == cluster.url
    assert downloads(stage) == [ADMIN]
    assert await way_of(stage, cluster) is None


@pytest.mark.parametrize(
    ("kind", "reachable"),
    [
        pytest.param("kubeadm", False, id="its own address is dead"),
        pytest.param("none", True, id="there is no admin file"),
        pytest.param("eks-authenticator", True, id="the admin file asks to run a program"),
        pytest.param("aks-token", True, id="the admin credential was refused"),
    ],
)
async def test_where_the_admin_file_does_not_help_spectro_proxy_gives_access(
    stage_of: Any, kind: AdminFile, *, reachable: bool
) -> None:
    stage, cluster = await one_cluster(stage_of, kind)
    assert cluster.admin_token
    stage.advance(hours=2)
    if not reachable:
        stage.simulator.world.shut_api_server(cluster.uid)

    await stage.run()

    record = await stage.record(cluster.uid)
    ca_pem = cluster.instance.proxy_authority.pem if cluster.managed else cluster.ca_pem
    assert (record.access.state, record.access.message) == (AccessState.READY, "")
    assert record.server is not None
    assert (record.server.url, record.server.ca_data) == (cluster.proxy_server, ca_data_of(ca_pem))
    assert downloads(stage) == [ADMIN, PROXIED]
    assert await way_of(stage, cluster) is Way.PROXY
    assert await stage.pods(cluster.uid) > 0


async def test_the_way_that_worked_is_tried_first_the_next_time(stage_of: Any) -> None:
    stage, cluster = await one_cluster(stage_of)
    stage.simulator.world.shut_api_server(cluster.uid)
    await stage.run()

    stage.advance(hours=17)
    report = await stage.run()

    assert [change.reason for change in report.changes] == [Reason.TOKEN_DUE]
    assert downloads(stage) == [PROXIED]
    assert await way_of(stage, cluster) is Way.PROXY


async def test_a_way_that_fails_is_left_for_the_other_one(stage_of: Any) -> None:
    stage, cluster = await one_cluster(stage_of)
    stage.simulator.world.set_admin_file(cluster.uid, "none")
    await stage.run()
    assert await way_of(stage, cluster) is Way.PROXY
    assert cluster.proxy_listener is not None
    cluster.proxy_listener.close()
    stage.simulator.world.set_admin_file(cluster.uid, "kubeadm")

    stage.advance(hours=17)
    await stage.run()

    record = await stage.record(cluster.uid)
    assert record.server is not None
    assert (record.access.state, record.server.url) == (AccessState.READY, cluster.url)
    assert await way_of(stage, cluster) is None


async def test_a_published_address_that_dies_is_replaced_by_that_of_spectro_proxy_with_a_token_of_its_own(
    stage_of: Any,
) -> None:
    stage, cluster = await one_cluster(stage_of)
    await stage.run()
    issued = cluster.tokens.issued
    stage.simulator.world.shut_api_server(cluster.uid)

    await stage.run(resync=True)

    record = await stage.record(cluster.uid)
    assert record.server is not None
    assert (record.access.state, record.server.url) == (AccessState.READY, cluster.proxy_server)
    assert cluster.tokens.issued == issued + 1
    assert await stage.pods(cluster.uid) > 0


async def test_a_file_for_users_gives_the_address_and_the_admin_file_the_credential(stage_of: Any) -> None:
    stage, cluster = await one_cluster(stage_of)
    stage.simulator.world.set_oidc(cluster.uid, oidc=True)
    stage.simulator.world.shut_api_server(cluster.uid)

    await stage.run()

    record = await stage.record(cluster.uid)
    assert record.server is not None
    assert (record.access.state, record.server.url) == (AccessState.READY, cluster.proxy_server)


async def test_where_no_way_works_the_record_says_why_the_first_one_failed(stage_of: Any) -> None:
    stage, cluster = await one_cluster(stage_of, proxied=False)
    stage.simulator.world.shut_api_server(cluster.uid)

    await stage.run()

    assert (await stage.record(cluster.uid)).access.reason is Reason.UNREACHABLE
    assert downloads(stage) == [ADMIN, PROXIED]


async def test_the_same_server_with_the_same_credential_is_not_asked_twice(stage_of: Any) -> None:
    """Without Spectro Proxy the file for users has the address that failed already."""
    stage, cluster = await one_cluster(stage_of, proxied=False)
    stage.simulator.world.set_oidc(cluster.uid, oidc=True)
    stage.simulator.faults.add(Fault(target="kube", kind="status", status=404, body="<html>no tunnel</html>"))

    await stage.run()

    assert (await stage.record(cluster.uid)).access.reason is Reason.PROXY_ANSWERED
    assert stage.kube_requests(cluster.uid) == 1


@pytest.mark.parametrize(("setting", "files"), [("never", [ADMIN]), ("always", [PROXIED])])
async def test_the_setting_can_forbid_one_of_the_ways(stage_of: Any, setting: str, files: list[str]) -> None:
    stage, cluster = await one_cluster(stage_of, extra=f"[defaults]\nspectro_proxy = '{setting}'\n")
    if setting == "never":
        stage.simulator.world.shut_api_server(cluster.uid)

    await stage.run()

    record = await stage.record(cluster.uid)
    assert downloads(stage) == files
    if setting == "never":
        assert record.access.reason is Reason.UNREACHABLE
    else:
        assert record.server is not None
        assert record.server.url == cluster.proxy_server


async def test_users_of_an_oidc_cluster_go_the_way_that_works(stage_of: Any) -> None:
    stage, cluster = await one_cluster(stage_of, extra=OIDC, oidc=True)
    await stage.run()
    first = await stage.record(cluster.uid)
    assert cluster.proxy_listener is not None
    cluster.proxy_listener.close()

    await stage.run(resync=True)
    second, remembered = await stage.record(cluster.uid), await way_of(stage, cluster)
    await stage.run(resync=True)

    assert isinstance(first.auth, OidcAuth)
    assert first.server is not None
    assert second.server is not None
    assert (first.server.url, second.server.url) == (cluster.proxy_server, cluster.url)
    assert second.access.state is AccessState.READY
    assert remembered is Way.DIRECT
    assert downloads(stage) == ["kubeconfig?frp=false"]


async def test_an_oidc_cluster_without_spectro_proxy_is_not_probed_twice_at_a_dead_address(stage_of: Any) -> None:
    stage, cluster = await one_cluster(stage_of, extra=OIDC, oidc=True, proxied=False)
    stage.simulator.faults.add(Fault(target="kube", kind="status", status=404, body="<html>no tunnel</html>"))

    await stage.run()

    assert (await stage.record(cluster.uid)).access.reason is Reason.PROXY_ANSWERED
    assert stage.kube_requests(cluster.uid) == 1


async def test_a_palette_without_the_older_path_gives_the_file_of_the_newer_one(stage_of: Any) -> None:
    stage, cluster = await one_cluster(stage_of, extra=OIDC, oidc=True, proxied=False)
    gone = '{"code": 404, "message": "path was not found"}'
    stage.simulator.faults.add(
        Fault(target="palette", path="/assets/kubeconfig$", kind="status", status=404, body=gone)
    )

    await stage.run()

    assert (await stage.record(cluster.uid)).access.state is AccessState.READY
    assert downloads(stage) == [PROXIED, "kubeconfigclient"]


async def test_a_file_that_does_not_exist_yet_is_not_looked_for_at_the_newer_path(stage_of: Any) -> None:
    stage, cluster = await one_cluster(stage_of, "none", proxied=False)

    await stage.run()

    record = await stage.record(cluster.uid)
    assert (record.access.state, record.access.reason) == (AccessState.PENDING, Reason.KUBECONFIG_NOT_READY)
    assert downloads(stage) == [ADMIN, PROXIED]


async def test_a_renewed_kubeconfig_brings_back_a_cluster_whose_admin_token_had_expired(stage_of: Any) -> None:
    stage, cluster = await one_cluster(stage_of, "aks-token", proxied=False)
    assert cluster.admin_token
    stage.advance(hours=2)
    await stage.run()
    assert (await stage.record(cluster.uid)).access.reason is Reason.ADMIN_CREDENTIAL_REFUSED

    cluster.renew_admin_token()
    stage.advance(minutes=31)
    await stage.run()

    assert (await stage.record(cluster.uid)).access.state is AccessState.READY

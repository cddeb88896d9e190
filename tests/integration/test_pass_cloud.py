"""Clusters of EKS, GKE and AKS whose kubeconfig asks to run a program: named by a reason, or served with a token."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest

from integration.clouds import ENABLED, Clouds
from palette_sync.core.model import AccessState
from palette_sync.core.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from integration.stage import Stage
    from palette_sync.simulator.cluster import AdminFile, SimCluster

PROGRAMS = [
    pytest.param("eks-authenticator", Reason.NEEDS_AWS_CREDENTIALS, id="aws-iam-authenticator"),
    pytest.param("eks-cli", Reason.NEEDS_AWS_CREDENTIALS, id="aws eks get-token"),
    pytest.param("gke-plugin", Reason.NEEDS_GOOGLE_CREDENTIALS, id="gke-gcloud-auth-plugin"),
    pytest.param("aks-kubelogin", Reason.NEEDS_AZURE_CREDENTIALS, id="kubelogin"),
]


async def one_cluster(stage_of: Any, kind: AdminFile, extra: str = "") -> tuple[Stage, SimCluster]:
    stage: Stage = await stage_of(projects=1, clusters=1, oidc_share=0.0, extra=extra)
    cluster = next(iter(stage.simulator.world.clusters.values()))
    stage.simulator.world.set_admin_file(cluster.uid, kind, cloud_address=True)
    return stage, cluster


@pytest.fixture
async def clouds(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    """Give a stage the credentials of all clouds."""
    made = Clouds(monkeypatch)
    async with AsyncExitStack() as stack:

        async def give(stage: Stage) -> Clouds:
            await made.give(stage, stack)
            return made

        yield give


@pytest.mark.parametrize(("kind", "reason"), PROGRAMS)
async def test_a_program_is_named_by_its_reason_and_not_asked_for_again_soon(
    stage_of: Any, kind: AdminFile, reason: Reason
) -> None:
    stage, cluster = await one_cluster(stage_of, kind)

    plan = await stage.plan()
    await stage.run()
    first = stage.simulator.requests.count("palette", path_regex=".*/assets/.*")
    for _ in range(4):
        stage.advance(minutes=45)
        await stage.run()
        assert stage.simulator.requests.count("palette", path_regex=".*/assets/.*") == 0
    stage.advance(hours=6)
    await stage.run()

    assert [change.reason for change in plan.changes] == [reason]
    record = await stage.record(cluster.uid)
    assert (record.access.state, record.access.reason) == (AccessState.FAILED, reason)
    assert first == 2, "the admin kubeconfig, and the one through Spectro Proxy"
    assert stage.simulator.requests.count("palette", path_regex=".*/assets/adminKubeconfig") == 1
    assert stage.kube_requests() == 0


@pytest.mark.parametrize(("kind", "reason"), PROGRAMS)
async def test_a_token_of_the_cloud_gives_access_and_only_the_service_account_stays(
    stage_of: Any, clouds: Any, kind: AdminFile, reason: Reason
) -> None:
    stage, cluster = await one_cluster(stage_of, kind, extra=ENABLED)
    await clouds(stage)

    await stage.run()

    record = await stage.record(cluster.uid)
    assert (record.access.state, record.access.message) == (AccessState.READY, "")
    assert record.server is not None
    assert record.server.url == cluster.server
    assert await stage.pods(cluster.uid) > 0


async def test_enabling_a_cloud_makes_the_clusters_due_that_wait_for_it_and_no_others(
    stage_of: Any, clouds: Any
) -> None:
    stage: Stage = await stage_of(projects=1, clusters=3, oidc_share=0.0)
    waiting, *others = stage.simulator.world.clusters.values()
    stage.simulator.world.set_admin_file(waiting.uid, "eks-authenticator", cloud_address=True)
    await clouds(stage)
    await stage.run()

    stage.reconfigure("", ENABLED)
    report = await stage.run()

    assert [change.uid for change in report.changes] == [waiting.uid]
    assert (await stage.record(waiting.uid)).access.state is AccessState.READY
    assert all(stage.kube_requests(one.uid) == 0 for one in others)
    assert (await stage.run()).due == 0


async def test_the_token_of_the_service_account_is_rotated_with_a_new_token_of_the_cloud(
    stage_of: Any, clouds: Any
) -> None:
    stage, cluster = await one_cluster(stage_of, "aks-kubelogin", extra=ENABLED)
    given = await clouds(stage)
    await stage.run()

    stage.advance(hours=17)
    await stage.run()

    assert given.azure.asked == 2
    assert (await stage.record(cluster.uid)).access.state is AccessState.READY
    assert await stage.pods(cluster.uid) > 0


@pytest.mark.parametrize("kind", ["eks-token", "aks-token"])
async def test_a_token_in_the_kubeconfig_works_until_it_expires(stage_of: Any, clouds: Any, kind: AdminFile) -> None:
    stage, cluster = await one_cluster(stage_of, kind)
    await clouds(stage)
    assert cluster.admin_token
    await stage.run()
    assert (await stage.record(cluster.uid)).access.state is AccessState.READY

    stage.advance(hours=17)
    stage.simulator.world.accounts.aws_skew = 20 * 60
    await stage.run()

    record = await stage.record(cluster.uid)
    assert record.access.reason is Reason.ADMIN_CREDENTIAL_REFUSED
    assert "Palette's admin credential was refused" in record.access.message


@pytest.mark.parametrize("kind", ["eks-token", "aks-token"])
async def test_a_token_that_expired_is_replaced_by_one_of_the_cloud(
    stage_of: Any, clouds: Any, kind: AdminFile
) -> None:
    stage, cluster = await one_cluster(stage_of, kind, extra=ENABLED)
    await clouds(stage)
    stage.simulator.world.accounts.aws_skew = -20 * 60
    assert cluster.admin_token
    stage.simulator.world.accounts.aws_skew = 0
    stage.advance(hours=2)

    await stage.run()

    assert (await stage.record(cluster.uid)).access.state is AccessState.READY


async def test_a_cluster_that_does_not_know_the_identity_says_so(stage_of: Any, clouds: Any) -> None:
    stage, cluster = await one_cluster(stage_of, "eks-cli", extra=ENABLED)
    await clouds(stage)
    cluster.cloud_access = False

    await stage.run()

    assert (await stage.record(cluster.uid)).access.reason is Reason.CLOUD_IDENTITY_REFUSED


def tokens_seen_by(cluster: SimCluster) -> list[str]:
    """What arrives at a cluster as a bearer token, from now on."""
    seen: list[str] = []
    real = cluster.answer

    def answer(call: Any) -> Any:
        seen.append(call.headers.get("Authorization", ""))
        return real(call)

    cluster.answer = answer  # type: ignore[method-assign]
    return seen


async def stage_with_a_collector(stage_of: Any, kind: AdminFile) -> tuple[Stage, SimCluster, SimCluster]:
    """A cluster of a cloud, and one that stands for a server of somebody who wants its tokens."""
    stage: Stage = await stage_of(projects=1, clusters=2, oidc_share=0.0, extra=ENABLED)
    cluster, collector = stage.simulator.world.clusters.values()
    stage.simulator.world.set_state(collector.uid, "Provisioning")
    stage.simulator.world.set_admin_file(cluster.uid, kind, cloud_address=True)
    stage.simulator.world.set_admin_file(collector.uid, kind)
    return stage, cluster, collector


@pytest.mark.parametrize("kind", ["eks-authenticator", "gke-plugin", "aks-kubelogin"])
async def test_a_palette_that_lies_about_a_server_gets_no_token(
    stage_of: Any, clouds: Any, kind: AdminFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, cluster, collector = await stage_with_a_collector(stage_of, kind)
    given = await clouds(stage)
    given.google.changes = {"endpoint": cluster.server.removeprefix("https://")}
    seen = tokens_seen_by(collector)
    # The file names the collector's address with its CA, so that TLS would succeed.
    cluster.host, cluster.listener = None, collector.listener
    monkeypatch.setitem(cluster.__dict__, "authority", collector.authority)

    await stage.run()

    assert (await stage.record(cluster.uid)).access.reason is Reason.CLOUD_SERVER_REFUSED
    assert (seen, given.azure.asked) == ([], 0)


@pytest.mark.parametrize("kind", ["eks-authenticator", "eks-token", "gke-plugin", "aks-kubelogin", "aks-token"])
async def test_no_token_of_a_cloud_goes_to_the_address_of_spectro_proxy(
    stage_of: Any, clouds: Any, kind: AdminFile
) -> None:
    stage, cluster, collector = await stage_with_a_collector(stage_of, kind)
    given = await clouds(stage)
    given.google.changes = {"endpoint": cluster.server.removeprefix("https://")}
    seen = tokens_seen_by(collector)
    await stage.simulator.world.put_proxy_before(collector.uid)
    cluster.proxied, cluster.proxy_listener = True, collector.proxy_listener
    stage.simulator.world.shut_api_server(cluster.uid)

    await stage.run()

    assert (await stage.record(cluster.uid)).access.state is AccessState.FAILED
    assert set(seen) == {f"Bearer {cluster.proxy_token}"}, "it arrives there, with the credential of that file only"


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"endpoint": "34.1.2.3"}, id="another endpoint"),
        pytest.param({"masterAuth": {}}, id="no CA"),
        pytest.param({"masterAuth": {"clusterCaCertificate": "Q0E="}}, id="another CA"),
    ],
)
async def test_a_gke_server_gets_a_token_only_if_google_names_it_and_its_ca(
    stage_of: Any, clouds: Any, changes: dict[str, Any]
) -> None:
    stage, cluster = await one_cluster(stage_of, "gke-plugin", extra=ENABLED)
    given = await clouds(stage)
    given.google.changes = changes

    await stage.run()

    assert (await stage.record(cluster.uid)).access.reason is Reason.CLOUD_SERVER_REFUSED
    assert stage.kube_requests() == 0


async def test_a_gke_cluster_of_a_project_that_is_not_configured_is_not_even_asked_for(
    stage_of: Any, clouds: Any
) -> None:
    stage, cluster = await one_cluster(stage_of, "gke-plugin", extra=ENABLED.replace("simulated-project", "other"))
    given = await clouds(stage)

    await stage.run()

    assert (await stage.record(cluster.uid)).access.reason is Reason.CLOUD_SERVER_REFUSED
    assert given.google.asked == []


async def test_google_failing_is_no_refusal_of_the_server(stage_of: Any, clouds: Any) -> None:
    stage, cluster = await one_cluster(stage_of, "gke-plugin", extra=ENABLED)
    given = await clouds(stage)
    given.google.status = 403

    await stage.run()

    record = await stage.record(cluster.uid)
    assert record.access.reason is Reason.CLOUD_CREDENTIALS_UNAVAILABLE
    assert "HTTP 403" in record.access.message
    assert (await stage.run()).due == 0, "it waits for its backoff"

    given.google.status = 200
    stage.advance(minutes=1)
    await stage.run()
    assert (await stage.record(cluster.uid)).access.state is AccessState.READY
    assert (await stage.run()).due == 0


async def test_a_rule_limits_a_cloud_to_the_clusters_that_match(stage_of: Any, clouds: Any) -> None:
    rules = "[defaults.cloud.aws]\nenabled = true\nrules = [{ tag = 'cloud:aws' }]\n"
    stage: Stage = await stage_of(projects=1, clusters=2, oidc_share=0.0, extra=rules)
    tagged, other = stage.simulator.world.clusters.values()
    for one in (tagged, other):
        stage.simulator.world.set_admin_file(one.uid, "eks-authenticator", cloud_address=True)
    stage.simulator.world.set_tags(tagged.uid, ["cloud:aws"])
    await clouds(stage)

    await stage.run()

    assert (await stage.record(tagged.uid)).access.state is AccessState.READY
    assert (await stage.record(other.uid)).access.reason is Reason.NEEDS_AWS_CREDENTIALS

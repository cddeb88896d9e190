"""A cluster that is left keeps no living token, or it is said until when one lives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from loopback import LOOPBACK
from palette_sync.core.documents import format_time
from palette_sync.core.model import OidcAuth, Secret
from palette_sync.core.reasons import Reason
from palette_sync.core.snapshot_codec import sealed_for
from palette_sync.kube.errors import Unauthorized
from palette_sync.kube.kubeconfig import BearerToken
from palette_sync.kube.transport import KubeApi, Requests
from palette_sync.reconcile import leave
from palette_sync.reconcile.report import Effect
from palette_sync.simulator import Fault

if TYPE_CHECKING:
    from integration.stage import Stage
    from palette_sync.core.model import Server
    from palette_sync.simulator.cluster import SimCluster

NAMESPACE, SECRET = "backstage-system", "backstage-sa-token"
SECRET_MODE = "[defaults.token]\nsource = 'secret'\nrotate_every = '1d'\noverlap = '10m'\n"
EXCLUDE = "[defaults]\nexclude_tags = ['old']\n"


async def served(stage_of: Any, extra: str = "", **options: Any) -> tuple[Stage, SimCluster]:
    """A cluster with access."""
    stage: Stage = await stage_of(projects=1, clusters=1, oidc_share=0.0, extra=extra, **options)
    await stage.run()
    return stage, next(iter(stage.simulator.world.clusters.values()))


async def token_of(stage: Stage, uid: str) -> tuple[Server, Secret]:
    state = await stage.state()
    server = state.records[uid].server
    assert server is not None
    credential = state.credentials[uid]
    target = sealed_for(stage.settings.redis.prefix, state.records[uid], credential)
    return server, stage.shared.sealer.open(target, credential.sealed)


async def lives(server: Server, token: Secret) -> bool:
    async with KubeApi(server, BearerToken(token), timeout=60, requests=Requests(network=LOOPBACK)) as api:
        try:
            await api.call("GET namespaces", api.core.list_namespace)
        except Unauthorized:
            return False
    return True


def events(logs: list[Any]) -> list[str]:
    return [entry["message"] for entry in logs if entry["event"] == "token_left"]


@pytest.mark.parametrize("extra", ["", SECRET_MODE], ids=["request", "secret"])
async def test_a_deselected_cluster_has_its_token_revoked(stage_of: Any, extra: str) -> None:
    stage, cluster = await served(stage_of, extra + EXCLUDE)
    server, token = await token_of(stage, cluster.uid)
    assert await lives(server, token)
    cluster.tags.append("old")

    with capture_logs() as logs:
        report = await stage.run()

    assert [(change.effects, change.reason) for change in report.changes] == [((Effect.DROPPED,), Reason.TAG_EXCLUDED)]
    assert not await lives(server, token)
    assert cluster.kube.names("Secret", NAMESPACE) == []
    assert cluster.kube.get("ServiceAccount", NAMESPACE, "backstage-sa") is not None, "the other objects stay"
    assert events(logs) == []


async def test_every_generation_is_deleted_and_no_other_secret(stage_of: Any) -> None:
    stage, cluster = await served(stage_of, SECRET_MODE + EXCLUDE)
    stage.advance(days=1, minutes=1)
    await stage.run()
    assert len(cluster.kube.names("Secret", NAMESPACE)) == 2
    cluster.kube.put("Secret", NAMESPACE, "theirs", {"metadata": {"labels": {}}, "type": "Opaque"})
    cluster.tags.append("old")

    await stage.run()

    assert cluster.kube.names("Secret", NAMESPACE) == ["theirs"]


@pytest.mark.parametrize(
    ("extra", "until"), [("", "until 2026-07-16T12:00:00Z"), (SECRET_MODE, "for ever")], ids=["request", "secret"]
)
async def test_where_a_deselected_cluster_cannot_be_reached_it_is_said_how_long_its_token_lives(
    stage_of: Any, extra: str, until: str
) -> None:
    stage, cluster = await served(stage_of, extra + EXCLUDE)
    cluster.tags.append("old")
    stage.simulator.faults.add(Fault(target="kube", kind="drop", cluster=cluster.uid))

    with capture_logs() as logs:
        report = await stage.run()

    (message,) = events(logs)
    for word in (f"lives on {until}", "could not be revoked", f"Secret {SECRET} in namespace {NAMESPACE}"):
        assert word in message
    assert message in report.changes[0].message
    assert cluster.uid not in (await stage.state()).records, "it is dropped all the same"


async def test_without_the_right_to_the_kubeconfig_it_is_said_too(stage_of: Any) -> None:
    stage, cluster = await served(stage_of, EXCLUDE)
    cluster.tags.append("old")
    cluster.admin_download = False

    with capture_logs() as logs:
        await stage.run()

    assert "cluster.adminKubeconfigDownload" in events(logs)[0]


async def test_a_cluster_that_hangs_does_not_hold_the_pass_up(stage_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    stage, cluster = await served(stage_of, EXCLUDE)
    cluster.tags.append("old")
    stage.simulator.faults.add(Fault(target="kube", kind="hang", cluster=cluster.uid))
    monkeypatch.setattr(leave, "LONGEST", 0.05)

    with capture_logs() as logs:
        await stage.run()

    assert "did not answer in time" in events(logs)[0]
    assert cluster.uid not in (await stage.state()).records


async def test_of_a_cluster_that_vanished_it_is_said_how_long_its_token_lives(stage_of: Any) -> None:
    stage, cluster = await served(stage_of)
    expires_at = (await stage.state()).credentials[cluster.uid].expires_at
    assert expires_at is not None
    stage.simulator.world.remove_cluster(cluster.uid)

    with capture_logs() as logs:
        await stage.run(allow_prune=True)

    assert f"until {format_time(expires_at)}" in events(logs)[0]


async def test_a_cluster_that_palette_deleted_takes_its_token_with_it(stage_of: Any) -> None:
    stage, cluster = await served(stage_of)
    cluster.state = "Deleting"

    with capture_logs() as logs:
        await stage.run()

    assert events(logs) == []
    assert stage.kube_requests(cluster.uid) == 0


async def test_a_plan_revokes_nothing(stage_of: Any) -> None:
    stage, cluster = await served(stage_of, EXCLUDE)
    cluster.tags.append("old")

    await stage.plan()

    assert stage.kube_requests(cluster.uid) == 0


@pytest.mark.parametrize("how", ["oidc", "auto"])
async def test_a_cluster_that_turns_to_oidc_has_its_token_revoked(stage_of: Any, how: str) -> None:
    stage, cluster = await served(stage_of)
    server, token = await token_of(stage, cluster.uid)
    cluster.oidc = True
    stage.reconfigure('mode = "service-account"', f'mode = "{how}"')

    await stage.run()

    record = await stage.record(cluster.uid)
    assert isinstance(record.auth, OidcAuth), "the changed mode is due at once"
    assert not await lives(server, token)
    assert cluster.uid not in (await stage.state()).credentials


async def test_where_a_cluster_turns_to_oidc_and_keeps_its_token_it_is_said(stage_of: Any) -> None:
    stage, cluster = await served(stage_of)
    cluster.oidc = True
    cluster.admin_download = False
    stage.reconfigure('mode = "service-account"', 'mode = "oidc"')

    with capture_logs() as logs:
        report = await stage.run()

    (change,) = report.changes
    assert change.reason is Reason.TOKEN_LEFT
    assert Effect.FAILED not in change.effects, "access works"
    assert [change.message] == events(logs)

"""With `release_deselected`, a cluster that is left loses every object that palette-sync made in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from integration.test_pass_leave import SECRET_MODE, events, lives, served, token_of
from integration.test_release import objects
from palette_sync.core.model import OidcAuth
from palette_sync.core.reasons import Reason
from palette_sync.reconcile.report import Effect
from palette_sync.simulator import Fault

if TYPE_CHECKING:
    from integration.stage import Stage

RELEASE = "[defaults]\nexclude_tags = ['old']\nrelease_deselected = true\n"


@pytest.mark.parametrize("extra", ["", SECRET_MODE], ids=["request", "secret"])
async def test_a_deselected_cluster_is_released_as_a_whole_if_configured(stage_of: Any, extra: str) -> None:
    stage: Stage = await stage_of(projects=1, clusters=1, oidc_share=0.0, extra=extra + RELEASE)
    cluster = next(iter(stage.simulator.world.clusters.values()))
    cluster.kube.termination_delay = 0.0
    before = objects(cluster)
    await stage.run()
    server, token = await token_of(stage, cluster.uid)
    cluster.tags.append("old")

    with capture_logs() as logs:
        report = await stage.run()

    assert [(change.effects, change.reason) for change in report.changes] == [((Effect.DROPPED,), Reason.TAG_EXCLUDED)]
    assert objects(cluster) == before
    assert not await lives(server, token)
    (entry,) = [one for one in logs if one["event"] == "cluster_released"]
    assert "delete Namespace backstage-system" in entry["done"]
    assert events(logs) == []


async def test_a_cluster_that_turns_to_oidc_is_released_as_a_whole_if_configured(stage_of: Any) -> None:
    stage: Stage = await stage_of(projects=1, clusters=1, oidc_share=0.0, extra=RELEASE)
    cluster = next(iter(stage.simulator.world.clusters.values()))
    cluster.kube.termination_delay = 0.0
    before = objects(cluster)
    await stage.run()
    assert objects(cluster) != before
    cluster.oidc = True
    stage.reconfigure('mode = "service-account"', 'mode = "oidc"')

    await stage.run()

    assert objects(cluster) == before
    record = (await stage.state()).records[cluster.uid]
    assert isinstance(record.auth, OidcAuth)


async def test_a_deselected_cluster_that_does_not_answer_is_named_with_the_command_that_releases_it(
    stage_of: Any,
) -> None:
    stage, cluster = await served(stage_of, RELEASE)
    cluster.kube.termination_delay = 0.0
    stage.simulator.faults.add(Fault(target="kube", kind="drop", cluster=cluster.uid))
    cluster.tags.append("old")

    with capture_logs() as logs:
        await stage.run()

    (message,) = events(logs)
    assert f"palette-sync release --instance alpha --cluster {cluster.uid} --yes" in message
    assert (await stage.state()).records == {}


async def test_a_cluster_that_never_had_access_is_not_asked(stage_of: Any) -> None:
    stage: Stage = await stage_of(projects=1, clusters=1, oidc_share=0.0, extra=RELEASE)
    cluster = next(iter(stage.simulator.world.clusters.values()))
    cluster.state = "Provisioning"
    await stage.run()
    cluster.tags.append("old")
    stage.simulator.requests.reset()

    await stage.run()

    assert stage.kube_requests() == 0

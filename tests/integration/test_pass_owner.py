"""Two installations of palette-sync on the same clusters: they neither fight nor share, and say who is who."""

from __future__ import annotations

import secrets
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from integration.stage import environment
from palette_sync.assembly.instance import open_shared
from palette_sync.config import load
from palette_sync.core.model import AccessState
from palette_sync.core.objects import OWNER_LABEL
from palette_sync.core.reasons import Reason
from palette_sync.reconcile.report import Effect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from integration.stage import Stage
    from palette_sync.reconcile.report import PassReport
    from palette_sync.simulator.cluster import SimCluster

NAMESPACE, ROLE, SECRET = "backstage-system", "backstage-read-only", "backstage-sa-token"
FIVE = (
    ("Namespace", None, NAMESPACE),
    ("ServiceAccount", NAMESPACE, "backstage-sa"),
    ("Secret", NAMESPACE, SECRET),
    ("ClusterRole", None, ROLE),
    ("ClusterRoleBinding", None, "backstage-read-only-binding"),
)
VIEW = "[defaults.rbac]\npreset = 'view'\n"
ALWAYS = "[defaults.rbac]\nadopt = 'always'\n"
SECRET_MODE = "[defaults.token]\nsource = 'secret'\nrotate_every = '1d'\noverlap = '10m'\n"


async def one_cluster(stage_of: Any, extra: str = "") -> tuple[Stage, SimCluster]:
    stage: Stage = await stage_of(projects=1, clusters=1, oidc_share=0.0, extra=extra)
    return stage, next(iter(stage.simulator.world.clusters.values()))


@asynccontextmanager
async def another(stage: Stage, extra: str = "") -> AsyncIterator[Stage]:
    """A second installation on the same clusters: the same file, seal keys and Redis, and a prefix of its own."""
    file = stage.directory / "another.toml"
    file.write_text((stage.directory / "config.toml").read_text() + extra)
    settings = load(file, environ=environment(f"test-{secrets.token_hex(6)}", file.read_text()))
    async with open_shared(settings) as shared:
        yield replace(stage, settings=settings, shared=shared, rows=None)


def owners(cluster: SimCluster) -> set[str | None]:
    found = [cluster.kube.get(*one) for one in FIVE]
    return {(one["metadata"].get("labels") or {}).get(OWNER_LABEL) for one in found if one is not None}


def failures(report: PassReport) -> list[Reason]:
    return [change.reason for change in report.changes if Effect.FAILED in change.effects]


async def id_of(stage: Stage) -> str:
    return (await stage.shared.store.owner(stage.settings.service.owner or "", write=False)).id


@pytest.mark.parametrize("extra", ["", VIEW, SECRET_MODE], ids=["equal wishes", "other rules", "token Secrets"])
async def test_the_second_installation_is_refused_and_the_first_is_left_in_peace(stage_of: Any, extra: str) -> None:
    first, cluster = await one_cluster(stage_of)
    await first.run()
    role = cluster.kube.get("ClusterRole", None, ROLE)
    async with another(first, extra) as second:
        for _ in range(3):
            refused = await second.run(resync=True)
            assert second.kube_writes(cluster.uid) == 0
            assert failures(refused) == [Reason.CONFLICT]
            assert (await first.run(resync=True)).changes == ()
        record = await second.record(cluster.uid)

    assert (record.access.state, record.access.reason) == (AccessState.FAILED, Reason.CONFLICT)
    assert f"the palette-sync installation {await id_of(first)}" in record.access.message
    assert cluster.kube.get("ClusterRole", None, ROLE) == role
    assert owners(cluster) == {await id_of(first)}
    assert await first.pods(cluster.uid) > 0


async def test_rotations_of_one_installation_touch_no_secret_of_the_other(stage_of: Any) -> None:
    """Names apart in one namespace: each has an account, a role and Secrets of its own."""
    first, cluster = await one_cluster(stage_of, extra=SECRET_MODE)
    await first.run()
    names = "[defaults.rbac]\nservice_account = 'other-sa'\nsecret = 'other'\ncluster_role = 'other'\n"
    async with another(first, names + "cluster_role_binding = 'other'\n") as second:
        await second.run()
        for _ in range(3):
            first.advance(days=1, minutes=1)
            for one in (first, second):
                one.offset = first.offset
                await one.run()
                assert (await one.record(cluster.uid)).access.state is AccessState.READY
                assert await one.pods(cluster.uid) > 0
        theirs = {name for name in cluster.kube.names("Secret", NAMESPACE) if name.startswith("other")}

    assert theirs == {"other-3", "other-4"}


async def test_always_takes_the_cluster_over_once_and_the_other_does_not_take_it_back(stage_of: Any) -> None:
    first, cluster = await one_cluster(stage_of, extra=ALWAYS)
    await first.run()
    async with another(first) as second:
        await second.run()
        assert owners(cluster) - {await id_of(first)} == {await id_of(second)}
        taken = cluster.kube.get("ClusterRole", None, ROLE)

        lost = await first.run(resync=True)
        kept = await second.run(resync=True)

        assert failures(lost) == [Reason.CONFLICT]
        assert kept.changes == ()
        assert await second.pods(cluster.uid) > 0
    record = await first.record(cluster.uid)
    assert (record.access.state, record.access.reason) == (AccessState.DEGRADED, Reason.CONFLICT)
    assert "was taken over by" in record.access.message
    assert cluster.kube.get("ClusterRole", None, ROLE) == taken


async def test_objects_from_before_get_the_owner_at_the_next_verification(stage_of: Any) -> None:
    stage, cluster = await one_cluster(stage_of)
    await stage.run()
    before = (await stage.state()).credentials[cluster.uid]
    for one in FIVE:
        cluster.kube.patch(*one, {"metadata": {"labels": {OWNER_LABEL: None}}})

    await stage.run(resync=True)

    assert owners(cluster) == {await id_of(stage)}
    assert (await stage.state()).credentials[cluster.uid] == before, "the token stays"


async def test_a_redis_that_lost_everything_brings_the_same_owner_back(stage_of: Any) -> None:
    stage, cluster = await one_cluster(stage_of)
    await stage.run()
    before = await id_of(stage)
    client = stage.shared.store.link.client
    await client.delete(*[key async for key in client.scan_iter(f"*{stage.settings.redis.prefix}*")])

    async with open_shared(stage.settings) as shared:  # another process
        stage.shared = shared
        report = await stage.run()

        assert failures(report) == []
        assert await id_of(stage) == before
        assert await stage.pods(cluster.uid) > 0


async def test_a_configured_owner_replaces_the_one_before_on_every_object(stage_of: Any) -> None:
    stage, cluster = await one_cluster(stage_of)
    await stage.run()
    stage.reconfigure("", "[service]\nowner = 'production'\n")

    await stage.run(resync=True)
    assert owners(cluster) == {"production"}
    assert (await stage.record(cluster.uid)).access.state is AccessState.READY

    stage.reconfigure("owner = 'production'", "owner = 'portal'")
    await stage.run(resync=True)
    assert owners(cluster) == {"portal"}


async def test_the_owner_of_another_installation_is_taken_by_name(stage_of: Any) -> None:
    """What the message of the Conflict says: this installation was the other one before its Redis was lost."""
    first, cluster = await one_cluster(stage_of)
    await first.run()
    async with another(first, f"[service]\nowner = '{await id_of(first)}'\n") as second:
        assert failures(await second.run()) == []
        assert await second.pods(cluster.uid) > 0

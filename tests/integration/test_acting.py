"""What an operator asks of one cluster: look at it, a new token, a pause."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from builders import token_in
from integration.runners import flush, issued, running, runtime
from integration.store_builders import until
from loopback import LOOPBACK
from palette_sync.assembly.instance import client_of, ports_of
from palette_sync.core.cluster_request import ClusterRequest, encode_cluster_request
from palette_sync.core.model import AccessState, ClusterRecord, Pause, Secret
from palette_sync.core.pause import PAUSE_TAG
from palette_sync.core.reasons import Reason
from palette_sync.kube.kubeconfig import BearerToken
from palette_sync.kube.transport import KubeApi, KubeError, Requests
from palette_sync.reconcile.release_instance import release_instance
from palette_sync.reconcile.report import Effect
from palette_sync.service.cluster_requests import act
from palette_sync.simulator import Fault
from palette_sync.store.control import Answer, AnswerStatus, Request, Verb

if TYPE_CHECKING:
    from integration.runners import Running
    from integration.stage import Stage
    from palette_sync.core.model import InstanceState
    from palette_sync.runner.mailbox import PausedFuture, ReportFuture
    from palette_sync.simulator.cluster import SimCluster

NAMESPACE = "backstage-system"
SECRET_MODE = "[defaults.token]\nsource = 'secret'\nrotate_every = '1d'\noverlap = '10m'\n"


class Daemon:
    """The part of the daemon that cluster requests use, with one runner."""

    def __init__(self, one: Running) -> None:
        self._one = one

    def state(self, _instance: str) -> InstanceState | None:
        return self._one.runner.last_state

    def ask_cluster(self, _instance: str, uid: str, *, rotate: bool, revoke: bool) -> ReportFuture | None:
        return self._one.mailbox.ask_cluster(uid, rotate=rotate, revoke=revoke)

    def pause(self, _instance: str, uid: str, pause: Pause | None) -> PausedFuture | None:
        return self._one.mailbox.pause(uid, pause)

    async def does(self, verb: Verb, uid: str, **arguments: Any) -> Answer:
        text = encode_cluster_request(ClusterRequest(uid, **arguments))
        return await act(self, Request("alpha", "0" * 16, verb, 1, "anna@host:1", text))


async def one_cluster(stage_of: Any, extra: str = "", **options: Any) -> tuple[Stage, SimCluster]:
    stage: Stage = await stage_of(projects=1, clusters=1, oidc_share=0.0, extra=extra, **options)
    return stage, next(iter(stage.simulator.world.clusters.values()))


def published_token(stage: Stage, state: InstanceState, uid: str) -> Secret:
    return token_in(state, uid, sealer=stage.shared.sealer, prefix=stage.shared.store.keys.prefix)


async def works(record: ClusterRecord, token: Secret) -> bool:
    assert record.server is not None
    async with KubeApi(record.server, BearerToken(token), timeout=60, requests=Requests(network=LOOPBACK)) as api:
        try:
            await api.call("GET pods", api.core.list_pod_for_all_namespaces)
        except KubeError:
            return False
    return True


def all_writes(stage: Stage, uid: str) -> list[str]:
    """Every request to a cluster that changes something or issues a token; reviews and dry runs do neither."""
    return [
        f"{entry.method} {entry.path}"
        for entry in stage.simulator.requests.entries
        if entry.target == "kube"
        and entry.cluster == uid
        and entry.method in {"POST", "PUT", "PATCH", "DELETE"}
        and not entry.path.endswith("/selfsubjectaccessreviews")
        and "dryRun" not in entry.query
    ]


# -- resync of one cluster --------------------------------------------------------------------------------------------


async def test_a_resync_of_one_cluster_looks_at_that_cluster_alone_and_does_not_list_palette(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=3, oidc_share=0.0)
    async with running(stage) as one:
        await one.list()
        uid = next(iter(stage.simulator.world.clusters))
        stage.simulator.requests.reset()

        answer = await Daemon(one).does(Verb.RESYNC_CLUSTER, uid)

        assert answer.word is AnswerStatus.DONE
        assert "ready (Verified); nothing changed" in answer.text
        assert {entry.cluster for entry in stage.simulator.requests.entries if entry.target == "kube"} == {uid}
        assert stage.simulator.requests.count("palette", path_regex="search") == 0
        assert one.watcher.listed == [True, False]


async def test_a_failed_cluster_is_tried_before_its_backoff_is_over(stage_of: Any) -> None:
    stage, cluster = await one_cluster(stage_of)
    fault = stage.simulator.faults.add(Fault(target="kube", kind="status", status=503))
    async with running(stage) as one:
        await one.list()
        assert one.status.access == {"failed": 1}
        answer = await Daemon(one).does(Verb.RESYNC_CLUSTER, cluster.uid)
        assert answer.word is AnswerStatus.FAILED
        assert answer.document["state"] == "failed"

        stage.simulator.faults.remove(fault)
        answer = await Daemon(one).does(Verb.RESYNC_CLUSTER, cluster.uid)

        assert answer.word is AnswerStatus.DONE
        assert answer.document["state"] == "ready"


async def test_a_nudge_that_is_forgotten_does_not_take_who_asked_with_it(stage_of: Any) -> None:
    stage, cluster = await one_cluster(stage_of)
    async with running(stage) as one:
        await one.list()
        asked: list[asyncio.Future[Any]] = []

        def ask_meanwhile(_: object) -> None:
            one.watcher.on_finished = lambda _: None
            one.mailbox.nudge()

        one.watcher.on_finished = ask_meanwhile
        one.mailbox.nudge()
        asked.append(one.mailbox.ask_cluster(cluster.uid))
        one.mailbox.forget_nudge()

        assert (await asked[0]).due == 1


async def test_an_unknown_uid_and_arguments_that_are_none_are_answered(stage_of: Any) -> None:
    stage, _ = await one_cluster(stage_of)
    async with running(stage) as one:
        await one.list()
        daemon = Daemon(one)
        assert "no cluster with the uid nobody" in (await daemon.does(Verb.ROTATE, "nobody")).text
        bad = await act(daemon, Request("alpha", "0" * 16, Verb.PAUSE, 1, "anna", "no JSON"))
        assert "cannot be read" in bad.text


# -- rotate -----------------------------------------------------------------------------------------------------------


async def test_a_rotation_publishes_a_new_token_and_the_former_one_lives_on(stage_of: Any) -> None:
    stage, cluster = await one_cluster(stage_of)
    async with running(stage) as one:
        await one.list()
        before = await stage.state()
        stage.advance(minutes=5)

        answer = await Daemon(one).does(Verb.ROTATE, cluster.uid)

        assert answer.word is AnswerStatus.DONE
        assert "a new token is published" in answer.text
        after, uid = await stage.state(), cluster.uid
        former, new = published_token(stage, before, uid), published_token(stage, after, uid)
        assert former != new
        assert await works(after.records[uid], former)
        assert await works(after.records[uid], new)


@pytest.mark.parametrize("extra", ["", SECRET_MODE], ids=["request", "secret"])
async def test_a_revocation_ends_the_former_token_and_only_after_the_new_one_is_published(
    stage_of: Any, extra: str
) -> None:
    stage, cluster = await one_cluster(stage_of, extra)
    uid = cluster.uid
    cluster.kube.fill_delay = 0.0
    async with running(stage) as one:
        await one.list()
        before = await stage.state()
        stage.advance(minutes=1)
        stage.simulator.requests.reset()
        # The Secret must still exist whenever a version is published that readers could have the former token of.
        held: list[tuple[bool, bool]] = []

        def look(_: object) -> None:
            state = one.runner.last_state
            assert state is not None
            new = state.credentials[uid] != before.credentials[uid]
            held.append((new, "backstage-sa-token" in cluster.kube.names("Secret", NAMESPACE)))

        one.watcher.on_finished = look

        answer = await Daemon(one).does(Verb.ROTATE, uid, revoke=True)

        assert answer.word is AnswerStatus.DONE, answer.text
        assert answer.text.endswith("the former one is revoked")
        assert held == [(True, True), (True, False)], "published first, deleted then"
        after = await stage.state()
        assert not await works(after.records[uid], published_token(stage, before, uid))
        assert await works(after.records[uid], published_token(stage, after, uid))
        assert after.records[uid].access.state is AccessState.READY
        assert after.memory[uid].retired == ()
        assert sum(issued(stage).values()) == (2 if not extra else 0)


async def test_a_revocation_that_fails_is_reported_and_done_later(stage_of: Any) -> None:
    stage, cluster = await one_cluster(stage_of)
    uid = cluster.uid
    async with running(stage) as one:
        await one.list()
        before = await stage.state()
        fault = stage.simulator.faults.add(Fault(target="kube", kind="status", status=503, method="DELETE"))

        answer = await Daemon(one).does(Verb.ROTATE, uid, revoke=True)

        assert answer.word is AnswerStatus.FAILED
        assert "the former one is not revoked yet" in answer.text
        assert (await stage.state()).credentials[uid] != before.credentials[uid]
        stage.simulator.faults.remove(fault)
        stage.advance(hours=1)
        await one.nudge()
        after = await stage.state()
        assert not await works(after.records[uid], published_token(stage, before, uid))


async def test_a_rotation_is_done_once(stage_of: Any) -> None:
    stage, cluster = await one_cluster(stage_of)
    async with running(stage) as one:
        await one.list()
        await Daemon(one).does(Verb.ROTATE, cluster.uid)
        await one.nudge()
        assert sum(issued(stage).values()) == 2


# -- pause ------------------------------------------------------------------------------------------------------------


async def test_nothing_is_written_to_a_paused_cluster_by_any_path(stage_of: Any) -> None:
    """Renewals, verifications, repairs, another mode, another configuration, prune, release."""
    stage: Stage = await stage_of(projects=1, clusters=3, oidc_share=0.0)
    paused, other, _ = stage.simulator.world.clusters.values()
    async with running(stage) as one:
        await one.list()
        answer = await Daemon(one).does(Verb.PAUSE, paused.uid, reason="the cluster moves")
        assert answer.word is AnswerStatus.DONE
        assert "its token is not renewed meanwhile and lapses at 2026-07-16" in answer.text
        stage.simulator.requests.reset()

        refused = [await Daemon(one).does(verb, paused.uid) for verb in (Verb.RESYNC_CLUSTER, Verb.ROTATE)]
        assert all("palette-sync resume" in answer.text for answer in refused)
        await one.resync(allow_prune=True)
        stage.advance(hours=20)  # the tokens are due
        await one.nudge()
        paused.kube.remove("ClusterRole", None, "backstage-read-only")
        await one.resync()
        stage.advance(days=3)  # the token has lapsed
        await one.nudge()
        await one.resync()

        assert all_writes(stage, paused.uid) == []
        assert stage.kube_requests(paused.uid) == 0, "it is not even asked"
        assert all_writes(stage, other.uid), "the others are worked on"
        record = await stage.record(paused.uid)
        assert (record.access.state, record.access.reason) == (AccessState.FAILED, Reason.TOKEN_LAPSED)
        assert record.pause is not None
        assert record.pause.by == "anna@host:1"

    # Another process leads, with another mode and other rights for all clusters.
    stage.reconfigure("", "\n[defaults.rbac]\nlabels = { team = 'b' }\n[defaults.auth]\nmode = 'oidc'\n")
    for _ in range(2):
        await stage.run(resync=True)
    assert all_writes(stage, paused.uid) == []

    # Leaving for good.
    async with client_of("alpha", stage.settings.instances["alpha"], stage.shared.limits) as client:
        ports = ports_of(stage.shared, "alpha", client, publisher=None, clock=stage.clock)
        released = {one.uid: one.error for one in await release_instance(ports, [paused.uid, other.uid], yes=False)}
    assert "resume it first" in released[paused.uid]
    assert released[other.uid] == ""
    assert all_writes(stage, paused.uid) == []


@pytest.mark.parametrize("way", ["deleted", "vanished", "deselected"])
async def test_the_record_of_a_paused_cluster_stays_whatever_becomes_of_the_cluster(stage_of: Any, way: str) -> None:
    stage, cluster = await one_cluster(stage_of, "[defaults]\nprune_confirm = '1m'\n")
    uid = cluster.uid
    async with running(stage) as one:
        await one.list()
        await Daemon(one).does(Verb.PAUSE, uid, reason="look at it first")
    if way == "deleted":
        stage.simulator.world.set_state(uid, "Deleted")
    elif way == "vanished":
        stage.simulator.world.remove_cluster(uid)
    else:
        stage.shared = replace(
            stage.shared,
            policies={
                name: replace(policy, filters=replace(policy.filters, exclude_projects=("*",)))
                for name, policy in stage.shared.policies.items()
            },
        )
    stage.simulator.requests.reset()
    for _ in range(3):
        report = await stage.run(allow_prune=True)
        stage.advance(minutes=5)
        assert [change.reason for change in report.changes if Effect.HELD in change.effects] == [Reason.WRITES_PAUSED]
    assert uid in (await stage.state()).records
    assert all_writes(stage, uid) == []


async def test_a_pause_ends_by_itself_and_what_was_due_is_done_at_once(stage_of: Any) -> None:
    stage, cluster = await one_cluster(stage_of)
    uid = cluster.uid
    async with running(stage) as one:
        await one.list()
        moment = stage.clock().replace(microsecond=0)
        end = moment + timedelta(hours=20)
        assert await one.mailbox.pause(uid, Pause("a while", "anna", moment, end))
        assert one.status.paused == 1
        assert one.status.wakes_at == end, "the runner wakes then"
        stage.advance(hours=19)
        await one.nudge()
        assert sum(issued(stage).values()) == 1

        stage.advance(hours=1, seconds=1)
        await one.nudge()

        assert (await stage.record(uid)).pause is None
        assert one.status.paused == 0
        assert sum(issued(stage).values()) == 2, "the renewal that was due"


async def test_a_resume_looks_at_the_cluster_at_once(stage_of: Any) -> None:
    stage, cluster = await one_cluster(stage_of)
    async with running(stage) as one:
        await one.list()
        daemon = Daemon(one)
        assert "it was not paused" in (await daemon.does(Verb.RESUME, cluster.uid)).text
        await daemon.does(Verb.PAUSE, cluster.uid, reason="work", lasts=timedelta(hours=2))
        cluster.kube.remove("ClusterRole", None, "backstage-read-only")

        answer = await daemon.does(Verb.RESUME, cluster.uid)

        assert answer.word is AnswerStatus.DONE
        assert "resumed; ready (Verified)" in answer.text
        assert cluster.kube.get("ClusterRole", None, "backstage-read-only") is not None


async def test_a_pause_survives_the_loss_of_redis_and_another_leader(stage_of: Any, raw: Any) -> None:
    stage, cluster = await one_cluster(stage_of)
    async with running(stage) as one:
        await one.list()
        await Daemon(one).does(Verb.PAUSE, cluster.uid, reason="kept")
        await flush(raw, stage)
        await one.list()
        assert (await stage.record(cluster.uid)).pause is not None
    async with running(stage, runtime(stage, holder="test:2")) as another:
        await another.list()
        record = await stage.record(cluster.uid)
        assert record.pause is not None
        assert record.pause.reason == "kept"


async def work_hangs(stage: Stage, one: Any, cluster: SimCluster) -> None:
    """The token is renewed, and the API server does not answer."""
    await one.list()
    stage.simulator.faults.add(Fault(target="kube", kind="hang"))
    stage.advance(hours=20)
    await one.nudge()
    assert one.runner._ongoing.lanes.busy == {cluster.uid}


async def test_a_pause_ends_the_work_on_a_cluster_that_hangs_before_it_is_answered(stage_of: Any) -> None:
    stage, cluster = await one_cluster(stage_of)
    async with running(stage) as one:
        await work_hangs(stage, one, cluster)

        answer = await Daemon(one).does(Verb.PAUSE, cluster.uid, reason="it hangs")

        assert answer.word is AnswerStatus.DONE
        assert not one.runner._ongoing.lanes.busy


async def test_the_tag_in_palette_pauses_from_the_next_listing_on_also_before_the_first_access(stage_of: Any) -> None:
    stage: Stage = await stage_of(projects=1, clusters=2, oidc_share=0.0)
    known, new = stage.simulator.world.clusters.values()
    stage.simulator.world.set_tags(new.uid, [*new.tags, PAUSE_TAG])
    async with running(stage) as one:
        await one.list()
        assert all_writes(stage, new.uid) == []
        access = (await stage.record(new.uid)).access
        assert (access.state, access.reason) == (AccessState.PENDING, Reason.WRITES_PAUSED)

        stage.simulator.world.set_tags(known.uid, [*known.tags, PAUSE_TAG])
        await one.list()
        stage.simulator.requests.reset()
        stage.advance(hours=20)
        await one.resync()
        assert all_writes(stage, known.uid) == []
        assert one.status.paused == 2
        answer = await Daemon(one).does(Verb.RESUME, known.uid)
        assert answer.word is AnswerStatus.FAILED
        assert "remove the tag" in answer.text

        for tagged in (known, new):
            stage.simulator.world.set_tags(tagged.uid, [one for one in tagged.tags if one != PAUSE_TAG])
        await one.list()
        assert one.status.access == {"ready": 2}


@pytest.mark.parametrize("way", ["deleted", "deselected"])
async def test_the_tag_counts_in_the_listing_that_would_drop_the_cluster(stage_of: Any, way: str) -> None:
    stage, cluster = await one_cluster(stage_of)
    uid = cluster.uid
    await stage.run()
    stage.simulator.world.set_tags(uid, [PAUSE_TAG])
    if way == "deleted":
        stage.simulator.world.set_state(uid, "Deleting")
    else:
        stage.reconfigure("", "\n[defaults]\nexclude_tags = ['palette-sync:*']\n")
    for hours in (1, 20, 72):
        await stage.run(allow_prune=True)
        assert all_writes(stage, uid) == []
        stage.advance(hours=hours)
    assert uid in (await stage.state()).records

    stage.simulator.world.set_tags(uid, [])
    stage.simulator.world.set_state(uid, "Deleting")
    await stage.run()
    assert uid not in (await stage.state()).records


async def test_the_tag_ends_the_work_on_a_cluster_that_hangs(stage_of: Any) -> None:
    stage, cluster = await one_cluster(stage_of)
    async with running(stage) as one:
        await work_hangs(stage, one, cluster)
        stage.simulator.world.set_tags(cluster.uid, [PAUSE_TAG])
        await one.list()
        assert not one.runner._ongoing.lanes.busy


async def test_a_pause_is_published_at_the_first_moment_of_a_life(stage_of: Any) -> None:
    """Before the first listing all records are unconfirmed, and the paused one stays so."""
    stage, cluster = await one_cluster(stage_of)
    await stage.run()
    async with running(stage) as one:
        await until(lambda: one.runner.last_state is not None)
        assert (await Daemon(one).does(Verb.PAUSE, cluster.uid, reason="now")).word is AnswerStatus.DONE
        head = (await stage.state()).head
        assert head is not None
        assert head.unconfirmed == (cluster.uid,)

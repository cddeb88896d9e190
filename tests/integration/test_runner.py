"""The runner of one instance against a real Valkey and the simulator: lease, mail, and every way Redis fails it."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from integration.runners import Watcher, issued, look_often, running, runtime
from integration.store_builders import Proxy, raw_client, until
from palette_sync.reconcile import publish
from palette_sync.runner import RunnerState
from palette_sync.runner.instance import TROUBLE_PAUSES
from palette_sync.simulator import Fault
from palette_sync.store import batches
from palette_sync.store.lease import Lease
from palette_sync.store.redis import Store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from integration.runners import Running
    from integration.stage import Stage
    from palette_sync.palette import PaletteClient
    from palette_sync.runner import Runner

SEARCH = "/v1/dashboard/spectroclusters/search"
VERSION = b"version\r\n$1\r\n1\r\n"  # how a version goes to Redis: the word, the schema, and then its number


@pytest_asyncio.fixture
async def raw(valkey_url: str) -> AsyncIterator[Any]:
    async with raw_client(valkey_url) as client:
        yield client


async def flush(raw: Any, stage: Stage) -> None:
    """Lose everything that belongs to this stage; other tests share the server."""
    keys = [key async for key in raw.scan_iter(match=f"*{stage.settings.redis.prefix}*", count=1000)]
    await raw.delete(*keys)


async def dump(raw: Any, stage: Stage) -> dict[bytes, bytes]:
    keys = [key async for key in raw.scan_iter(match=f"*{stage.settings.redis.prefix}*", count=1000)]
    return {key: await raw.dump(key) for key in keys}


async def restore(raw: Any, kept: dict[bytes, bytes]) -> None:
    for key, value in kept.items():
        await raw.restore(key, 0, value)


async def through(stage: Stage, proxy: Proxy) -> Store:
    """The stage's store, seen through a proxy."""
    return Store.open(proxy.url, prefix=stage.settings.redis.prefix, sealer=stage.shared.sealer)


class Around:
    """Stands around a Palette client; what a subclass does not have is the client's own."""

    def __init__(self, client: PaletteClient) -> None:
        self._client = client

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._client.__aexit__(*error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


class Gate:
    """Holds up a call of Palette's clients from when it is `reached` until the gate is `opened`; listings search."""

    def __init__(self, call: str = "post_json") -> None:
        self.reached, self.opened = asyncio.Event(), asyncio.Event()
        self._call = call

    def before(self, client: PaletteClient) -> Any:
        around = Around(client)

        async def held_up(*given: Any, **named: Any) -> Any:
            self.reached.set()
            await self.opened.wait()
            return await getattr(client, self._call)(*given, **named)

        setattr(around, self._call, held_up)
        return around


# -- passes ----------------------------------------------------------------------------------------------------------


async def test_it_leads_passes_and_answers_a_resync(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=3, oidc_share=0.0)
    async with running(stage) as one:
        first = await one.list()
        assert (one.status.state, one.status.access) == (RunnerState.LEADING, {"ready": 3})
        assert one.status.version == first.version == (await stage.state()).head.version  # type: ignore[union-attr]
        assert one.status.attempted_at is not None
        assert one.status.succeeded_at is not None

        report = await one.resync()

        assert (first.due, report.due) == (3, 3)
        assert report is one.watcher.reports[-1]
        assert one.status.passes == 2
        assert one.watcher.listed == [True, True]
    assert one.watcher.states == [RunnerState.STARTING, RunnerState.LEADING, RunnerState.STOPPED]
    assert sum(issued(stage).values()) == 3


async def test_five_resyncs_during_a_pass_are_one_more_pass_and_all_are_answered(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=2, oidc_share=0.0)
    sound, gate = runtime(stage), Gate()
    async with running(stage, replace(sound, open_client=lambda: gate.before(sound.open_client()))) as one:
        one.mailbox.tick()
        await gate.reached.wait()
        assert one.status.busy_since is not None
        answers = [one.mailbox.ask() for _ in range(5)]
        one.mailbox.resync()
        gate.opened.set()
        reports = [await answer for answer in answers]

        assert len({report.pass_id for report in reports}) == 1
        assert reports[0] is not one.watcher.reports[0]
        assert one.status.passes == 2


async def test_stopping_interrupts_a_listing_at_once_and_cancels_who_waits(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=2)
    stage.simulator.faults.add(Fault(target="palette", kind="hang", path=SEARCH))
    async with running(stage) as one:
        answer = one.mailbox.ask()
        await until(lambda: stage.simulator.faults.standing()[0].hits)
        await one.stop()  # but for the interruption the pass ended a minute later, with a report

    assert answer.cancelled()
    assert one.watcher.reports == []
    assert one.watcher.failed == [], "a pass that was interrupted has not failed"
    assert (await stage.state()).head is None, "nothing was published"


async def test_stopping_gives_up_looking_at_the_key_at_once(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=1)
    sound, gate = runtime(stage), Gate("get_json")
    async with running(stage, replace(sound, open_client=lambda: gate.before(sound.open_client()))) as one:
        one.mailbox.check_key()
        await gate.reached.wait()
        await one.stop()  # the gate stays shut: but for the interruption this waited for ever

    assert one.watcher.failed == []


async def test_stopping_finishes_the_clusters_at_work_and_publishes_what_was_issued(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=8, oidc_share=0.0, extra="[service]\nconcurrency = 2\n")
    stage.simulator.faults.add(Fault(target="kube", kind="latency", seconds=0.02))
    async with running(stage) as one:
        answer = one.mailbox.ask()
        await until(stage.kube_requests)
        await one.stop()

    report = answer.result()
    assert 0 < report.skipped < 8
    assert (await stage.state()).credentials.keys() == issued(stage).keys()
    assert len(issued(stage)) == 8 - report.skipped


async def test_what_is_late_is_cancelled_and_the_rest_published(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=3, oidc_share=0.0)
    stuck = next(iter(stage.simulator.world.clusters))
    stage.simulator.faults.add(Fault(target="kube", kind="hang", cluster=stuck))
    async with running(stage) as one:
        with capture_logs() as logs:
            one.mailbox.tick()
            await until(lambda: sum(line["event"] == "token_issued" for line in logs) == 2)
        one.late.set()
        await one.stop()

    assert one.watcher.reports[0].skipped == 1
    assert (await stage.state()).credentials.keys() == stage.simulator.world.clusters.keys() - {stuck}


async def test_an_exception_in_a_pass_is_borne_and_the_next_tick_works(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=2, oidc_share=0.0)
    sound = runtime(stage)
    broken = [True]

    def ports(*given: Any) -> Any:
        if broken[0]:
            raise LookupError("a bug")
        return sound.ports(*given)

    async with running(stage, replace(sound, ports=ports)) as one:
        with capture_logs() as logs:
            answer = one.mailbox.ask()
            await until(answer.done)
        assert answer.cancelled()
        assert one.watcher.failed == ["InternalError"]
        assert one.status.error == "LookupError; the log has the traceback"
        assert [line["event"] for line in logs if line["log_level"] == "error"] == ["pass_failed"]
        broken[0] = False

        report = await one.list()

        assert dict(report.access) == {"ready": 2}
        assert (one.status.error, one.status.state) == (None, RunnerState.LEADING)


class Flawed(Around):
    """A Palette client with a mistake that shows in the first file that it fetches."""

    shown = False

    async def get_file(self, *given: Any, **named: Any) -> bytes:
        if not self.shown:
            self.shown = True
            raise LookupError("a bug")
        return await self._client.get_file(*given, **named)


async def test_a_bug_in_the_work_on_a_cluster_is_a_reason_on_that_cluster(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=2, oidc_share=0.0)
    sound = runtime(stage)
    flawed: Any = replace(sound, open_client=lambda: Flawed(sound.open_client()))
    async with running(stage, flawed) as one:
        with capture_logs() as logs:
            report = await one.list()

        assert dict(report.access) == {"failed": 1, "ready": 1}
        (told,) = [change for change in report.changes if change.reason == "InternalError"]
        assert told.message == "LookupError; the log has the traceback"
        assert [line["error"] for line in logs if line["event"] == "unexpected_error"] == ["LookupError"]
        assert one.watcher.failed == []


async def test_an_exception_of_the_runner_itself_leaves_it_and_cancels_who_waits(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=2)
    watcher = Watcher()

    def broken(_: Runner) -> None:
        raise LookupError("a bug")

    async with running(stage, watcher=watcher) as one:
        await one.stands(RunnerState.LEADING)
        watcher.on_settled = broken
        answer = one.mailbox.ask()
        with pytest.raises(LookupError, match="a bug"):
            await one.task

    assert answer.cancelled()
    assert one.status.state is RunnerState.STOPPED
    async with await Lease.acquire(stage.shared.store, "alpha", ttl=5, holder="other:1"):
        pass  # the lease was given back


async def test_a_pass_that_palette_fails_is_told_and_changes_nothing(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=2, oidc_share=0.0)
    async with running(stage) as one:
        await one.list()
        succeeded = one.status.succeeded_at
        stage.simulator.world.set_key_active("alpha", active=False)
        stage.advance(seconds=1)

        report = await one.list()

        assert report.error is not None
        assert one.status.error == report.error
        assert one.status.succeeded_at == succeeded
        assert one.status.attempted_at > succeeded  # type: ignore[operator]
        assert one.status.access == {"ready": 2}


async def test_a_configuration_applies_at_the_next_pass_which_begins_at_once(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=2, oidc_share=0.0)
    async with running(stage) as one:
        await one.list()
        stage.reconfigure("", '\n[instances.alpha.rbac]\npreset = "view"\n')

        one.runner.configure(runtime(stage))
        report = await one.passes(2)

        assert {change.reason for change in report.changes} == {"ConfigChanged"}
        assert one.watcher.listed == [True, True]
    assert sum(issued(stage).values()) == 2


async def test_what_is_around_an_instance_may_change_without_a_pass(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=2, oidc_share=0.0)
    async with running(stage) as one:
        await one.list()
        opened = []
        given = runtime(stage)

        def open_client() -> Any:
            opened.append(True)
            return given.open_client()

        one.runner.configure(replace(given, open_client=open_client), at_once=False)
        assert one.mailbox.pending.options is None
        report = await one.list()

        assert opened == [True]
        assert (report.due, len(one.watcher.reports)) == (0, 2)


async def test_who_waits_no_longer_for_an_answer_disturbs_nobody(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=1, oidc_share=0.0)
    async with running(stage) as one:
        gone, waiting = one.mailbox.ask(), one.mailbox.ask()
        gone.cancel()

        assert (await waiting).error is None
        assert one.watcher.failed == []
        assert not one.runner.stopping
    assert one.runner.stopping


# -- what is due by itself -------------------------------------------------------------------------------------------


async def test_it_knows_when_the_first_thing_will_be_due(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=3, oidc_share=0.0)
    async with running(stage) as one:
        assert one.runner.due_queue(5) == []
        await one.list()
        queue = one.runner.due_queue(2)

        assert len(queue) == 2
        assert one.status.wakes_at == queue[0][0] > stage.clock()
        assert {uid for _, uid in queue} <= stage.simulator.world.clusters.keys()
        assert one.status.first_lapse is not None


async def test_a_nudge_renews_what_is_due_without_asking_palette_what_there_is(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=2, oidc_share=0.0)
    async with running(stage) as one:
        await one.list()
        stage.advance(hours=17)
        stage.simulator.requests.reset()

        report = await one.nudge()

        assert {change.reason for change in report.changes} <= {"TokenDue"}
        assert issued(stage) == dict.fromkeys(stage.simulator.world.clusters, 2)
        assert stage.simulator.requests.count("palette", path_regex=SEARCH) == 0
        assert one.watcher.listed == [True, False]


async def test_passes_over_known_clusters_that_find_nothing_come_further_and_further_apart(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=1, oidc_share=0.0)
    watcher = Watcher()
    async with running(stage, watcher=watcher) as one:
        await one.list()
        quiet = []
        for _ in range(9):
            await one.nudge()
            quiet.append(one.runner._pause)
        assert quiet == [0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0]
        stage.advance(hours=17)
        await one.nudge()
        assert one.runner._pause == 0.2


async def test_what_is_overdue_wakes_it_after_a_pause_and_not_in_a_spin(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=1, oidc_share=0.0)
    async with running(stage) as one:
        await one.list()
        stage.simulator.faults.add(Fault(target="palette", kind="status", status=503, path="adminKubeconfig"))
        stage.advance(hours=17)
        await one.nudge()
        now = stage.clock()

        assert one.status.renewals_failing == 1
        assert one.status.wakes_at is not None
        assert now + timedelta(seconds=10) < one.status.wakes_at < now + timedelta(minutes=1), "the backoff's end"

        stage.advance(minutes=5)
        await one.runner._settle(one.runner._publisher)  # type: ignore[arg-type]
        assert one.status.wakes_at == stage.clock() + timedelta(seconds=0.2)


async def test_a_nudge_that_came_during_a_pass_is_answered_by_it(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=1, oidc_share=0.0)
    watcher = Watcher()
    async with running(stage, watcher=watcher) as one:
        watcher.on_finished = lambda _: None
        one.mailbox.tick()
        await until(lambda: one.status.busy_since is not None)
        one.mailbox.nudge()
        await one.passes(1)
        await until(lambda: one.status.busy_since is None)

        assert not one.mailbox.wanted.is_set()
        assert len(watcher.reports) == 1


# -- the lease -------------------------------------------------------------------------------------------------------


async def test_behind_another_holder_it_stands_by_and_takes_over(
    stage_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_often(monkeypatch)
    stage: Stage = await stage_of(clusters=2, oidc_share=0.0)
    await stage.run()
    async with running(stage) as one:
        await one.list()
        await one.stop()
    looks, take = [0], stage.shared.store.take_lease

    async def counted(*given: Any, **named: Any) -> Any:
        looks[0] += 1
        return await take(*given, **named)

    lease = await Lease.acquire(stage.shared.store, "alpha", ttl=600, holder="host-b:77")
    monkeypatch.setattr(stage.shared.store, "take_lease", counted)
    async with running(stage) as one:
        with capture_logs() as logs:
            await one.stands(RunnerState.STANDBY)
            assert "process 77 on host-b" in one.status.detail
            assert one.status.read, "a standby serves what the other published"
            assert one.status.access == {"ready": 2}
            one.mailbox.resync()
            seen = looks[0]
            await until(lambda: looks[0] >= seen + 3)
            assert one.watcher.reports == []
            await stage.shared.store.give_lease_back("alpha", lease.value)
            report = await one.passes(1)

        assert [line["event"] for line in logs if line["event"] == "standing_by"] == ["standing_by"], "said once"
        assert (report.due, one.status.state) == (2, RunnerState.LEADING), "what was asked for meanwhile was kept"
    assert sum(issued(stage).values()) == 2


async def test_of_two_daemons_one_leads_and_the_other_takes_over_without_touching_a_cluster(
    stage_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_often(monkeypatch)
    stage: Stage = await stage_of(clusters=3, oidc_share=0.0)
    async with running(stage, runtime(stage, holder="a:1")) as first:
        await first.list()
        async with running(stage, runtime(stage, holder="b:2")) as second:
            await second.stands(RunnerState.STANDBY)
            second.mailbox.tick()
            stage.simulator.requests.reset()
            await first.stop()
            report = await second.passes(1)

            assert (report.due, report.changes, stage.kube_requests()) == (0, (), 0)
            assert second.status.state is RunnerState.LEADING
    assert set(issued(stage).values()) == {1}


async def test_fenced_off_by_another_writer_it_leads_again_with_a_new_epoch(stage_of: Any, raw: Any) -> None:
    stage: Stage = await stage_of(clusters=2, oidc_share=0.0)
    async with running(stage) as one:
        await one.list()
        key = stage.shared.store.keys.epoch("alpha")
        another = int(await raw.get(key)) + 1_000_000
        await raw.set(key, str(another))

        report = await one.resync()

        assert report.error is None
        assert int(await raw.get(key)) == another + 1
        assert RunnerState.STORELESS in one.watcher.states
        assert RunnerState.STANDBY not in one.watcher.states, "nobody else leads"
        assert one.status.state is RunnerState.LEADING
        assert one.watcher.failed == ["Fenced"]


async def test_a_lease_that_was_taken_away_is_noticed_without_any_mail(
    stage_of: Any, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_often(monkeypatch)
    stage: Stage = await stage_of(clusters=1)
    async with running(stage) as one:
        await one.stands(RunnerState.LEADING)
        await raw.set(stage.shared.store.keys.lease("alpha"), '{"holder":"host-b:9"}')
        await raw.incr(stage.shared.store.keys.epoch("alpha"))

        await one.stands(RunnerState.STANDBY)
        await raw.delete(stage.shared.store.keys.lease("alpha"))
        await one.stands(RunnerState.LEADING)


# -- Redis loses, or lies --------------------------------------------------------------------------------------------


async def test_redis_flushed_between_passes_is_filled_again_and_no_token_issued(stage_of: Any, raw: Any) -> None:
    stage: Stage = await stage_of(clusters=4, oidc_share=0.5)
    async with running(stage) as one:
        await one.list()
        before, tokens = await stage.state(), issued(stage)
        await flush(raw, stage)

        with capture_logs() as logs:
            await one.resync()

        after = await stage.state()
        assert "store_refilled" in [line["event"] for line in logs]
        assert after.trusted
        assert after.head is not None
        assert after.head.complete
        assert after.head.epoch > before.head.epoch  # type: ignore[union-attr]
        assert after.records == before.records
        assert after.issuers.keys() == before.issuers.keys()
        assert issued(stage) == tokens
        for uid in tokens:
            assert await stage.pods(uid) > 0


async def test_redis_flushed_is_noticed_without_any_mail(
    stage_of: Any, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_often(monkeypatch)
    stage: Stage = await stage_of(clusters=2, oidc_share=0.0)
    async with running(stage) as one:
        await one.list()
        before = await stage.state()
        await flush(raw, stage)

        await until(lambda: _published(stage))

        assert (await stage.state()).records == before.records
    assert sum(issued(stage).values()) == 2


async def _published(stage: Stage) -> bool:
    return (await stage.state()).head is not None


async def test_redis_that_comes_back_with_older_data_is_filled_again(stage_of: Any, raw: Any) -> None:
    stage: Stage = await stage_of(clusters=2, oidc_share=0.0)
    async with running(stage) as one:
        await one.list()
        older = await dump(raw, stage)
        stage.advance(hours=17)
        await one.list()
        newer, tokens = await stage.state(), issued(stage)
        assert set(tokens.values()) == {2}
        await flush(raw, stage)
        await restore(raw, older)

        await one.resync()

        after = await stage.state()
        assert after.credentials.keys() == newer.credentials.keys()
        assert {uid: one.issued_at for uid, one in after.credentials.items()} == {
            uid: one.issued_at for uid, one in newer.credentials.items()
        }
        assert issued(stage) == tokens
        # Readers have seen the versions that Redis lost: what takes their numbers is of another epoch.
        assert newer.head is not None
        assert after.head is not None
        assert after.head.epoch > newer.head.epoch


async def test_a_tampered_record_is_mended_from_memory(stage_of: Any, raw: Any) -> None:
    stage: Stage = await stage_of(clusters=3, oidc_share=0.0)
    async with running(stage) as one:
        await one.list()
        before, tokens = await stage.state(), issued(stage)
        uid = next(iter(before.records))
        key = stage.shared.store.keys.clusters("alpha")
        evil = (await raw.hget(key, uid)).replace(b"https://127.0.0.1", b"https://127.0.0.9")
        await raw.hset(key, uid, evil)
        assert not (await stage.state()).trusted

        await one.list()

        after = await stage.state()
        assert after.trusted
        assert after.records == before.records
        assert issued(stage) == tokens


async def test_a_version_of_somebody_else_is_a_conflict_that_the_next_look_resolves(stage_of: Any, raw: Any) -> None:
    stage: Stage = await stage_of(clusters=2, oidc_share=0.0)
    async with running(stage) as one:
        await one.list()
        await raw.hset(stage.shared.store.keys.head("alpha"), "version", "41")
        stage.advance(hours=17)

        with capture_logs() as logs:
            report = await one.nudge()

        assert "store_changed" in [line["event"] for line in logs]
        assert report.error is None
        state = await stage.state()
        assert state.trusted
        assert state.head.version > 41  # type: ignore[union-attr]
        assert one.status.state is RunnerState.LEADING
        for uid in state.records:
            assert await stage.pods(uid) > 0


async def test_a_token_that_no_key_opens_any_more_is_issued_anew_after_a_flush(stage_of: Any, raw: Any) -> None:
    stage: Stage = await stage_of(clusters=2, oidc_share=0.0)
    async with running(stage) as one:
        await one.list()
        memory = one.runner._last_state
        assert memory is not None
        lost = next(iter(memory.credentials))
        one.runner._last_state = replace(
            memory, credentials={**memory.credentials, lost: replace(memory.credentials[lost], sealed="no jwe")}
        )
        await flush(raw, stage)

        await one.list()

        assert (await stage.state()).credentials.keys() == memory.credentials.keys()
        assert issued(stage) == {uid: 1 + (uid == lost) for uid in memory.credentials}


async def test_while_redis_is_away_nothing_is_issued_and_the_mail_is_kept(
    stage_of: Any, valkey_url: str, tmp_path: Path
) -> None:
    stage: Stage = await stage_of(clusters=2, oidc_share=0.0)
    proxy = Proxy(valkey_url, tmp_path)
    async with await through(stage, proxy) as store:
        stage.shared = replace(stage.shared, store=store)
        async with running(stage) as one:
            with capture_logs() as logs:
                await one.stands(RunnerState.STORELESS)
                await until(lambda: one.runner._store_failures >= 2)
                async with proxy:
                    await one.list()
                    stage.advance(hours=17)
                one.mailbox.nudge()
                await one.stands(RunnerState.STORELESS)

                assert set(issued(stage).values()) == {1}, "a token could not have been published"
                async with Proxy(valkey_url, tmp_path):
                    report = await one.passes(2)
                    await one.stop()

            assert (report.due, set(issued(stage).values())) == (2, {2})
            events = [line["event"] for line in logs if line["event"].startswith("store_")]
            assert events == ["store_away", "store_back", "store_away", "store_back"], "said once each"
    assert one.watcher.failed == ["StoreUnavailable"]


async def test_an_outage_that_outlasts_the_lease_is_no_standby(stage_of: Any, valkey_url: str, tmp_path: Path) -> None:
    """The figures of an instance that another process leads are dropped; those of a Redis that is away must stay."""
    stage: Stage = await stage_of(clusters=1, oidc_share=0.0)
    proxy = Proxy(valkey_url, tmp_path)
    async with await through(stage, proxy) as store:
        stage.shared = replace(stage.shared, store=store)
        async with running(stage, runtime(stage, lease_ttl=0.3)) as one:
            async with proxy:
                await one.list()
            await until(lambda: one.runner._store_failures > 0)
            async with Proxy(valkey_url, tmp_path):
                await one.stands(RunnerState.LEADING)
                await one.stop()

    assert RunnerState.STORELESS in one.watcher.states
    assert RunnerState.STANDBY not in one.watcher.states


async def test_after_a_flush_no_token_is_issued_that_the_fence_would_lose(stage_of: Any, raw: Any) -> None:
    stage: Stage = await stage_of(clusters=2, oidc_share=0.0)
    async with running(stage) as one:
        await one.list()
        await flush(raw, stage)
        stage.advance(hours=17)

        await one.nudge()

        assert set(issued(stage).values()) == {2}
        for uid in issued(stage):
            assert await stage.pods(uid) > 0


async def test_what_was_published_before_redis_went_down_empty_in_the_middle_of_a_pass_is_not_issued_again(
    stage_of: Any, raw: Any, valkey_url: str, tmp_path: Path
) -> None:
    stage: Stage = await stage_of(clusters=4, oidc_share=0.0)
    slow = next(iter(stage.simulator.world.clusters))
    stage.simulator.faults.add(Fault(target="kube", kind="latency", cluster=slow, seconds=1.0))
    proxy = Proxy(valkey_url, tmp_path)
    async with await through(stage, proxy) as store:
        stage.shared = replace(stage.shared, store=store)
        async with running(stage) as one:
            async with proxy:
                await one.stands(RunnerState.LEADING)
                one.mailbox.tick()
                async with Store.open(valkey_url, prefix=store.keys.prefix, sealer=stage.shared.sealer) as direct:
                    await until(lambda: _credentials(direct))
                    early = set((await direct.load("alpha")).credentials)
            assert slow not in early
            await flush(raw, stage)
            stage.simulator.faults.clear()
            await one.stands(RunnerState.STORELESS)
            async with Proxy(valkey_url, tmp_path):
                assert dict((await one.passes(1)).access) == {"ready": 4}
                await one.stop()

    assert {uid: count for uid, count in issued(stage).items() if uid in early} == dict.fromkeys(early, 1)


async def test_tokens_that_were_issued_before_redis_died_and_not_published_are_published_once_it_is_back(
    stage_of: Any, valkey_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage: Stage = await stage_of(clusters=4, oidc_share=0.0)
    proxy = Proxy(valkey_url, tmp_path)
    monkeypatch.setattr(publish, "LAST_TRIES", ())
    async with await through(stage, proxy) as store:
        stage.shared = replace(stage.shared, store=store)
        async with running(stage) as one:
            async with proxy:
                await one.list()
                stage.advance(hours=17)
                slow = next(iter(stage.simulator.world.clusters))
                stage.simulator.faults.add(Fault(target="kube", kind="latency", cluster=slow, seconds=0.3))
                proxy.refuse = VERSION  # as if Redis were gone for versions, but not yet for the lease
                one.mailbox.nudge()
                await until(lambda: sum(issued(stage).values()) >= 7)
                await until(lambda: proxy.lost > 0)
            stage.simulator.faults.clear()
            await one.stands(RunnerState.STORELESS)
            before = issued(stage)
            async with Proxy(valkey_url, tmp_path):
                await one.passes(2)
                await one.stop()
                state = await stage.state()
                pods = [await stage.pods(uid) for uid in state.records]

    assert sum(before.values()) >= 7
    assert {uid: issued(stage)[uid] - count for uid, count in before.items()} == {
        uid: int(before[uid] == 1) for uid in before
    }, "only what had not been issued is"
    assert all(pods)


async def test_a_refill_that_broke_off_is_begun_again(
    stage_of: Any, raw: Any, valkey_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage: Stage = await stage_of(clusters=6, oidc_share=0.0)
    monkeypatch.setattr(batches, "MOST_CHANGES", 4)
    proxy = Proxy(valkey_url, tmp_path)
    async with await through(stage, proxy) as store:
        stage.shared = replace(stage.shared, store=store)
        async with running(stage) as one, proxy:
            await one.list()
            before, tokens = await stage.state(), issued(stage)
            await flush(raw, stage)
            proxy.refuse = VERSION + b"$1\r\n2\r\n"  # the second version never arrives
            one.mailbox.tick()
            await until(lambda: one.runner._store_failures > 0)
            part = await stage.state()
            assert part.head is not None
            assert 0 < len(part.records) < 6
            proxy.refuse = None
            await one.passes(2)
            after = await stage.state()
            await one.stop()

    assert after.records == before.records
    assert after.head is not None
    assert after.head.complete
    assert issued(stage) == tokens


async def _credentials(store: Store) -> int:
    return len((await store.load("alpha")).credentials)


async def test_a_store_that_takes_no_versions_is_asked_less_and_less_often_and_nothing_is_issued_for_it(
    stage_of: Any, raw: Any
) -> None:
    stage: Stage = await stage_of(clusters=2, oidc_share=0.0)
    key = stage.shared.store.keys.history("alpha")
    await raw.lpush(key, "somebody else's")
    async with running(stage) as one:
        with capture_logs() as logs:
            one.mailbox.tick()
            await until(lambda: one.runner._store_failures >= 3)

            assert "holds another kind of value" in one.status.detail
            assert issued(stage) == {}
            assert stage.simulator.requests.count("palette") == 0
            await raw.delete(key)
            await one.passes(1)
            await until(lambda: one.status.busy_since is None)
        assert [line["event"] for line in logs if line["event"].startswith("store_")] == ["store_away", "store_back"]
        assert one.runner._store_failures == 0


# -- the API key -----------------------------------------------------------------------------------------------------


def keys(logs: list[dict[str, Any]]) -> list[tuple[str, Any]]:
    return [
        (line["event"], line.get("days", line["reason"])) for line in logs if str(line["event"]).startswith("api_key")
    ]


async def look_at_key(one: Running) -> None:
    """The mail is taken in turn, so an answered resync behind it means that the key was looked at."""
    one.mailbox.check_key()
    await until(lambda: not one.mailbox.wanted.is_set() and one.status.busy_since is None)


async def test_the_end_of_the_api_key_is_told_14_7_and_1_days_ahead_once_each(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=1, oidc_share=0.0)
    palette = stage.simulator.world.instances["alpha"]
    palette.key_expires_at = datetime.fromtimestamp(int(stage.clock().timestamp()), stage.clock().tzinfo)
    palette.key_expires_at += timedelta(days=15, hours=1)
    async with running(stage) as one:
        told: list[int] = []
        for _ in range(17):
            with capture_logs() as logs:
                await look_at_key(one)
                await look_at_key(one)
            told += [days for _, days in keys(logs)]
            stage.advance(days=1)

        assert told == [13, 6, 0], "whole days that are left, at the first look within 14, 7 and 1 days"
        assert one.status.key_expires_at == palette.key_expires_at
        assert one.watcher.reports == [], "looking at the key is no pass"

        palette.key_expires_at += timedelta(days=400)
        with capture_logs() as logs:
            await look_at_key(one)
        assert keys(logs) == []
        assert one.status.key_expires_at == palette.key_expires_at

        await one.list()
        status = (await stage.state()).status
        assert status["api_key"]["name"] == palette.api_key_name  # type: ignore[index]


async def test_a_key_that_never_ends_warns_of_nothing(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=1, oidc_share=0.0)
    body = {"items": [{"metadata": {"name": "palette-sync-alpha", "uid": "k1"}, "spec": {"user": {}}}]}
    stage.simulator.faults.add(
        Fault(target="palette", kind="status", status=200, path="apiKeys", body=json.dumps(body))
    )
    async with running(stage) as one:
        with capture_logs() as logs:
            await look_at_key(one)

        assert keys(logs) == []
        assert (one.status.key_name, one.status.key_expires_at) == ("palette-sync-alpha", None)


async def test_a_key_that_nobody_named_is_not_looked_at(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=1, oidc_share=0.0)
    async with running(stage, runtime(stage, api_key_name=None)) as one:
        await one.list()
        with capture_logs() as logs:
            await look_at_key(one)

        assert keys(logs) == []
        assert stage.simulator.requests.count("palette", path_regex="apiKeys") == 0
        assert "api_key" not in (await stage.state()).status


async def test_of_another_key_that_is_configured_nothing_is_known_yet(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=1, oidc_share=0.0)
    async with running(stage) as one:
        await look_at_key(one)
        assert one.status.key_expires_at is not None
        stage.simulator.faults.add(Fault(target="palette", kind="status", status=403, path="apiKeys"))

        one.runner.configure(runtime(stage, api_key_name="another"))
        await one.passes(1)
        await until(lambda: one.status.key_name == "another" and one.status.busy_since is None)

        assert one.status.key_expires_at is None


async def test_a_key_that_palette_does_not_list_is_said_to_be_unknown(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=1, oidc_share=0.0)
    async with running(stage, runtime(stage, api_key_name="another")) as one:
        with capture_logs() as logs:
            await look_at_key(one)

        assert keys(logs) == [("api_key_unknown", "no key of that api_key_name is listed")]
        assert (one.status.key_name, one.status.key_expires_at) == ("another", None)


async def test_while_palette_fails_the_end_of_the_key_stays_known(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=1, oidc_share=0.0)
    async with running(stage) as one:
        await look_at_key(one)
        known = one.status.key_expires_at
        assert known is not None
        stage.simulator.faults.add(Fault(target="palette", kind="status", status=403, path="apiKeys"))
        with capture_logs() as logs:
            await look_at_key(one)

        assert [event for event, _ in keys(logs)] == ["api_key_unknown"]
        assert one.status.key_expires_at == known


async def test_a_key_that_could_not_be_looked_at_is_looked_at_again_with_the_next_listing(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=1, oidc_share=0.0)
    fault = stage.simulator.faults.add(Fault(target="palette", kind="status", status=403, path="apiKeys"))
    async with running(stage) as one:
        await look_at_key(one)
        assert one.status.key_expires_at is None
        stage.simulator.faults.remove(fault)

        await one.nudge()
        assert one.status.key_expires_at is None
        await one.list()
        await until(lambda: one.status.key_expires_at is not None)
        await one.list()
        await until(lambda: one.status.busy_since is None)

        assert stage.simulator.requests.count("palette", path_regex="apiKeys") == 2


async def test_after_an_outage_its_own_former_lease_does_not_hold_it_up(stage_of: Any, raw: Any) -> None:
    stage: Stage = await stage_of(clusters=1, oidc_share=0.0)
    key = stage.shared.store.keys.lease("alpha")
    async with running(stage) as one:
        await one.list()
        held = await raw.get(key)
        epoch = int(await raw.get(stage.shared.store.keys.epoch("alpha")))
        one.runner._former.lost.set()  # type: ignore[union-attr]
        await until(lambda: RunnerState.STORELESS in one.watcher.states)
        await raw.set(key, held)  # as if it could not have been given back

        await one.stands(RunnerState.LEADING)

        assert int(await raw.get(stage.shared.store.keys.epoch("alpha"))) > epoch
        await one.list()


# -- troubles --------------------------------------------------------------------------------------------------------


async def test_what_fails_again_and_again_is_tried_after_pauses_and_not_forgotten(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=2, oidc_share=0.0)
    good = runtime(stage)
    failing = True

    def open_client() -> Any:
        if failing:
            raise RuntimeError("a bug")
        return good.open_client()

    failed_at: list[float] = []
    watcher = Watcher()
    async with running(stage, replace(good, open_client=open_client), watcher=watcher) as one:
        note = watcher.pass_failed

        def pass_failed(instance: str, reason: str) -> None:
            failed_at.append(time.monotonic())
            note(instance, reason)

        watcher.pass_failed = pass_failed  # type: ignore[method-assign]
        one.mailbox.resync()
        await until(lambda: len(failed_at) == 2)
        assert failed_at[1] - failed_at[0] >= TROUBLE_PAUSES[0] * 0.9
        assert one.status.error == "RuntimeError; the log has the traceback"

        failing = False
        report = await one.passes(1)

        assert report.due == 2
        assert one.status.error is None


async def test_what_a_pass_left_out_is_taken_up_soon(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=2, oidc_share=0.0)
    good = runtime(stage)
    passes = 0

    def ports(client: Any, publisher: Any, may_issue: Any) -> Any:
        nonlocal passes
        passes += 1
        return good.ports(client, publisher, may_issue if passes > 1 else lambda: False)

    async with running(stage, replace(good, ports=ports)) as one:
        one.mailbox.tick()
        first, second = await one.passes(1), await one.passes(2)

    assert (first.skipped, first.access) == (2, {"pending": 2})
    assert (second.due, second.access) == (2, {"ready": 2})


@pytest.mark.parametrize("version", ["x", "-1", "9" * 20, "9" * 5000])
async def test_a_head_that_somebody_spoilt_is_mended_from_memory(stage_of: Any, raw: Any, version: str) -> None:
    stage: Stage = await stage_of(clusters=2, oidc_share=0.0)
    async with running(stage) as one:
        await one.list()
        before, tokens = await stage.state(), issued(stage)
        await raw.hset(stage.shared.store.keys.head("alpha"), "version", version)

        await one.list()

        after = await stage.state()
        assert (after.trusted, after.records) == (True, before.records)
        assert issued(stage) == tokens
        assert await stage.pods(next(iter(after.records))) > 0


@pytest.mark.parametrize("skew", [-90_000, -3_700, -240, 240, 3_700])
async def test_a_cluster_whose_clock_is_wrong_has_tokens_that_live_as_long_as_they_seem(
    stage_of: Any, skew: float
) -> None:
    stage: Stage = await stage_of(clusters=2, oidc_share=0.0)
    stage.simulator.world.advance(skew)
    for uid in stage.simulator.world.clusters:
        stage.simulator.world.set_token_cap(uid, 900)
    begun = stage.clock()

    await stage.run()
    again = await stage.run()

    assert again.due == 0
    for credential in (await stage.state()).credentials.values():
        assert credential.expires_at is not None
        # Ours and not the cluster's: from when the pass began, and a pass takes no minute.
        assert timedelta(0) <= credential.issued_at - begun.replace(microsecond=0) < timedelta(minutes=1)
        assert (credential.expires_at - credential.issued_at).total_seconds() == 900

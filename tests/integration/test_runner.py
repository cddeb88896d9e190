"""What one runner does with the requests in its mailbox, and with a pass that fails."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from integration.runners import Around, Gate, Watcher, issued, running, runtime
from integration.store_builders import until
from palette_sync.runner import RunnerState
from palette_sync.runner.instance import RETRY_PAUSES
from palette_sync.simulator import Fault
from palette_sync.store.lease import Lease

if TYPE_CHECKING:
    from integration.stage import Stage
    from palette_sync.runner import Runner

SEARCH = "/v1/dashboard/spectroclusters/search"


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
        await one.stop()  # without the interruption the pass would end a minute later, with a report

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
        await one.stop()  # the gate stays closed: without the interruption this would wait for ever

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


async def test_an_exception_in_a_pass_ends_that_pass_only_and_the_next_tick_works(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=2, oidc_share=0.0)
    sound = runtime(stage)
    broken = [True]

    def ports(*given: Any, **named: Any) -> Any:
        if broken[0]:
            raise LookupError("a bug")
        return sound.ports(*given, **named)

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
    """A Palette client with a bug in the first file that it fetches."""

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
        (change,) = [one for one in report.changes if one.reason == "InternalError"]
        assert change.message == "LookupError; the log has the traceback"
        assert [line["error"] for line in logs if line["event"] == "unexpected_error"] == ["LookupError"]
        assert one.watcher.failed == []


async def test_an_exception_of_the_runner_itself_leaves_it_and_cancels_who_waits(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=2)
    watcher = Watcher()

    def broken(_: Runner) -> None:
        raise LookupError("a bug")

    async with running(stage, watcher=watcher) as one:
        await one.reaches(RunnerState.LEADING)
        watcher.on_status = broken
        answer = one.mailbox.ask()
        with pytest.raises(LookupError, match="a bug"):
            await one.task

    assert answer.cancelled()
    assert one.status.state is RunnerState.STOPPED
    async with await Lease.acquire(stage.shared.store.link, stage.shared.store.keys, "alpha", ttl=5, holder="other:1"):
        pass  # the lease was given back


async def test_a_pass_that_palette_fails_is_reported_and_changes_nothing(stage_of: Any) -> None:
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


async def test_another_share_of_the_concurrency_starts_no_pass(stage_of: Any) -> None:
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


async def test_a_cancelled_answer_disturbs_no_other(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=1, oidc_share=0.0)
    async with running(stage) as one:
        gone, waiting = one.mailbox.ask(), one.mailbox.ask()
        gone.cancel()

        assert (await waiting).error is None
        assert one.watcher.failed == []
        assert not one.task.done()
    assert one.task.done()


async def test_a_pass_that_keeps_failing_is_retried_after_growing_pauses(stage_of: Any) -> None:
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
        assert failed_at[1] - failed_at[0] >= RETRY_PAUSES[0] * 0.9
        assert one.status.error == "RuntimeError; the log has the traceback"

        failing = False
        report = await one.passes(1)

        assert report.due == 2
        assert one.status.error is None


async def test_skipped_clusters_are_worked_on_soon(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=2, oidc_share=0.0)
    good = runtime(stage)
    passes = 0

    def ports(client: Any, **named: Any) -> Any:
        nonlocal passes
        passes += 1
        if passes == 1:
            named["may_issue"] = lambda: False
        return good.ports(client, **named)

    async with running(stage, replace(good, ports=ports)) as one:
        one.mailbox.tick()
        first, second = await one.passes(1), await one.passes(2)

    assert (first.skipped, first.access) == (2, {"pending": 2})
    assert (second.due, second.access) == (2, {"ready": 2})

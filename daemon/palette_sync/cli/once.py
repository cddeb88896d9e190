"""`palette-sync once`: one pass over each instance, all at the same time, and what changed."""

from __future__ import annotations

import asyncio
import secrets
import signal
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from palette_sync.cli.console import out, print_json, print_problems, progress_of
from palette_sync.cli.entry import run_command
from palette_sync.cli.exits import Exit
from palette_sync.cli.pass_report import print_report
from palette_sync.cli.problem_lines import print_problem_list
from palette_sync.core.problems import find_problems, is_wrong, problem_document
from palette_sync.events import Interrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from palette_sync.assembly.instance import Shared
    from palette_sync.config import InstanceSettings, Settings
    from palette_sync.core.model import InstanceState
    from palette_sync.core.problems import Problem
    from palette_sync.reconcile.ports import PassOptions, Stop
    from palette_sync.reconcile.report import PassReport
    from palette_sync.store.redis import StoreError

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def run(config: Path, instances: list[str] | None, *, resync: bool, allow_prune: bool, as_json: bool) -> Exit:
    """Exit 0: nothing is wrong afterwards; 1: a pass failed, or leaves a cluster without access, a prune held or
    anything else that `palette-sync status` would report; 75: another process holds the lease of an instance.
    """

    async def work(settings: Settings) -> Exit:
        from palette_sync.assembly.instance import open_shared
        from palette_sync.assembly.store import chosen_instances
        from palette_sync.reconcile.ports import PassOptions

        chosen = chosen_instances(settings, instances)
        states: dict[str, InstanceState] = {}
        async with open_shared(settings) as shared:
            with progress_of(list(chosen), show=not as_json) as reporter:
                await shared.store.ping()
                # Who runs this from a timer has no other schedule, so its listing counts for the prune guard.
                options = PassOptions(resync=resync, allow_prune=allow_prune, scheduled=not resync)
                with stop_on_signals(settings.service.grace.total_seconds()) as stop:
                    reports, errors = await run_all(shared, chosen, options, reporter, stop=stop, states=states)
        return _print_reports(reports, errors, _left(reports, states), as_json=as_json)

    from palette_sync.service.memory_protection import protect_memory

    protect_memory()
    return run_command(config, work, log_level="error")


@contextmanager
def stop_on_signals(grace: float) -> Iterator[Stop]:
    """On SIGINT or SIGTERM, start no more clusters and give those in work `grace` seconds. A second signal cancels."""
    from palette_sync.reconcile.ports import Stop

    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    stop = Stop(asyncio.Event(), asyncio.Event())

    def on_signal() -> None:
        if stop.stopping.is_set():
            task.cancel()
            return
        stop.stopping.set()
        loop.call_later(grace, stop.late.set)
        print_problems(
            [f"finishing the clusters in work, within {grace:g} s; interrupt again to end at once"], title="stopping"
        )

    for number in _STOP_SIGNALS:
        loop.add_signal_handler(number, on_signal)
    try:
        yield stop
    finally:
        for number in _STOP_SIGNALS:
            loop.remove_signal_handler(number)


async def run_all(
    shared: Shared,
    chosen: dict[str, InstanceSettings],
    options: PassOptions,
    reporter: Callable[[str], Callable[[str, int, int], None]],
    *,
    stop: Stop | None = None,
    states: dict[str, InstanceState] | None = None,
) -> tuple[list[PassReport], dict[str, StoreError | Interrupted]]:
    """Run one pass per instance concurrently. Return the reports, and the errors by instance.

    A store error of one instance, or a stop while it lists, does not affect the others. What each pass published is
    put into `states`.
    """
    from palette_sync.store.redis import StoreError

    reports: list[PassReport] = []
    errors: dict[str, StoreError | Interrupted] = {}

    async def one(name: str, settings: InstanceSettings) -> None:
        try:
            report, state = await pass_under_lease(shared, name, settings, options, reporter(name), stop=stop)
            reports.append(report)
            if states is not None:
                states[name] = state
        except StoreError as error:
            errors[name] = error
        except Interrupted:
            errors[name] = Interrupted("stopped while listing Palette; nothing was changed")

    async with asyncio.TaskGroup() as group:
        for name, settings in chosen.items():
            group.create_task(one(name, settings), name=f"once:{name}")
    return sorted(reports, key=lambda report: report.instance), errors


async def pass_under_lease(
    shared: Shared,
    name: str,
    settings: InstanceSettings,
    options: PassOptions,
    progress: Callable[[str, int, int], None],
    *,
    stop: Stop | None = None,
) -> tuple[PassReport, InstanceState]:
    """Take the lease of the instance, run one pass, release the lease. Return the report and what is published.

    Raises LeaseHeld, StoreError, StartError.
    """
    from palette_sync.assembly.instance import client_of, holder, ports_of
    from palette_sync.assembly.store import utc_now
    from palette_sync.reconcile.run import run_pass
    from palette_sync.runner.refill import reseal
    from palette_sync.store.lease import Lease
    from palette_sync.store.life import Life

    ttl = shared.settings.service.lease_ttl.total_seconds()
    async with (
        client_of(name, settings, shared.limits) as client,
        await Lease.acquire(
            shared.store.link, shared.store.keys, name, ttl=ttl, holder=holder(), sealer=shared.sealer
        ) as lease,
    ):
        publisher = await shared.store.publisher(name, epoch=lease.epoch, writer=holder(), life=Life())
        ports = ports_of(
            shared,
            name,
            client,
            publisher=publisher,
            may_issue=lambda: not lease.lost.is_set(),
            may_write=lease.may_write,
            lease_lost=lease.lost,
            progress=progress,
            stop=stop,
        )
        report, _ = await run_pass(ports, pass_id=secrets.token_hex(4), options=options)
        await reseal(publisher, instance=name, sealers=(shared.sealer,), now=utc_now())
        return report, publisher.state


def _left(reports: list[PassReport], states: dict[str, InstanceState]) -> tuple[Problem, ...]:
    """What is wrong after the passes, also where they had nothing to do, for example in a backoff."""
    from palette_sync.assembly.store import utc_now

    failing = {one.instance: {"error": one.error} for one in reports if one.error}
    return find_problems({"instances": failing}, states, now=utc_now())


def _print_reports(
    reports: list[PassReport],
    errors: dict[str, StoreError | Interrupted],
    problems: tuple[Problem, ...],
    *,
    as_json: bool,
) -> Exit:
    """Print the reports and return the exit code: BUSY only if held leases are the only errors."""
    from palette_sync.store.redis import LeaseHeld

    failed = any(report.failed for report in reports) or is_wrong(problems)
    left = [problem_document(one) for one in problems]
    busy = [error for error in errors.values() if isinstance(error, LeaseHeld)]
    if as_json:
        texts = {name: str(error) for name, error in errors.items()}
        print_json({"passes": [asdict(report) for report in reports], "errors": texts, "problems": left})
    else:
        console = out()
        for report in reports:
            print_report(report, console=console)
        print_problem_list(left, console=console, now=datetime.now(UTC))
        for name, error in errors.items():
            hint = ["ask that process with `palette-sync resync`"] if isinstance(error, LeaseHeld) else []
            print_problems([str(error), *hint], title=f"{name}: no pass was run")
    if failed or len(busy) < len(errors):
        return Exit.FAILED
    return Exit.BUSY if busy else Exit.OK

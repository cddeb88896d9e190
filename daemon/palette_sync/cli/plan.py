"""`palette-sync plan`: what a pass would do. It takes no lease and writes nothing to Redis, Palette or clusters."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.text import Text

from palette_sync.cli.console import out, print_json, print_problems, progress_of
from palette_sync.cli.entry import run_command
from palette_sync.cli.exits import Exit
from palette_sync.cli.pass_report import EFFECTS
from palette_sync.cli.wide_rights import REMEDY, wide_rights_by_instances
from palette_sync.core.objects import Kind
from palette_sync.core.text import counted
from palette_sync.reconcile.report import Effect

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rich.console import Console

    from palette_sync.assembly.instance import Shared
    from palette_sync.config import InstanceSettings, Settings
    from palette_sync.reconcile.report import Change, PassReport

ACTION_SIGNS = {"create": ("+", "green"), "delete": ("-", "magenta")}


def run(config: Path, instances: list[str] | None, *, resync: bool, detailed_exitcode: bool, as_json: bool) -> Exit:
    """Exit 0: the plan is complete, with or without changes; 1: something could not be planned, or would fail.

    With `detailed_exitcode`, as terraform has it, 0: there is nothing to do; 2: there are changes.
    """

    async def work(settings: Settings) -> Exit:
        from palette_sync.assembly.instance import open_shared
        from palette_sync.assembly.store import chosen_instances

        chosen = chosen_instances(settings, instances)
        async with open_shared(settings) as shared:
            with progress_of(list(chosen), show=not as_json) as reporter:
                await shared.store.ping()
                reports = await _plan_all(shared, chosen, reporter, resync=resync)
            warnings = await _wide_rights(shared, chosen, reports)
        if as_json:
            print_json({"plans": [asdict(report) for report in reports], "warnings": warnings})
        else:
            console = out()
            for report in reports:
                _print_plan(report, console)
            if warnings:
                title = "the roles that it would grant allow more than reading workloads"
                print_problems([*warnings, REMEDY], title=title, style="bold yellow")
        if any(report.failed for report in reports):
            return Exit.FAILED
        return Exit.CHANGES if detailed_exitcode and any(report.changed for report in reports) else Exit.OK

    return run_command(config, work, log_level="error")


async def _plan_all(
    shared: Shared,
    chosen: dict[str, InstanceSettings],
    reporter: Callable[[str], Callable[[str, int, int], None]],
    *,
    resync: bool,
) -> list[PassReport]:
    from palette_sync.assembly.instance import client_of, ports_of
    from palette_sync.reconcile.ports import PassOptions
    from palette_sync.reconcile.run import run_pass

    reports: list[PassReport] = []

    async def one(name: str, settings: InstanceSettings) -> None:
        async with client_of(name, settings, shared.limits) as client:
            ports = ports_of(shared, name, client, publisher=None, progress=reporter(name))
            report, _ = await run_pass(
                ports, pass_id=secrets.token_hex(4), options=PassOptions(resync=resync, scheduled=not resync)
            )
            reports.append(report)

    async with asyncio.TaskGroup() as group:
        for name, settings in chosen.items():
            group.create_task(one(name, settings), name=f"plan:{name}")
    return sorted(reports, key=lambda report: report.instance)


async def _wide_rights(shared: Shared, chosen: dict[str, InstanceSettings], reports: list[PassReport]) -> list[str]:
    """Describe the roles of the instances for which the plan creates or changes one; `check` describes all."""
    from palette_sync.assembly.policy import grants_roles, rules_of
    from palette_sync.core.rbac import wide_rights

    found: dict[str, tuple[str, ...]] = {}
    for report in reports:
        one = chosen[report.instance]
        if grants_roles(one) and _grants(report):
            records = (await shared.store.load(report.instance)).records.values()
            found[report.instance] = wide_rights(rules_of(one), versions=[one.kubernetes_version for one in records])
    return [f"{names}: {rights}" for names, rights in wide_rights_by_instances(found).items()]


def _grants(report: PassReport) -> bool:
    return any(
        action.kind == Kind.CLUSTER_ROLE and action.verb != "delete"
        for change in report.changes
        for action in change.actions
    )


def _print_plan(report: PassReport, console: Console) -> None:
    console.print(
        Text.assemble((report.instance, "bold"), f": {counted(report.discovered, 'cluster')} listed, {report.due} due")
    )
    if report.error:
        console.print(Text(f"  Palette cannot be listed: {report.error}", style="red"))
    for problem in report.problems:
        console.print(Text(f"  not listed: {problem}; its records stay unchanged", style="red"))
    for change in report.changes:
        _print_change(change, console)
    counts = {
        effect: sum(effect in change.effects for change in report.changes)
        for effect in (Effect.PUBLISHED, Effect.UPDATED, Effect.ROTATED, Effect.REPAIRED, Effect.DROPPED, Effect.FAILED)
    }
    summary = ", ".join(f"{count} {effect.value}" for effect, count in counts.items() if count)
    if summary or not report.error:
        console.print(Text(f"  Plan for {report.instance}: {summary or 'nothing to do'}.", style="bold"))
    for note in report.notes:
        console.print(Text(f"  note: {note}", style="yellow"))


def _print_change(change: Change, console: Console) -> None:
    look = EFFECTS[change.effects[0]]
    what = ", ".join(EFFECTS[effect].planned for effect in change.effects)
    why = f"{change.reason}: {change.message}" if change.message else change.reason
    console.print(Text.assemble((f"  {look.sign} {change.name}", look.colour), f"  {what}  ({why})"))
    if Effect.FAILED in change.effects and change.reason.remedy:
        console.print(Text(f"      {change.reason.remedy}", style="dim"))
    for action in change.actions:
        sign, style = ACTION_SIGNS.get(action.verb, ("~", "yellow"))
        why = f"{action.reason}: {action.message}" if action.message else action.reason
        console.print(Text.assemble((f"      {sign} {action.kind} {action.name}", style), f"  ({why})"))

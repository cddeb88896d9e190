"""How a pass looks: its headline, its changes with one colour and one sign for each effect, and its problems."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.text import Text

from palette_sync.cli.console import table_of
from palette_sync.reconcile.report import Effect

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console
    from rich.table import Table

    from palette_sync.reconcile.report import Change, PassReport

MOST_ROWS = 40


@dataclass(frozen=True, slots=True)
class EffectStyle:
    """`planned` says what a plan would do."""

    colour: str
    sign: str
    planned: str


EFFECTS = {
    Effect.PUBLISHED: EffectStyle("green", "+", "publish"),
    Effect.UPDATED: EffectStyle("cyan", "~", "update the record"),
    Effect.ROTATED: EffectStyle("blue", "~", "rotate the token"),
    Effect.REPAIRED: EffectStyle("yellow", "~", "repair"),
    Effect.DROPPED: EffectStyle("magenta", "-", "drop the record"),
    Effect.HELD: EffectStyle("yellow", "!", "hold the drop back"),
    Effect.FAILED: EffectStyle("red", "!", "cannot be done"),
}


def print_report(report: PassReport, *, console: Console) -> None:
    """Print one pass: a headline, the table of changes, then problems and notes."""
    style = "green" if report.all_well else "red"
    version = f"version {report.version}" + (
        f" (was {report.version_before})" if report.version != report.version_before else ""
    )
    access = ", ".join(f"{count} {state}" for state, count in report.access.items()) or "no clusters"
    console.print(
        Text.assemble(
            (report.instance, f"bold {style}"),
            f": {access}; {version}; {report.due} worked on; {report.palette_requests} Palette and "
            f"{report.kube_requests} Kubernetes requests in {report.duration_s:.1f} s",
        )
    )
    if report.changes:
        console.print(changes_table(report.changes, console=console))
    if report.error:
        console.print(Text(f"  failed: {report.error}", style="red"))
    for problem in report.problems:
        console.print(Text(f"  not listed: {problem}", style="red"))
    for note in report.notes:
        console.print(Text(f"  note: {note}", style="yellow"))


def changes_table(changes: Sequence[Change], *, console: Console) -> Table:
    """Return the table of changes, failures first, so that the limit of rows never hides one."""
    ordered = sorted(changes, key=lambda one: (Effect.FAILED not in one.effects, one.name))
    rows: list[tuple[str | Text, ...]] = [
        (
            change.name,
            change.project,
            Text(" ").join(Text(effect.value, style=EFFECTS[effect].colour) for effect in change.effects),
            ": ".join(filter(None, (change.reason, _details(change)))),
        )
        for change in ordered[:MOST_ROWS]
    ]
    if len(changes) > MOST_ROWS:
        rows.append((f"... and {len(changes) - MOST_ROWS} more", "", "", "", "(--json shows all)"))
    return table_of(("cluster", "project", "what", "reason"), rows, console=console, optional=("project",))


def _details(change: Change) -> str:
    repairs = ", ".join(sorted({f"{action.kind} {action.reason}" for action in change.actions}))
    if Effect.REPAIRED in change.effects and repairs:
        return repairs
    return change.message

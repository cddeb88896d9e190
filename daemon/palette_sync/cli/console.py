"""What people see: progress on a terminal, then tables. Programs get JSON instead."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import orjson
from rich.console import Console
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from palette_sync.reconcile.report import Effect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from rich.console import ConsoleOptions, RenderableType

    from palette_sync.reconcile.report import Change, PassReport

EFFECT_STYLE = {
    Effect.PUBLISHED: "green",
    Effect.UPDATED: "cyan",
    Effect.ROTATED: "blue",
    Effect.REPAIRED: "yellow",
    Effect.DROPPED: "magenta",
    Effect.HELD: "yellow",
    Effect.FAILED: "red",
}
STATE_STYLE = {"ready": "green", "degraded": "yellow", "pending": "cyan", "failed": "red"}
MOST_ROWS = 40


class ForeignText(Console):
    """A console on which nothing that is shown moves the cursor or sets a title; rich itself lets most of it pass."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control or segment.text == "\n" or segment.text.isprintable():
                yield segment
            else:
                # Left out, not replaced: rich has counted them as no width.
                shown = (one for one in segment.text if one == "\n" or one.isprintable())
                yield Segment("".join(shown), segment.style)


def out() -> Console:
    """The console of results. Wide when piped, so that lines stay whole for grep. Foreign text is no markup."""
    return ForeignText(soft_wrap=not sys.stdout.isatty(), highlight=False, markup=False, emoji=False)


def err() -> Console:
    """The console of progress and problems."""
    return ForeignText(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)


def complain(problems: Sequence[str], *, title: str) -> None:
    """Tell problems on standard error, one a line."""
    console = err()
    console.print(Text(f"palette-sync: {title}", style="bold red"))
    for problem in problems:
        console.print(Text(f"  {plain(problem)}"))


def plain(text: str) -> str:
    """Foreign text as one line that moves no cursor and sets no title."""
    return "".join(character if character.isprintable() else " " for character in text)


def span(seconds: int) -> str:
    """A duration for people, in its two largest units: `3d04h`, `2h05m`, `7m03s`, `12s`."""
    for large, small, unit in ((86400, 3600, "dh"), (3600, 60, "hm"), (60, 1, "ms")):
        if seconds >= large:
            return f"{seconds // large}{unit[0]}{seconds % large // small:02}{unit[1]}"
    return f"{seconds}s"


def print_json(value: Any) -> None:
    sys.stdout.write(orjson.dumps(value, option=orjson.OPT_INDENT_2, default=str).decode() + "\n")


@contextmanager
def progress_of(instances: Sequence[str], *, show: bool) -> Iterator[Callable[[str], Callable[[str, int, int], None]]]:
    """Yield a function that gives each instance its own progress line; silent where nobody watches."""
    if not show or not sys.stderr.isatty():
        yield lambda _instance: lambda _stage, _done, _total: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.fields[instance]:<12}"),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err(), transient=True) as progress:
        tasks = {name: progress.add_task("starting", total=None, instance=name) for name in instances}

        def reporter(instance: str) -> Callable[[str, int, int], None]:
            def report(stage: str, done: int, total: int) -> None:
                progress.update(tasks[instance], description=stage, completed=done, total=total or None)

            return report

        yield reporter


def print_report(report: PassReport, *, console: Console) -> None:
    """One pass: a headline, the table of what changed, then problems and notes."""
    style = "red" if report.failed else "green"
    moved = f"version {report.version}" + (
        f" (was {report.version_before})" if report.version != report.version_before else ""
    )
    access = ", ".join(f"{count} {state}" for state, count in report.access.items()) or "no clusters"
    console.print(
        Text.assemble(
            (report.instance, f"bold {style}"),
            f": {access}; {moved}; {report.due} worked on; {report.palette_requests} Palette and "
            f"{report.kube_requests} Kubernetes requests in {report.duration_s:.1f} s",
        )
    )
    if report.changes:
        console.print(changes_table(report.changes))
    if report.error:
        console.print(Text(f"  failed: {report.error}", style="red"))
    for problem in report.problems:
        console.print(Text(f"  not listed: {problem}", style="red"))
    for note in report.notes:
        console.print(Text(f"  note: {note}", style="yellow"))


def changes_table(changes: Sequence[Change]) -> Table:
    """Worst first, so that the cut at the end never hides a failure."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 2))
    for heading in ("cluster", "project", "what", "reason", ""):
        table.add_column(heading, header_style="dim", overflow="fold")
    ordered = sorted(changes, key=lambda one: (Effect.FAILED not in one.effects, one.name))
    for change in ordered[:MOST_ROWS]:
        what = Text(" ").join(Text(effect.value, style=EFFECT_STYLE[effect]) for effect in change.effects)
        table.add_row(change.name, change.project, what, change.reason, _told(change))
    if len(changes) > MOST_ROWS:
        table.add_row(f"... and {len(changes) - MOST_ROWS} more", "", "", "", "(--json tells all)")
    return table


def _told(change: Change) -> str:
    repairs = ", ".join(sorted({f"{action.kind} {action.reason}" for action in change.actions}))
    if Effect.REPAIRED in change.effects and repairs:
        return repairs
    return change.message

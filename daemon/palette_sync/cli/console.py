"""Output for people: progress on a terminal, then tables and problems. Programs get JSON instead."""

from __future__ import annotations

import json
import os
import sys
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import orjson
from rich.cells import cell_len
from rich.console import Console
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from palette_sync.cli.prose import wrapped
from palette_sync.core.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from rich.console import ConsoleOptions, RenderableType

WIDE = 10_000  # columns of an output that is not a terminal
GAP = 2  # columns between two columns of a table
NAMES = frozenset({"name", "cluster", "instance"})  # headings of columns whose cells people copy
LEAST_LAST = 20  # columns that the last column of a table, the prose, needs at least
ENOUGH_LAST = 24  # columns are left out until it has as many: most reasons fit into them


class SafeConsole(Console):
    """A console that drops control characters from text: rich itself lets most of them through to the terminal.

    Names and messages come from Palette and from clusters. They must not move the cursor or set the title.

    A text that is printed alone is wrapped so that what is to be copied stays whole (`prose`); with `no_wrap` it is one
    line, and `hang` indents its further lines. rich itself breaks commands at their spaces, and cuts lines off.
    """

    def print(self, *objects: Any, **options: Any) -> None:
        alone = objects[0] if len(objects) == 1 else None
        hang = options.pop("hang", None)
        if self.soft_wrap or options.get("soft_wrap") or not isinstance(alone, str | Text):
            super().print(*objects, **options)
            return
        text = Text(alone) if isinstance(alone, str) else alone
        one_line = options.pop("no_wrap", False)
        for line in [text] if one_line else wrapped(text, self.width, hang=hang):
            super().print(line, **options, soft_wrap=True)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control or segment.text == "\n" or segment.text.isprintable():
                yield segment
            else:
                # Dropped, not replaced: rich has counted them with a width of 0.
                shown = (one for one in segment.text if one == "\n" or one.isprintable())
                yield Segment("".join(shown), segment.style)


def out() -> SafeConsole:
    """Return the console for results. It is wide when piped, so that grep finds whole lines. Markup is off."""
    piped = not sys.stdout.isatty()
    width = WIDE if piped and "COLUMNS" not in os.environ else None  # `watch` is a pipe and sets COLUMNS
    return SafeConsole(soft_wrap=piped, width=width, highlight=False, markup=False, emoji=False)


def table_of(
    headings: Sequence[str], rows: Sequence[Sequence[str | Text]], *, console: Console, optional: Sequence[str] = ()
) -> Table:
    """Return a table in which only the last column wraps, so that names stay whole.

    Where the console is too narrow for that, the columns in `optional` are left out, one after another. If that is not
    enough, every column but that of names wraps, and that one too if it does not leave room for anything else.
    """
    widths = [max(cell_len(str(row[index])) for row in (headings, *rows)) for index in range(len(headings))]
    kept = list(range(len(headings)))

    def fits() -> bool:
        *whole, last = (widths[index] for index in kept)
        return sum(whole) + GAP * len(whole) + min(last, ENOUGH_LAST) <= console.width

    for heading in optional:
        if not fits():
            kept.remove(headings.index(heading))
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0))
    for index in kept:
        whole = (fits() and index != kept[-1]) or (
            headings[index] in NAMES and widths[index] + LEAST_LAST <= console.width
        )
        table.add_column(headings[index], header_style="dim", overflow="fold", no_wrap=whole)
    for row in rows:
        table.add_row(*(row[index] for index in kept))
    return table


def err() -> Console:
    """Return the console for progress and problems, on standard error."""
    return SafeConsole(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)


def log_problems() -> None:
    """From now on, what is printed as problems is logged instead, because a program reads standard error."""
    _in_log.set(True)


_in_log: ContextVar[bool] = ContextVar("problems go to the log", default=False)


def print_problems(problems: Sequence[str], *, title: str, style: str = "bold red") -> None:
    """Print a title and the problems, one per line, on standard error; or log them (`log_problems`)."""
    if _in_log.get():
        import structlog

        log = structlog.get_logger(__name__)
        log.error("fatal", reason=title, problems=list(problems))
        return
    console = err()
    console.print(Text(f"palette-sync: {title}", style=style))
    for problem in problems:
        console.print(Text(f"  {visible(problem)}"))


def print_json(value: Any) -> None:
    """Print JSON in ASCII, so that no character of foreign text reaches a terminal, or a program, as it is."""
    plain = json.loads(orjson.dumps(value, default=str))
    sys.stdout.write(json.dumps(plain, indent=2, ensure_ascii=True) + "\n")


@contextmanager
def progress_of(instances: Sequence[str], *, show: bool) -> Iterator[Callable[[str], Callable[[str, int, int], None]]]:
    """Yield a function that returns the progress callback (stage, done, total) of an instance.

    Each instance has its own line. Nothing is shown where standard error is not a terminal.
    """
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

"""How problems look on the command line: what, since when, what happens by itself, what to do."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.text import Text

from palette_sync.core.durations import short_duration, time_for_people
from palette_sync.core.text import counted, visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rich.console import Console


def verdict(problems: Sequence[Mapping[str, Any]]) -> Text:
    """One word for all of them: how many problems, or that all is well."""
    wrong = sum(one.get("severity") == "problem" for one in problems)
    notices = len(problems) - wrong
    parts = [*([counted(wrong, "problem")] if wrong else []), *([counted(notices, "notice")] if notices else [])]
    if wrong:
        return Text(", ".join(parts), style="bold red")
    return Text(f"all is well{f', {parts[0]}' if parts else ''}", style="bold green")


def print_problem_list(problems: Iterable[Mapping[str, Any]], *, console: Console, now: datetime) -> None:
    """Print problem documents (`core.problems.problem_document`). Commands stand on lines of their own, unbroken."""
    for one in problems:
        style = "red" if one.get("severity") == "problem" else "yellow"
        where = f"{visible(str(one['instance']))}: " if one.get("instance") else ""
        head = Text.assemble((f"{where}{visible(str(one.get('reason', '')))}", f"bold {style}"))
        if (since := moment_of(one.get("since"))) is not None:
            head.append(f" since {time_for_people(since)} ({_distance(since, now)})")
        console.print(head)
        console.print(Text(f"  {visible(str(one.get('text', '')))}"))
        by_itself = visible(str(one.get("by_itself", "")))
        if (next_at := moment_of(one.get("next_at"))) is not None:
            by_itself += f" Next at {time_for_people(next_at)} ({_distance(next_at, now)})."
        console.print(Text.assemble(("  by itself: ", "dim"), by_itself))
        if remedy := one.get("remedy"):
            console.print(Text.assemble(("  what to do: ", "dim"), visible(str(remedy))))
        if command := one.get("command"):
            console.print(Text.assemble(("  run: ", "dim"), visible(str(command))), no_wrap=True)


def _distance(moment: datetime, now: datetime) -> str:
    seconds = int((now - moment).total_seconds())
    return f"{short_duration(seconds)} ago" if seconds >= 0 else f"in {short_duration(-seconds)}"


def moment_of(value: object) -> datetime | None:
    """The time that a document spells; None where it is absent or not a time."""
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)

"""`palette-sync clusters`: the published clusters, read from Redis only. No secret is shown."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.text import Text

from palette_sync.cli.console import out, table_of
from palette_sync.cli.diagnosis import Where, run_diagnosis
from palette_sync.cli.exits import Exit
from palette_sync.cli.outputs import DOCUMENTS, print_document, print_names
from palette_sync.cli.styles import ACCESS_STATES
from palette_sync.core.durations import ago, short_duration, time_for_people, until
from palette_sync.core.model import AccessState
from palette_sync.core.prune import absences_of, absences_to_dict
from palette_sync.core.reasons import Reason
from palette_sync.core.rows import Filter, Row, row_document, rows_of, sorted_rows
from palette_sync.core.text import visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from palette_sync.assembly.diagnosis import Diagnosis
    from palette_sync.core.model import InstanceState
    from palette_sync.core.prune import Absence
    from palette_sync.store.inspect import Inspected


@dataclass(frozen=True, slots=True)
class Options:
    """`sort` is one of `core.rows.SORTS`, `output` one of `options.OUTPUTS`."""

    instances: list[str] | None = None
    filter: Filter = field(default_factory=Filter)
    sort: str = "name"
    output: str = "table"


def run(where: Where, options: Options) -> Exit:
    """Exit 0: every cluster shown has access or waits for its first; 1: one has none, nothing is published for an
    instance, or its snapshot does not verify.
    """

    async def work(diagnosis: Diagnosis) -> Exit:
        names, _ = await diagnosis.instances(options.instances)
        inspected = await diagnosis.inspect_and_remark(names)
        now = datetime.now(UTC)
        rows = {
            name: sorted_rows(filter(options.filter.matches, rows_of(one.state, now)), options.sort)
            for name, one in inspected.items()
        }
        if options.output in DOCUMENTS:
            document = {name: _document(one, rows[name], diagnosis) for name, one in inspected.items()}
            print_document(document, options.output)
        elif options.output == "name":
            print_names(row.record.name for some in rows.values() for row in some)
        else:
            _print_snapshots(inspected, rows, now, diagnosis, wide=options.output == "wide")
        sound = all(one.state.head is not None and one.state.trusted for one in inspected.values())
        return Exit.OK if sound and all(row.usable for some in rows.values() for row in some) else Exit.FAILED

    return run_diagnosis(where, work)


def _document(inspected: Inspected, rows: list[Row], diagnosis: Diagnosis) -> dict[str, Any]:
    state = inspected.state
    head = state.head
    return {
        "version": head.version if head else None,
        "complete": head.complete if head else False,
        "changed_at": head.changed_at if head else None,
        "checked_at": head.checked_at if head else None,
        "trusted": state.trusted if diagnosis.verifies else None,
        "not_permitted": sorted(inspected.denied),
        "not_listed": absences_to_dict(_absent(state)),
        "clusters": [row_document(row) for row in rows],
    }


def _print_snapshots(
    inspected: dict[str, Inspected], rows: dict[str, list[Row]], now: datetime, diagnosis: Diagnosis, *, wide: bool
) -> None:
    console = out()
    for name, one in inspected.items():
        state, head = one.state, one.state.head
        orphan = diagnosis.configured is not None and name not in diagnosis.configured
        suffix = " (orphaned: no longer in the configuration)" if orphan else ""
        if head is None:
            console.print(
                Text(
                    f"{name}: nothing published yet; start `palette-sync run` or `palette-sync once`{suffix}",
                    style="yellow",
                )
            )
            continue
        checked = (
            f"checked {short_duration(int((now - head.checked_at).total_seconds()))} ago"
            if head.checked_at
            else "when it was checked is unknown"
        )
        first = "" if head.complete else ", first pass not complete yet"
        shown = "" if len(rows[name]) == len(state.records) else f", {len(rows[name])} shown"
        states = Counter(row.state for row in rows_of(state, now))
        console.print(
            Text.assemble(
                (name, "bold"),
                ": ",
                *_counts(states),
                f"{shown}; version {head.version}, {checked}{first}{suffix}",
            )
        )
        _print_doubts(state, console)
        if rows[name]:
            console.print(_table(rows[name], now, console, wide=wide, memory="work" not in one.denied))
        _print_absent(state, console)
        for scope in state.scopes.values():
            if scope.error:
                console.print(Text(f"  stale: {scope.name}: {scope.error}", style="yellow"))


def _counts(states: Counter[AccessState]) -> list[str | tuple[str, str]]:
    """The number of clusters in each state, the worst first."""
    if not states:
        return ["no clusters"]
    parts: list[str | tuple[str, str]] = []
    for state in (AccessState.FAILED, AccessState.DEGRADED, AccessState.PENDING, AccessState.READY):
        if states[state]:
            parts += [", "] if parts else []
            parts.append((f"{states[state]} {state.value}", ACCESS_STATES[state]))
    return parts


def _print_absent(state: InstanceState, console: Console) -> None:
    """Say which records stay although Palette does not list their clusters, since when and until when."""
    for uid, one in sorted(_absent(state).items(), key=lambda entry: state.records[entry[0]].name):
        until = time_for_people(one.until) if one.until else "a scheduled listing confirms it"
        if one.reason is Reason.WRITES_PAUSED:
            until = "the pause ends"
        elif one.until is None and one.counted_from is not None:
            until = "`palette-sync resync --allow-prune`"
        elif one.until is None and one.held:
            until = "`prune_hold` has passed, or until `palette-sync resync --allow-prune`"
        since = time_for_people(one.since)
        text = (
            f"  not listed: {state.records[uid].name}: {one.reason}: {one.message}; since {since}, kept until {until}"
        )
        console.print(Text(visible(text), style="bold yellow" if one.held else "yellow"))


def _absent(state: InstanceState) -> dict[str, Absence]:
    return {uid: one for uid, one in absences_of(state.status).items() if uid in state.records}


def _print_doubts(state: InstanceState, console: Console) -> None:
    if state.trusted:
        return
    hint = "the seal key is wrong, or another program wrote it; check [seal] and the users of Redis"
    console.print(Text(f"  the snapshot does not verify: {hint}", style="red"))
    for problem in state.problems[:5]:
        console.print(Text(f"    {problem}", style="red"))


def _table(rows: list[Row], now: datetime, console: Console, *, wide: bool, memory: bool) -> Table:
    headings = ["name", "project", "palette", "access", "auth", "token left", "version", "since"]
    optional = ["version", "palette", "auth", "project", "since"]
    if wide:
        headings += ["next try", "last proof", "uid"] if memory else ["uid"]
        optional = []
    cells = [_cells(row, now, wide=wide, memory=memory) for row in rows]
    return table_of((*headings, "reason"), cells, console=console, optional=optional)


def _cells(row: Row, now: datetime, *, wide: bool, memory: bool) -> tuple[str | Text, ...]:
    record = row.record
    more: tuple[str | Text, ...] = ()
    if wide:
        beside = (until(row.next_try, now), ago(row.verified_at, now)) if memory else ()
        more = (*beside, record.uid)
    message = record.access.message
    held = " (held: Palette no longer lists it)" if row.held else ""
    held += f" ({row.pause.text})" if row.pause else ""
    return (
        record.name,
        row.project,
        "/".join(filter(None, (record.palette.state, record.palette.health))),
        Text(row.state.value, style=ACCESS_STATES[row.state]),
        row.auth,
        token_left(row, now),
        record.kubernetes_version or "-",
        ago(row.since, now),
        *more,
        f"{row.reason}{f': {message}' if message else ''}{held}",
    )


def token_left(row: Row, now: datetime) -> str:
    if row.credential is None:
        return "-"
    if row.expires_at is None:
        return "never ends"
    seconds = int((row.expires_at - now).total_seconds())
    return short_duration(seconds) if seconds > 0 else "lapsed"

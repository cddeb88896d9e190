"""`palette-sync show CLUSTER`: everything that is known of a cluster, without secrets, and what happens next."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.text import Text

from palette_sync.cli.clusters import token_left
from palette_sync.cli.console import out, print_json
from palette_sync.cli.diagnosis import Where, run_diagnosis
from palette_sync.cli.exits import Exit
from palette_sync.cli.one_cluster import print_unknown
from palette_sync.cli.past import print_transitions, read_transitions
from palette_sync.cli.styles import ACCESS_STATES
from palette_sync.core.durations import ago, time_for_people, until
from palette_sync.core.model import AccessState, OidcAuth
from palette_sync.core.named import named
from palette_sync.core.rows import Row, row_document, rows_of
from palette_sync.core.text import visible

if TYPE_CHECKING:
    from rich.console import Console

    from palette_sync.assembly.diagnosis import Diagnosis
    from palette_sync.core.history import Transition
    from palette_sync.store.inspect import Inspected

LATEST = 10  # transitions that are shown


def run(where: Where, cluster: str, *, instances: list[str] | None, as_json: bool) -> Exit:
    """Exit 0: the cluster has access or waits for its first; 1: it has none, or there is no such cluster."""

    async def work(diagnosis: Diagnosis) -> Exit:
        names, _ = await diagnosis.instances(instances)
        inspected = await diagnosis.inspect_and_remark(names)
        now = datetime.now(UTC)
        rows = [row for one in inspected.values() for row in rows_of(one.state, now)]
        keys = {(one.instance, one.uid) for one in named(cluster, [row.record for row in rows]).found}
        found = [row for row in rows if (row.record.instance, row.record.uid) in keys]
        if not found:
            print_unknown(cluster, [row.record for row in rows])
            return Exit.FAILED
        documents = []
        for row in found:
            name = row.record.instance
            past = await read_transitions(diagnosis, name, inspected[name].state)
            latest = [one for one in past.transitions if one.uid == row.record.uid][:LATEST]
            if as_json:
                documents.append({**row_document(row), "history": [_history_document(one) for one in latest]})
            else:
                _print(row, inspected[name], latest, now, console=out(), remarks=past.remarks)
        if as_json:
            print_json(documents)
        return Exit.OK if all(row.usable for row in found) else Exit.FAILED

    return run_diagnosis(where, work)


def _history_document(one: Transition) -> dict[str, Any]:
    return {"version": one.version, "at": one.at, "what": one.what, "reason": one.reason, "details": one.details}


def _print(
    row: Row, inspected: Inspected, latest: list[Transition], now: datetime, *, console: Console, remarks: list[str]
) -> None:
    record = row.record
    console.print(
        Text.assemble(
            (visible(record.name), "bold"),
            ": ",
            (row.state.value, ACCESS_STATES[row.state]),
            f" ({row.reason}) since {time_for_people(row.since)} ({ago(row.since, now)} ago)",
        )
    )
    if record.access.message:
        console.print(Text(f"  {visible(record.access.message)}"))
    for label, text in (
        ("meaning", row.reason.meaning),
        ("by itself", row.reason.by_itself),
        ("what to do", row.reason.remedy),
    ):
        if text and row.state is not AccessState.READY:
            console.print(Text.assemble((f"  {label}: ", "dim"), text))
    if row.pause is not None:
        console.print(Text(f"  {visible(row.pause.text)}", style="yellow"))
    for name, value in _facts(row, inspected, now):
        if value:
            console.print(Text.assemble((f"  {name:<11}", "dim"), visible(value)), no_wrap=True)
    print_transitions(latest, console=console, instance=record.instance, now=now)
    for remark in remarks:
        console.print(Text(f"  {remark}", style="yellow"))


def _facts(row: Row, inspected: Inspected, now: datetime) -> list[tuple[str, str]]:
    """Labels and values; an empty value is not shown."""
    record, credential, palette = row.record, row.credential, row.record.palette
    facts: list[tuple[str, str]] = [
        ("title", record.title),
        ("uid", f"{record.instance}/{record.uid}"),
        ("project", row.project),
        ("palette", "/".join(filter(None, (palette.state, palette.health, palette.cloud_type)))),
        ("tags", ", ".join(palette.tags)),
        ("server", record.server.url if record.server else ""),
        ("kubernetes", record.kubernetes_version or ""),
        ("auth", row.auth if not isinstance(record.auth, OidcAuth) else f"oidc, {record.auth.issuer_url}"),
        ("dashboard", record.dashboard_url or ""),
    ]
    if credential is not None:
        facts += [
            ("token", f"issued {ago(credential.issued_at, now)} ago, {_life(row, now)}"),
            ("renewal", until(credential.renew_at, now)),
        ]
    if row.memory is not None:
        facts += [
            ("last proof", f"{ago(row.verified_at, now)} ago" if row.verified_at else "never"),
            ("failures", f"{row.memory.failures} in a row" if row.memory.failures else ""),
            ("next try", until(row.next_try, now) if row.memory.failures else ""),
            ("secret", row.memory.generation or ""),
        ]
    if row.held:
        facts.append(("held", "Palette no longer lists it; `palette-sync status` says until when it stays"))
    if inspected.denied:
        facts.append(("not shown", f"the Redis user may not read {', '.join(sorted(inspected.denied))}"))
    return facts


def _life(row: Row, now: datetime) -> str:
    left = token_left(row, now)
    return left if left in {"lapsed", "never ends"} else f"ends in {left}"

"""`palette-sync clusters`: the published clusters, read from Redis only. No secret is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.text import Text

from palette_sync.cli.console import out, print_json, print_problems, short_duration, table_of
from palette_sync.cli.entry import run_command
from palette_sync.cli.exits import Exit
from palette_sync.cli.styles import ACCESS_STATES
from palette_sync.core.documents import format_time
from palette_sync.core.model import OidcAuth
from palette_sync.core.prune import absences_of, absences_to_dict
from palette_sync.core.text import visible

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from rich.console import Console
    from rich.table import Table

    from palette_sync.config import Settings
    from palette_sync.core.model import ClusterRecord, InstanceState
    from palette_sync.core.prune import Absence


def run(config: Path, instances: list[str] | None, *, as_json: bool) -> Exit:
    """Exit 0: success; 1: nothing is published for an instance, or its snapshot does not verify."""

    async def work(settings: Settings) -> Exit:
        from palette_sync.assembly.store import StartError, open_store, sealer_of, utc_now
        from palette_sync.store.redis import StoreTooMuch

        async with open_store(settings, sealer_of(settings)) as store:
            await store.ping()
            try:
                published = await store.instances()
            except StoreTooMuch as error:
                print_problems([str(error)], title="only the configured instances are shown")
                published = set()
            known = sorted(published | settings.instances.keys())
            if unknown := sorted(set(instances or ()) - set(known)):
                raise StartError(
                    f"--instance {', '.join(unknown)}: neither published nor in the configuration; known are "
                    f"{', '.join(known)}"
                )
            wanted = instances or known
            states = {name: await store.load(name) for name in wanted}
        now = utc_now()
        if as_json:
            print_json({name: _document(state) for name, state in states.items()})
        else:
            _print_snapshots(states, now, configured=set(settings.instances))
        verified = all(state.head is not None and state.trusted for state in states.values())
        return Exit.OK if verified else Exit.FAILED

    return run_command(config, work, logs=False)


def _document(state: InstanceState) -> dict[str, Any]:
    from palette_sync.core.snapshot_codec import record_to_dict

    head = state.head
    return {
        "version": head.version if head else None,
        "complete": head.complete if head else False,
        "changed_at": head.changed_at if head else None,
        "checked_at": head.checked_at if head else None,
        "trusted": state.trusted,
        "not_listed": absences_to_dict(_absent(state)),
        "clusters": [record_to_dict(record) for record in _ordered(state)],
    }


def _ordered(state: InstanceState) -> list[ClusterRecord]:
    return sorted(state.records.values(), key=lambda record: record.name)


def _print_snapshots(states: dict[str, InstanceState], now: datetime, *, configured: set[str]) -> None:
    console = out()
    for name, state in states.items():
        head = state.head
        orphan = "" if name in configured else " (orphaned: no longer in the configuration)"
        if head is None:
            console.print(
                Text(
                    f"{name}: nothing published yet; start `palette-sync run` or `palette-sync once`{orphan}",
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
        console.print(
            Text.assemble(
                (name, "bold"),
                f": version {head.version}, {head.clusters} clusters, {checked}{first}{orphan}",
            )
        )
        if not state.trusted:
            hint = "the seal key is wrong, or another program wrote it; check [seal] and the users of Redis"
            console.print(Text(f"  the snapshot does not verify: {hint}", style="red"))
            for problem in state.problems[:5]:
                console.print(Text(f"    {problem}", style="red"))
        if state.records:
            console.print(_table(state, now, console))
        _print_absent(state, console)
        for scope in state.scopes.values():
            if scope.error:
                console.print(Text(f"  stale: {scope.name}: {scope.error}", style="yellow"))


def _print_absent(state: InstanceState, console: Console) -> None:
    """Say which records stay although Palette does not list their clusters, since when and until when."""
    for uid, one in sorted(_absent(state).items(), key=lambda entry: state.records[entry[0]].name):
        until = format_time(one.until) if one.until else "a scheduled listing confirms it"
        if one.until is None and one.counted_from is not None:
            until = "`palette-sync resync --allow-prune`"
        since = format_time(one.since)
        text = (
            f"  not listed: {state.records[uid].name}: {one.reason}: {one.message}; since {since}, kept until {until}"
        )
        console.print(Text(visible(text), style="bold yellow" if one.held else "yellow"))


def _absent(state: InstanceState) -> dict[str, Absence]:
    return {uid: one for uid, one in absences_of(state.status).items() if uid in state.records}


def _table(state: InstanceState, now: datetime, console: Console) -> Table:
    headings = ("name", "project", "palette", "access", "auth", "token left", "version", "reason")
    rows = [
        (
            record.name,
            record.project.name if record.project else record.scope.value,
            "/".join(filter(None, (record.palette.state, record.palette.health))),
            Text(record.access.state.value, style=ACCESS_STATES[record.access.state]),
            "oidc" if isinstance(record.auth, OidcAuth) else "token" if record.auth else "-",
            _token_left(state, record, now),
            record.kubernetes_version or "-",
            f"{record.access.reason}: {record.access.message}" if record.access.message else record.access.reason,
        )
        for record in _ordered(state)
    ]
    return table_of(headings, rows, console=console, optional=("version", "palette", "auth", "project"))


def _token_left(state: InstanceState, record: ClusterRecord, now: datetime) -> str:
    credential = state.credentials.get(record.uid)
    if credential is None:
        return "-"
    if credential.expires_at is None:
        return "never ends"
    seconds = int((credential.expires_at - now).total_seconds())
    return short_duration(seconds) if seconds > 0 else "lapsed"

"""`palette-sync history`: what Redis keeps of former versions, and what changed with each."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.text import Text

from palette_sync.cli.console import out, print_problems, table_of
from palette_sync.cli.diagnosis import Where, run_diagnosis
from palette_sync.cli.exits import Exit
from palette_sync.cli.outputs import DOCUMENTS, print_document, print_names
from palette_sync.core.durations import short_duration
from palette_sync.core.history import (
    Record,
    Transition,
    differences,
    of_cluster,
    transitions,
)
from palette_sync.core.text import visible

if TYPE_CHECKING:
    from datetime import timedelta

    from rich.console import Console

    from palette_sync.assembly.diagnosis import Diagnosis
    from palette_sync.core.history import FormerVersion, VersionChange
    from palette_sync.core.model import InstanceState


@dataclass(frozen=True, slots=True)
class Past:
    """What is known of former versions of an instance. `current` are its records of now, as the history has them."""

    entries: list[FormerVersion]
    changes: list[VersionChange]
    current: dict[str, Record]
    newest: int
    remarks: list[str]

    @property
    def transitions(self) -> list[Transition]:
        return transitions(self.entries, self.changes, self.current)


async def read_transitions(diagnosis: Diagnosis, instance: str, state: InstanceState) -> Past:
    """Raises StoreUnavailable, StoreError. What the user may not read is in `remarks`."""
    from palette_sync.store.errors import StoreDenied
    from palette_sync.store.past import read_changes, read_history

    store, remarks = diagnosis.store, []
    entries: list[FormerVersion] = []
    changes: list[VersionChange] = []
    try:
        entries = await read_history(store, diagnosis.sealer, instance)
    except StoreDenied:
        remarks.append(f"{instance}: the Redis user may not read the history, so what records were before is unknown")
    try:
        changes = await read_changes(store, instance)
    except StoreDenied:
        remarks.append(f"{instance}: the Redis user may not read the changes")
    newest = state.head.version if state.head else 0
    return Past(
        entries=[one for one in entries if one.version <= newest],
        changes=[one for one in changes if one.version <= newest],
        current=_current(state),
        newest=newest,
        remarks=remarks,
    )


def _current(state: InstanceState) -> dict[str, Record]:
    from palette_sync.core.snapshot_codec import encode_record, record_in_history

    # Through JSON, so that times are text as in the history.
    return {uid: dict(record_in_history(encode_record(record))) for uid, record in state.records.items()}


def history(
    where: Where,
    cluster: str | None,
    *,
    instances: list[str] | None,
    since: timedelta | None,
    limit: int,
    output: str,
) -> Exit:
    """Exit 0: shown, even if there is nothing; 1: no cluster ever had that name. `output`: one of `options.OUTPUTS`."""

    async def work(diagnosis: Diagnosis) -> Exit:
        now = datetime.now(UTC)
        found: list[tuple[str, Transition]] = []
        remarks: list[str] = []
        for name, past in (await read_pasts(diagnosis, instances)).items():
            remarks += past.remarks
            some = of_cluster(past.transitions, cluster) if cluster else past.transitions
            found += [(name, one) for one in some]
        if cluster and not found:
            hint = f"no cluster with the name, title or uid {visible(cluster)!r} is in the history that Redis keeps"
            print_problems([hint, *remarks], title="unknown cluster")
            return Exit.FAILED
        found = [(name, one) for name, one in found if since is None or now - one.at <= since]
        found.sort(key=lambda pair: (pair[1].at, pair[1].version), reverse=True)
        if output in DOCUMENTS:
            print_document([transition_document(name, one) for name, one in found[:limit]], output)
            return Exit.OK
        if output == "name":
            print_names(one.name for _, one in found[:limit])
            return Exit.OK
        console = out()
        _print_rows(found[:limit], console=console, now=now, wide=output == "wide")
        if not found:
            console.print("no changes")
        if len(found) > limit:
            console.print(Text(f"... and {len(found) - limit} older ones; --limit shows more", style="dim"))
        for remark in remarks:
            console.print(Text(remark, style="yellow"))
        return Exit.OK

    return run_diagnosis(where, work)


async def read_pasts(diagnosis: Diagnosis, instances: list[str] | None) -> dict[str, Past]:
    from palette_sync.store.inspect import inspect

    names, published = await diagnosis.instances(instances)
    found = {}
    for name in names:
        if name in published:
            state = (await inspect(diagnosis.store, diagnosis.sealer, name)).state
            found[name] = await read_transitions(diagnosis, name, state)
    return found


def transition_document(instance: str, one: Transition) -> dict[str, Any]:
    changed = (
        {path: [old, new] for path, old, new in differences(one.before, one.after)} if one.before and one.after else {}
    )
    return {
        "instance": instance,
        "version": one.version,
        "at": one.at,
        "uid": one.uid,
        "name": one.name,
        "what": one.what,
        "reason": one.reason,
        "details": one.details,
        "rotated": one.rotated,
        "changed": changed,
    }


def print_transitions(found: list[Transition], *, console: Console, instance: str, now: datetime) -> None:
    """Print transitions of one instance as a table."""
    if found:
        _print_rows([(instance, one) for one in found], console=console, now=now)


def _print_rows(found: list[tuple[str, Transition]], *, console: Console, now: datetime, wide: bool = False) -> None:
    if not found:
        return
    headings = ("when", "ago", "instance", "version", "cluster", *(("uid",) if wide else ()), "what", "reason")
    rows: list[tuple[str | Text, ...]] = [
        (
            f"{one.at:%Y-%m-%d %H:%M:%S}",
            short_duration(max(0, int((now - one.at).total_seconds()))),
            instance,
            str(one.version),
            visible(one.name),
            *((one.uid,) if wide else ()),
            Text(one.what, style=style_of(one)),
            visible(one.explanation),
        )
        for instance, one in found
    ]
    optional = () if wide else ("version", "instance", "when")
    console.print(table_of(headings, rows, console=console, optional=optional))


def style_of(one: Transition) -> str:
    what = one.what
    if what.endswith("failed") or what == "removed":
        return "red"
    return "yellow" if what.endswith("degraded") else "green" if what.endswith("ready") else ""

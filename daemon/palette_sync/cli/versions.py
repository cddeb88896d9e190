"""`palette-sync at` and `diff`: the clusters of a former version, and what differs between two versions."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from rich.text import Text

from palette_sync.cli.console import out, print_problems, table_of
from palette_sync.cli.diagnosis import Where, run_diagnosis
from palette_sync.cli.exits import Exit
from palette_sync.cli.outputs import DOCUMENTS, print_document, print_names
from palette_sync.cli.past import Past, read_pasts
from palette_sync.core.history import Record, access_message, at_version, compared, differences, member
from palette_sync.core.text import counted, visible

if TYPE_CHECKING:
    from rich.console import Console

    from palette_sync.assembly.diagnosis import Diagnosis


def at(where: Where, version: int, *, instance: str | None, output: str) -> Exit:
    """Exit 0: shown; 1: the history does not reach back to that version; 2: it is open which instance is meant."""

    async def work(diagnosis: Diagnosis) -> Exit:
        name, past = await _one(diagnosis, instance)
        if past is None:
            return Exit.USAGE
        records = _at(name, past, version)
        if records is None:
            return Exit.FAILED
        if output in DOCUMENTS:
            print_document({"instance": name, "version": version, "clusters": _by_name(records)}, output)
            return Exit.OK
        if output == "name":
            print_names(str(one.get("name")) for one in _by_name(records))
            return Exit.OK
        wide = output == "wide"
        console = out()
        console.print(Text.assemble((name, "bold"), f": version {version}, {counted(len(records), 'cluster')}"))
        rows = [
            (
                visible(str(one.get("name"))),
                visible(str(member(one, "project").get("name", one.get("scope", "")))),
                visible(str(member(one, "access").get("state", "-"))),
                visible(str(one.get("kubernetes_version", "-"))),
                *((visible(str(one.get("uid", "-"))),) if wide else ()),
                visible(": ".join(filter(None, (str(member(one, "access").get("reason", "")), access_message(one))))),
            )
            for one in _by_name(records)
        ]
        headings = ("name", "project", "access", "version", *(("uid",) if wide else ()), "reason")
        optional = () if wide else ("version", "project")
        console.print(table_of(headings, rows, console=console, optional=optional))
        return Exit.OK

    return run_diagnosis(where, work)


def diff(where: Where, before: int, after: int, *, instance: str | None, output: str) -> Exit:
    """Exit 0: shown, whether or not something differs; 1 and 2 as `at`."""

    async def work(diagnosis: Diagnosis) -> Exit:
        name, past = await _one(diagnosis, instance)
        if past is None:
            return Exit.USAGE
        older, newer = _at(name, past, before), _at(name, past, after)
        if older is None or newer is None:
            return Exit.FAILED
        found = list(compared(older, newer))
        if output in DOCUMENTS:
            changes = [
                {"uid": uid, "name": (new or old or {}).get("name"), "before": old, "after": new}
                for uid, old, new in found
            ]
            print_document({"instance": name, "before": before, "after": after, "changes": changes}, output)
            return Exit.OK
        if output == "name":
            print_names(str((new or old or {}).get("name", uid)) for uid, old, new in found)
            return Exit.OK
        console = out()
        changed = f"{counted(len(found), 'cluster')} changed from version {before} to {after}"
        console.print(Text.assemble((name, "bold"), f": {changed}"))
        for uid, old, new in found:
            _print_difference(uid, old, new, console=console)
        return Exit.OK

    return run_diagnosis(where, work)


async def _one(diagnosis: Diagnosis, instance: str | None) -> tuple[str, Past | None]:
    """The past of the instance, or of the only one. Prints what is wrong if there are several."""
    pasts = await read_pasts(diagnosis, [instance] if instance else None)
    if len(pasts) == 1:
        return next(iter(pasts.items()))
    names = ", ".join(pasts) or "none"
    print_problems([f"versions are counted by instance; choose one with --instance: {names}"], title="which instance?")
    return "", None


def _at(name: str, past: Past, version: int) -> dict[str, Record] | None:
    try:
        return at_version(past.entries, past.current, version=version, newest=past.newest)
    except ValueError as error:
        print_problems([f"{name}: {error}", *past.remarks], title="that version cannot be shown")
        return None


def _by_name(records: dict[str, Record]) -> list[Record]:
    return sorted(records.values(), key=lambda one: str(one.get("name")))


def _print_difference(uid: str, old: Record | None, new: Record | None, *, console: Console) -> None:
    name = visible(str((new or old or {}).get("name", uid)))
    if old is None:
        console.print(Text(f"+ {name}", style="green"))
    elif new is None:
        console.print(Text(f"- {name}", style="red"))
    else:
        console.print(Text(f"~ {name}", style="yellow"))
        for path, before, after in differences(old, new):
            console.print(Text(f"    {path}: {_short(before)} → {_short(after)}"))


def _short(value: object) -> str:
    return "-" if value is None else visible(json.dumps(value, ensure_ascii=False))

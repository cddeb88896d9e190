"""`palette-sync events`: the latest changes, one per line, and those that follow."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import orjson
from rich.text import Text

from palette_sync.cli.console import out, print_problems
from palette_sync.cli.diagnosis import Where, run_diagnosis
from palette_sync.cli.exits import Exit
from palette_sync.cli.past import read_pasts, style_of, transition_document
from palette_sync.core.history import Transition, transitions
from palette_sync.core.text import visible

if TYPE_CHECKING:
    from collections.abc import Iterable

    from palette_sync.assembly.diagnosis import Diagnosis
    from palette_sync.core.history import VersionChange

LATEST = 20  # changes that it begins with


def run(where: Where, *, instances: list[str] | None, follow: bool, as_json: bool) -> Exit:
    """Exit 0: shown; with `follow` it ends when interrupted."""

    async def work(diagnosis: Diagnosis) -> Exit:
        pasts = await read_pasts(diagnosis, instances)
        latest = sorted(
            ((name, one) for name, past in pasts.items() for one in past.transitions[:LATEST]),
            key=lambda pair: (pair[1].at, pair[1].version),
        )
        _print_events(latest[-LATEST:], as_json=as_json)
        if follow:
            await _follow(diagnosis, {name: past.newest for name, past in pasts.items()}, as_json=as_json)
        return Exit.OK

    return run_diagnosis(where, work)


async def _follow(diagnosis: Diagnosis, last: dict[str, int], *, as_json: bool) -> None:
    from palette_sync.store.past import ChangeReader

    if not last:
        print_problems(["nothing is published yet, so there is nothing to follow"], title="no events")
        return
    reader = ChangeReader(diagnosis.store, last)
    while True:
        for instance, change in await reader.wait():
            _print_events([(instance, one) for one in await _details(diagnosis, instance, change)], as_json=as_json)


async def _details(diagnosis: Diagnosis, instance: str, change: VersionChange) -> list[Transition]:
    """The transitions of one version that has just been published."""
    from palette_sync.core.snapshot_codec import record_in_history
    from palette_sync.store.errors import StoreDenied
    from palette_sync.store.past import former_version

    store = diagnosis.store
    try:
        entry = await former_version(store, diagnosis.sealer, instance, change.version)
    except StoreDenied:
        entry = None
    touched = sorted(change.put | change.drop | change.rotated)
    raws = await store.link.command("read records", "HMGET", store.keys.clusters(instance), *touched) if touched else []
    current = {uid: dict(record_in_history(raw)) for uid, raw in zip(touched, raws, strict=True) if raw is not None}
    return transitions([entry] if entry else [], [change], current)


def _print_events(found: Iterable[tuple[str, Transition]], *, as_json: bool) -> None:
    console = out()
    for instance, one in found:
        if as_json:
            sys.stdout.write(orjson.dumps(transition_document(instance, one), default=str).decode() + "\n")
            sys.stdout.flush()
            continue
        text = Text(f"{one.at:%Y-%m-%d %H:%M:%S} {instance} ")
        text.append(visible(one.name), style="bold")
        text.append(f" {one.what}", style=style_of(one))
        text.append(f" {one.reason}" if one.reason else "")
        text.append(f": {visible(one.details)}" if one.details else "")
        console.print(text)
        sys.stdout.flush()

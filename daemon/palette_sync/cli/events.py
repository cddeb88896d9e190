"""`palette-sync events`: the latest changes, one per line, and those that follow."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import orjson
from rich.text import Text

from palette_sync.cli.console import out, print_problems
from palette_sync.cli.diagnosis import Where, run_diagnosis
from palette_sync.cli.exits import Exit
from palette_sync.cli.outputs import DOCUMENTS, print_names, print_yaml
from palette_sync.cli.past import read_pasts, style_of, transition_document
from palette_sync.core.history import Transition, transitions
from palette_sync.core.text import visible

if TYPE_CHECKING:
    from collections.abc import Iterable

    from palette_sync.assembly.diagnosis import Diagnosis
    from palette_sync.core.history import VersionChange

LATEST = 20  # changes that it begins with


def run(where: Where, *, instances: list[str] | None, follow: bool, output: str) -> Exit:
    """Exit 0: shown; with `follow` it ends when interrupted. `output`: one of `options.OUTPUTS`."""

    async def work(diagnosis: Diagnosis) -> Exit:
        pasts = await read_pasts(diagnosis, instances)
        latest = sorted(
            ((name, one) for name, past in pasts.items() for one in past.transitions[:LATEST]),
            key=lambda pair: (pair[1].at, pair[1].version),
        )
        _print_events(latest[-LATEST:], output=output)
        if follow:
            await _follow(diagnosis, {name: past.newest for name, past in pasts.items()}, output=output)
        return Exit.OK

    return run_diagnosis(where, work)


async def _follow(diagnosis: Diagnosis, last: dict[str, int], *, output: str) -> None:
    from palette_sync.store.past import ChangeReader

    if not last:
        print_problems(["nothing is published yet, so there is nothing to follow"], title="no events")
        return
    reader = ChangeReader(diagnosis.store, last)
    while True:
        for instance, change in await reader.wait():
            _print_events([(instance, one) for one in await _details(diagnosis, instance, change)], output=output)


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


def _print_events(found: Iterable[tuple[str, Transition]], *, output: str) -> None:
    console = out()
    for instance, one in found:
        if output in DOCUMENTS:
            document = transition_document(instance, one)
            if output == "yaml":
                print_yaml([document])  # all of them together are one list
            else:
                sys.stdout.write(orjson.dumps(document, default=str).decode() + "\n")
            sys.stdout.flush()
            continue
        if output == "name":
            print_names([one.name])
            continue
        text = Text(f"{one.at:%Y-%m-%d %H:%M:%S} {instance} ")
        if output == "wide":
            text.append(f"version {one.version} {one.uid} ")
        text.append(visible(one.name), style="bold")
        text.append(f" {one.what}", style=style_of(one))
        text.append(f" {visible(one.explanation)}" if one.explanation else "")
        console.print(text)
        sys.stdout.flush()

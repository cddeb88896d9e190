"""`palette-sync release`: take everything of ours out of clusters, cluster by cluster, then drop their records."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.text import Text

from palette_sync.cli.console import out, print_json, print_problems
from palette_sync.cli.entry import run_command
from palette_sync.cli.exits import Exit

if TYPE_CHECKING:
    from pathlib import Path

    from palette_sync.assembly.instance import Shared
    from palette_sync.config import InstanceSettings, Settings
    from palette_sync.core.model import InstanceState
    from palette_sync.reconcile.release_instance import ReleasedCluster

Results = dict[str, list["ReleasedCluster"]]


def run(config: Path, instances: list[str] | None, clusters: list[str] | None, *, yes: bool, as_json: bool) -> Exit:
    """Exit 0: all were left, or without `yes` all could be; 1: a cluster could not; 75: a daemon leads the instance."""

    async def work(settings: Settings) -> Exit:
        from palette_sync.assembly.instance import open_shared
        from palette_sync.assembly.store import chosen_instances

        chosen = chosen_instances(settings, instances)
        results: Results = {}
        async with open_shared(settings) as shared:
            await shared.store.ping()
            states = {name: await shared.store.load(name) for name in chosen}
            wanted = {name: _wanted(state, clusters) for name, state in states.items()}
            if unknown := _unknown(states, clusters):
                print_problems(
                    [f"{one}: no published cluster has this name or uid" for one in unknown], title="nothing was done"
                )
                return Exit.FAILED
            for name, instance in chosen.items():
                if wanted[name]:
                    results[name] = await of_instance(shared, name, instance, wanted[name], yes=yes)
        _print(results, yes=yes, as_json=as_json)
        return Exit.FAILED if any(one.error for found in results.values() for one in found) else Exit.OK

    return run_command(config, work, log_level="error")


async def of_instance(
    shared: Shared, name: str, settings: InstanceSettings, uids: list[str], *, yes: bool
) -> list[ReleasedCluster]:
    """Leave clusters of one instance, under its lease. Without `yes`, only look. Raises LeaseHeld, StoreError."""
    from palette_sync.assembly.instance import client_of, holder, ports_of
    from palette_sync.reconcile.release_instance import release_instance
    from palette_sync.store.lease import Lease

    store, publisher = shared.store, None
    ttl = shared.settings.service.lease_ttl.total_seconds()
    async with AsyncExitStack() as stack:
        if yes:
            lease = await stack.enter_async_context(
                await Lease.acquire(store.link, store.keys, name, ttl=ttl, holder=holder(), sealer=shared.sealer)
            )
            publisher = await store.publisher(name, epoch=lease.epoch, writer=holder())
        client = await stack.enter_async_context(client_of(name, settings, shared.limits))
        return await release_instance(ports_of(shared, name, client, publisher=publisher), uids)


def _wanted(state: InstanceState, clusters: list[str] | None) -> list[str]:
    return [uid for uid, record in state.records.items() if not clusters or {uid, record.name} & set(clusters)]


def _unknown(states: dict[str, InstanceState], clusters: list[str] | None) -> list[str]:
    known = {word for state in states.values() for uid, record in state.records.items() for word in (uid, record.name)}
    return sorted(set(clusters or ()) - known)


def _print(results: Results, *, yes: bool, as_json: bool) -> None:
    if as_json:
        found = {name: [_document(one) for one in clusters] for name, clusters in results.items()}
        print_json({"done": yes, "instances": found})
        return
    console, problems, written = out(), [], 0
    for name, clusters in sorted(results.items()):
        for one in sorted(clusters, key=lambda cluster: cluster.name):
            if one.error:
                problems.append(f"{one.name}: {one.error}")
                continue
            console.print(Text(f"{name}: {one.name}", style="bold"))
            for action in one.actions:
                console.print(Text(f"  {action.verb} {action.kind} {action.name}: {action.message}"))
            written += len(one.actions)
            console.print(Text("  drop the record"))
    if not results:
        console.print("No cluster is published.")
    elif not yes:
        console.print("Nothing was changed. Stop the daemon, then run again with --yes.")
    if problems:
        problems.append("the records of these clusters stay; `palette-sync forget` drops those of a whole instance")
        print_problems(problems, title="some clusters could not be left")


def _document(one: ReleasedCluster) -> dict[str, object]:
    actions = [{key: value for key, value in asdict(action).items() if key in _SHOWN} for action in one.actions]
    return {"uid": one.uid, "name": one.name, "error": one.error, "actions": actions}


_SHOWN = frozenset({"verb", "kind", "name", "message", "reason"})

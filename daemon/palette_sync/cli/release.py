"""`palette-sync release`: take everything of ours out of clusters, cluster by cluster, then drop their records."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import typer
from rich.text import Text

from palette_sync.cli.console import out, print_json, print_problems, progress_of
from palette_sync.cli.entry import run_command
from palette_sync.cli.exits import Exit
from palette_sync.core.text import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from palette_sync.assembly.instance import Shared
    from palette_sync.config import InstanceSettings, Settings
    from palette_sync.core.model import Cluster, ClusterRecord, InstanceState
    from palette_sync.reconcile.ports import Rows
    from palette_sync.reconcile.release_instance import ReleasedCluster

Results = dict[str, list["ReleasedCluster"]]


@dataclass(frozen=True, slots=True)
class Choice:
    """What is asked for. `clusters`: only these, by name or uid. `unpublished`: also those that Palette lists and that
    are not published. `yes`: do it, do not only look.
    """

    clusters: tuple[str, ...] = ()
    unpublished: bool = False
    keep_adopted: bool = False
    yes: bool = False


@dataclass(frozen=True, slots=True)
class Former:
    """Access to Palette for an instance that is not in the configuration any more."""

    url: str
    api_key_file: Path


def run(config: Path, instances: list[str] | None, choice: Choice, former: Former | None, *, as_json: bool) -> Exit:
    """Exit 0: all were left, or without `yes` all could be; 1: a cluster could not; 75: a daemon leads the instance."""

    async def work(settings: Settings) -> Exit:
        from palette_sync.assembly.instance import open_shared
        from palette_sync.assembly.store import chosen_instances

        chosen = chosen_instances(settings, instances)
        results: Results = {}
        async with open_shared(settings) as shared:
            await shared.store.ping()
            states = {name: await shared.store.load(name) for name in chosen}
            missing = set(choice.clusters) - _words(
                record for one in states.values() for record in one.records.values()
            )
            rows, problems = await _unpublished(shared, chosen, states, choice, missing)
            prefixes = [(shared.policies[name].name_prefix, listed) for name, listed in rows.items()]
            found = {word for prefix, listed in prefixes for word in _words(listed.values(), prefix)}
            if unknown := sorted(missing - found):
                print_problems(
                    [f"{one}: no published or listed cluster has this name or uid" for one in unknown] + problems,
                    title="nothing was done",
                )
                return Exit.FAILED
            with progress_of(list(chosen), show=not as_json) as reporter:
                for name, instance in chosen.items():
                    uids = [*_published(states[name], choice), *rows[name]]
                    if uids:
                        results[name] = await of_instance(
                            shared, name, instance, uids, rows[name], choice, progress=reporter(name)
                        )
        _print(results, problems, yes=choice.yes, as_json=as_json)
        return Exit.FAILED if problems or any(one.error for found in results.values() for one in found) else Exit.OK

    return run_command(config, work, log_level="error", environ=_environ(instances, former))


async def of_instance(
    shared: Shared,
    name: str,
    settings: InstanceSettings,
    uids: list[str],
    rows: Rows,
    choice: Choice,
    *,
    progress: Callable[[str, int, int], None] = lambda _stage, _done, _total: None,
) -> list[ReleasedCluster]:
    """Leave clusters of one instance, under its lease. Without `yes`, only look. Raises LeaseHeld, StoreError.

    `rows` are clusters that are not published. If the configuration selects none of `uids`, no daemon that has it works
    on them, so no lease is needed.
    """
    from palette_sync.assembly.instance import client_of, holder, ports_of
    from palette_sync.reconcile.release_instance import release_instance
    from palette_sync.store.lease import Lease

    store = shared.store
    filters = shared.policies[name].filters
    deselected = all(uid in rows and filters.deselects(rows[uid]) for uid in uids)
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(client_of(name, settings, shared.limits))
        ports = ports_of(shared, name, client, publisher=None, progress=progress)
        if choice.yes and not deselected:
            ttl = shared.settings.service.lease_ttl.total_seconds()
            lease = await stack.enter_async_context(
                await Lease.acquire(store.link, store.keys, name, ttl=ttl, holder=holder(), sealer=shared.sealer)
            )
            publisher = await store.publisher(name, epoch=lease.epoch, writer=holder())
            ports = replace(ports, publisher=publisher, may_write=lease.may_write)
        return await release_instance(ports, uids, rows, yes=choice.yes, keep_adopted=choice.keep_adopted)


def _environ(instances: list[str] | None, former: Former | None) -> dict[str, str] | None:
    """The environment that configures a former instance, or None. A wrong option ends with exit code 2."""
    if former is None:
        return None
    if len(instances or ()) != 1:
        raise typer.BadParameter("name the instance with --instance", param_hint="--url")
    prefix = f"PALETTE_SYNC_INSTANCES__{instances[0].upper()}__" if instances else ""
    return {**os.environ, f"{prefix}URL": former.url, f"{prefix}API_KEY_FILE": str(former.api_key_file.absolute())}


async def _unpublished(
    shared: Shared,
    chosen: dict[str, InstanceSettings],
    states: dict[str, InstanceState],
    choice: Choice,
    missing: set[str],
) -> tuple[dict[str, Rows], list[str]]:
    """The clusters to leave that Palette lists and that are not published, and what could not be listed.

    `missing` are the names and uids that are not published. Palette is listed only if something may be found there.
    """
    from palette_sync import palette
    from palette_sync.assembly.instance import client_of
    from palette_sync.reconcile.finish import problems_of

    rows: dict[str, Rows] = {name: {} for name in chosen}
    problems: list[str] = []
    if not choice.unpublished and not missing:
        return rows, problems
    for name, settings in chosen.items():
        prefix = shared.policies[name].name_prefix
        try:
            async with client_of(name, settings, shared.limits) as client:
                found = await palette.discover(
                    client, choose=lambda _: True, tenant_scope=True, include_virtual=True, tenant=settings.tenant
                )
        except palette.PaletteError as error:
            problems.append(f"{name}: {error}")
            continue
        problems += [f"{name}: {one}" for one in problems_of(found)]
        listed = [row for listing in found.listings for row in listing.clusters if not row.gone]
        rows[name] = {
            row.uid: row
            for row in listed
            if row.uid not in states[name].records and (not choice.clusters or _words([row], prefix) & missing)
        }
    return rows, problems


def _words(clusters: Iterable[ClusterRecord | Cluster], prefix: str = "") -> set[str]:
    """What clusters may be called on the command line: uid, name, and name with the instance's prefix."""
    names = [(one.uid, one.name) for one in clusters]
    return {word for uid, name in names for word in (uid, name, f"{prefix}-{name}" if prefix else name)}


def _published(state: InstanceState, choice: Choice) -> list[str]:
    wanted = set(choice.clusters)
    return [uid for uid, record in state.records.items() if not wanted or {uid, record.name} & wanted]


def _print(results: Results, problems: list[str], *, yes: bool, as_json: bool) -> None:
    if as_json:
        found = {name: [_document(one) for one in clusters] for name, clusters in results.items()}
        print_json({"done": yes, "instances": found, "problems": problems})
        return
    failed = [f"{one.name}: {one.error}" for found in results.values() for one in found if one.error]
    console = out()
    for name, clusters in sorted(results.items()):
        for one in sorted(clusters, key=lambda cluster: cluster.name):
            if not one.error:
                console.print(Text(f"{name}: {one.name}", style="bold"))
                console.print(Text("\n".join(_lines(one))))
    if not results:
        console.print("No cluster is published.")
    elif yes:
        left = [one for found in results.values() for one in found if not one.error]
        objects = sum(len(one.actions) for one in left)
        console.print(f"Left {counted(len(left), 'cluster')}; {counted(objects, 'object')} deleted or handed back.")
    else:
        console.print("Nothing was changed. Stop the daemon, then run again with --yes.")
    if failed:
        failed.append("the records of these clusters stay; `palette-sync forget` drops those of a whole instance")
    if failed or problems:
        print_problems([*problems, *failed], title="some clusters cannot be released")


def _lines(one: ReleasedCluster) -> list[str]:
    lines = [f"  {action.verb} {action.kind} {action.name}: {action.message}" for action in one.actions]
    if one.published:
        return [*lines, "  drop the record"]
    return lines or ["  nothing of palette-sync is in it"]


def _document(one: ReleasedCluster) -> dict[str, object]:
    actions = [{key: value for key, value in asdict(action).items() if key in _SHOWN} for action in one.actions]
    return {"uid": one.uid, "name": one.name, "published": one.published, "error": one.error, "actions": actions}


_SHOWN = frozenset({"verb", "kind", "name", "message", "reason"})

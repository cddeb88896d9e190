"""`palette-sync replace-legacy`: delete the Secrets with never-expiring tokens of the in-process plugin.

Deleting a Secret revokes its token at once, so nothing may use it any more.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from rich.text import Text

from palette_sync.cli.console import out, print_json, print_problems
from palette_sync.cli.entry import run_command
from palette_sync.cli.exits import Exit
from palette_sync.fanout import fan_out

if TYPE_CHECKING:
    from pathlib import Path

    from palette_sync.assembly.instance import Shared
    from palette_sync.config import InstanceSettings, Settings
    from palette_sync.core.model import ClusterRecord, InstanceState
    from palette_sync.fanout import Outcome


class Paused(Exception):
    """Nothing is written to the cluster, because an operator paused it."""


def run(config: Path, instances: list[str] | None, *, yes: bool, as_json: bool) -> Exit:
    """Exit 0: all were deleted, or without --yes all were found; 1: a cluster failed."""

    async def work(settings: Settings) -> Exit:
        from palette_sync.assembly.instance import open_shared
        from palette_sync.assembly.store import chosen_instances

        found: dict[str, list[str]] = {}
        problems: list[str] = []
        async with open_shared(settings) as shared:
            for name, instance in chosen_instances(settings, instances).items():
                for outcome in await of_instance(shared, name, instance, yes=yes):
                    if outcome.error is not None:
                        problems.append(f"{outcome.key.name}: {outcome.error}")
                    elif outcome.value:
                        found[outcome.key.name] = list(outcome.value)
        _print_results(found, problems, yes=yes, as_json=as_json)
        return Exit.FAILED if problems else Exit.OK

    return run_command(config, work, log_level="error")


async def of_instance(
    shared: Shared, name: str, settings: InstanceSettings, *, yes: bool
) -> list[Outcome[ClusterRecord, tuple[str, ...]]]:
    """Return the deleted Secrets of each cluster in which a pass saw a legacy token."""
    from palette_sync import kube, palette
    from palette_sync.assembly.instance import client_of
    from palette_sync.assembly.policy import network_of, policy_of
    from palette_sync.assembly.store import utc_now
    from palette_sync.core.fold import cluster_of
    from palette_sync.core.pause import pause_of
    from palette_sync.reconcile.access import replace_legacy
    from palette_sync.reconcile.context import with_owner

    owner = await shared.store.owner(shared.settings.service.owner or "", write=False)
    policy = with_owner(policy_of(name, settings), owner)
    requests = kube.Requests(network=network_of(shared.settings))
    state = await shared.store.load(name)
    now = utc_now()
    legacy = [record for record in state.records.values() if _remembers_legacy(state, record.uid)]
    async with client_of(name, settings, shared.limits) as client:

        async def one(record: ClusterRecord) -> tuple[str, ...]:
            if (pause := pause_of(record, now)) is not None:
                raise Paused(f"{pause.text}; resume it first")
            cluster = cluster_of(record)
            admin = kube.parse(await palette.admin_kubeconfig(client, cluster), ca_pem=policy.ca_of(cluster))
            timeout = policy.cluster_timeout.total_seconds()
            return await replace_legacy(admin, policy.desired, timeout=timeout, dry_run=not yes, requests=requests)

        outcomes = await fan_out(
            legacy,
            one,
            limit=asyncio.Semaphore(shared.settings.service.concurrency),
            timeout=120,
            name=f"legacy:{name}",
        )
    if yes and (done := [outcome.key.uid for outcome in outcomes if outcome.error is None]):
        await _publish(shared, name, done)
    return outcomes


async def _publish(shared: Shared, name: str, uids: list[str]) -> None:
    """Publish that these clusters hold no legacy token any more; ask the daemon to look, if one leads the instance.

    If neither is possible, the next verification of the clusters finds out.
    """
    from palette_sync.assembly.instance import holder
    from palette_sync.assembly.store import utc_now
    from palette_sync.core.fold import without_legacy
    from palette_sync.core.model import ClusterMemory
    from palette_sync.store.control import Verb, ask
    from palette_sync.store.lease import Lease
    from palette_sync.store.redis import LeaseHeld

    store, now = shared.store, utc_now().replace(microsecond=0)
    ttl = shared.settings.service.lease_ttl.total_seconds()
    try:
        async with await Lease.acquire(store.link, store.keys, name, ttl=ttl, holder=holder()) as lease:
            publisher = await store.publisher(name, epoch=lease.epoch, writer=holder())
            state = publisher.state
            changed = {
                uid: without_legacy(state.records[uid], state.memory.get(uid, ClusterMemory()), now)
                for uid in uids
                if state.trusted and uid in state.records
            }
            await publisher.publish(
                now=now,
                put={uid: record for uid, (record, _) in changed.items()},
                memory={uid: memory for uid, (_, memory) in changed.items()},
            )
    except LeaseHeld:
        async for _ in ask(store.link, store.keys, shared.sealer, name, Verb.RESYNC, by=holder()):
            break  # the request is sent; the result is not waited for


def _remembers_legacy(state: InstanceState, uid: str) -> bool:
    memory = state.memory.get(uid)
    return memory is not None and memory.legacy


def _print_results(found: dict[str, list[str]], problems: list[str], *, yes: bool, as_json: bool) -> None:
    if as_json:
        print_json({"deleted" if yes else "would_delete": found, "problems": problems})
        return
    console = out()
    for cluster, secrets in sorted(found.items()):
        console.print(Text(f"{cluster}: {'deleted' if yes else 'would delete'} {', '.join(secrets)}"))
    if not found and not problems:
        console.print("No published cluster has a legacy token Secret.")
    if found and not yes:
        console.print("Nothing was deleted. Run again with --yes once nothing uses these tokens.")
    if problems:
        print_problems(problems, title="some clusters failed")

"""`palette-sync forget`: delete what Redis holds of an instance that is not in the configuration any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from palette_sync.cli.console import out, print_json, print_problems
from palette_sync.cli.diagnosis import Where, run_diagnosis
from palette_sync.cli.exits import Exit
from palette_sync.core.text import counted

if TYPE_CHECKING:
    from palette_sync.assembly.diagnosis import Diagnosis

LEASE = 15.0  # seconds; deleting keys takes far less


def run(where: Where, instance: str, *, yes: bool, as_json: bool) -> Exit:
    """Exit 0: deleted, or without `yes` shown; 1: it is configured, or not published; 75: a daemon leads it.

    No cluster is touched, and no secret is needed.
    """

    async def work(diagnosis: Diagnosis) -> Exit:
        await diagnosis.store.ping()
        problem = await _problem(diagnosis, instance)
        if problem:
            print_problems([f"{instance}: {problem}"], title="nothing was deleted")
            return Exit.FAILED
        state = await diagnosis.store.load(instance)
        tokens = len(state.credentials)
        if yes:
            await _delete(diagnosis, instance)
        if as_json:
            print_json({"instance": instance, "clusters": len(state.records), "tokens": tokens, "deleted": yes})
            return Exit.OK
        console = out()
        console.print(f"{instance}: {counted(len(state.records), 'cluster')}, {tokens} with a token")
        if tokens:
            console.print(
                "Its objects stay in these clusters. `palette-sync release` with the former configuration removes them."
            )
        console.print("Its keys were deleted." if yes else "Nothing was deleted. Run again with --yes.")
        return Exit.OK

    return run_diagnosis(where, work, remarks=False)


async def _problem(diagnosis: Diagnosis, instance: str) -> str:
    """Why this instance cannot be forgotten; "" if it can."""
    if diagnosis.configured is None:
        return "whether it is configured is not known, because the configuration cannot be read; correct --config"
    if instance in diagnosis.configured:
        return "is in the configuration; take it out and reload the daemon first"
    published = await diagnosis.store.instances()
    if instance not in published:
        return f"is not published; published are {', '.join(sorted(published)) or 'none'}"
    return ""


async def _delete(diagnosis: Diagnosis, instance: str) -> None:
    """Raises LeaseHeld while a daemon leads the instance, StoreError."""
    from palette_sync.assembly.instance import holder
    from palette_sync.store.lease import Lease

    store = diagnosis.store
    async with await Lease.acquire(store.link, store.keys, instance, ttl=LEASE, holder=holder()):
        await store.forget(instance)

"""Take everything of ours out of one cluster. `core.release` decides what is deleted and what is handed back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from palette_sync import kube
from palette_sync.core.objects import Kind
from palette_sync.core.release import plan_release
from palette_sync.reconcile.access import ROUNDS, refusals_of

if TYPE_CHECKING:
    from palette_sync.core.actions import Action
    from palette_sync.core.model import Server
    from palette_sync.core.objects import Desired


async def release(
    admin: kube.AdminAccess,
    desired: Desired,
    *,
    timeout: float,  # noqa: ASYNC109 - of each request; the caller bounds the whole
    requests: kube.Requests,
    dry_run: bool,
    keep_adopted: bool = False,
) -> tuple[Action, ...]:
    """Delete or hand back every object of ours, and return the actions. Raises KubeError, KubeconfigError."""

    async def work(server: Server) -> tuple[Action, ...]:
        done: list[Action] = []
        async with (
            refusals_of(admin),
            kube.KubeApi(server, admin.credential, timeout=timeout, requests=requests) as api,
        ):
            for attempt in range(ROUNDS):
                try:
                    await _release_once(api, desired, done, dry_run=dry_run, keep_adopted=keep_adopted)
                    break
                except (kube.Conflict, kube.NotFound):  # somebody else changed or deleted an object meanwhile
                    if attempt == ROUNDS - 1:
                        raise
        return tuple(done)

    return await kube.as_reader(admin.server, work, timeout=timeout, network=requests.network)


async def _release_once(
    api: kube.KubeApi, desired: Desired, done: list[Action], *, dry_run: bool, keep_adopted: bool
) -> None:
    found = await kube.find_labelled(api, desired)
    spaces = [one.name for one in found if one.kind is Kind.NAMESPACE]
    others = await kube.find_others(api, desired, spaces)
    for step in plan_release(desired, found, others, keep_adopted=keep_adopted):
        if not dry_run:
            await kube.write(api, step.action, namespace=step.namespace)
        done.append(step.action)

"""The values that all steps of one pass share; no step changes them."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from palette_sync import kube
from palette_sync.reconcile.ledger import Ledger
from palette_sync.reconcile.ongoing import Ongoing
from palette_sync.reconcile.publish import Publishing

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from palette_sync.core.policy import InstancePolicy
    from palette_sync.reconcile.ports import PassOptions, Ports, Rows
    from palette_sync.store.owner import Owner


def with_owner(policy: InstancePolicy, owner: Owner) -> InstancePolicy:
    return replace(policy, desired=replace(policy.desired, owner=owner.id, former_owners=owner.former))


@dataclass(frozen=True, slots=True)
class PassContext:
    """One pass: what it works with, what was asked of it, and when it began.

    `now` is the wall clock in whole seconds, `started` the monotonic clock. `publishing` is None for a plan, which
    writes nothing. `rows` are the clusters as Palette listed them last.
    """

    ports: Ports
    pass_id: str
    options: PassOptions
    rows: Rows
    now: datetime
    started: float
    requests: kube.Requests
    publishing: Publishing | None
    ledger: Ledger
    ongoing: Ongoing

    @classmethod
    def begin(cls, ports: Ports, pass_id: str, options: PassOptions, rows: Rows) -> PassContext:
        now = ports.clock().replace(microsecond=0)
        instance = ports.policy.instance
        publishing = Publishing(ports.publisher, instance=instance, now=now) if ports.publisher is not None else None
        return cls(
            ports=ports,
            pass_id=pass_id,
            options=options,
            rows=rows,
            now=now,
            started=time.monotonic(),
            requests=kube.Requests(ports.kube_recorder, network=ports.network, may_write=ports.may_write),
            publishing=publishing,
            ongoing=ports.ongoing or Ongoing.of_one_pass(ports.concurrency),
            ledger=Ledger(instance, pass_id, dry_run=publishing is None),
        )

    @property
    def policy(self) -> InstancePolicy:
        return self.ports.policy

    @property
    def instance(self) -> str:
        return self.ports.policy.instance

    @property
    def dry_run(self) -> bool:
        return self.publishing is None

    async def owned_policy(self) -> InstancePolicy:
        """The policy with the owner ids of this installation, which Redis holds. Raises StoreError."""
        owner = await self.ports.store.owner(self.ports.owner, write=not self.dry_run)
        return with_owner(self.policy, owner)

    def may_issue(self) -> bool:
        """Whether a token that is issued now could be published (invariant 3, docs/architecture.md)."""
        away = self.publishing is not None and self.publishing.away
        return not away and self.ports.may_issue()

    def unpublished(self, chosen: Collection[str], published: Collection[str]) -> set[str]:
        """The listed clusters that are not published yet, by uid. `chosen` are those that this pass saw."""
        listed = set(chosen) if self.options.lists else {*self.rows, *chosen}
        return listed - set(published)

    def keep_unpublished(self) -> None:
        """Hand what could not be published to the caller, so that nothing of it is issued again."""
        if self.publishing is not None:
            self.ports.keep(self.publishing.unpublished)

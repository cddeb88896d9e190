"""The last published state of an instance, kept in memory so that a store that lost it can be filled again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from palette_sync.runner.refill import joined, lost_something, lost_versions, refill, reseal
from palette_sync.store.redis import VersionConflict

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from palette_sync.core.model import InstanceState
    from palette_sync.reconcile.ports import Unpublished
    from palette_sync.store.redis import Publisher
    from palette_sync.store.seal import Sealer


class LastPublished:
    """`state` is what this process last published or read, with what it could not publish; None before that."""

    def __init__(self, instance: str) -> None:
        self.state: InstanceState | None = None
        self._instance = instance
        self._sealer: Sealer | None = None
        # Epochs whose head does not hold all of `state`: it was being published when the store failed.
        self._incomplete_epochs: set[int] = set()

    def remember(self, publisher: Publisher) -> None:
        """Keep what the publisher read or published, unless it does not verify."""
        state = publisher.state
        if state.head is not None and state.trusted:
            self.state = state

    def add_unpublished(self, unpublished: Sequence[Unpublished], *, epoch: int, sealer: Sealer) -> None:
        """Add what the store did not take, so that nothing of it is issued again."""
        if not unpublished or self.state is None or self.state.head is None:
            return
        self._incomplete_epochs |= {self.state.head.epoch, epoch}
        for rest in unpublished:
            self.state = joined(self.state, rest, instance=self._instance, sealer=sealer)

    async def restore(self, publisher: Publisher, *, epoch: int, sealer: Sealer, now: datetime) -> None:
        """Publish `state` again if the store lost part of it; then seal with `sealer` what an older key sealed.

        `epoch` is that of the lease. Raises StoreError, and VersionConflict if a new epoch is needed.
        """
        # A reload may have replaced the keys outright, so what the former ones sealed is opened with them.
        sealers = (sealer,) if self._sealer is None else (sealer, self._sealer)
        head = publisher.state.head
        incomplete = head is not None and head.epoch in self._incomplete_epochs
        if self.state is not None and (incomplete or lost_something(publisher.state, self.state)):
            if lost_versions(publisher.state, self.state, epoch=epoch):
                raise VersionConflict(f"{self._instance}: Redis holds less than was published under this lease")
            self._incomplete_epochs.add(epoch)
            await refill(publisher, self.state, instance=self._instance, sealers=sealers, now=now)
        self._incomplete_epochs.clear()
        if sealer is not self._sealer:
            await reseal(publisher, instance=self._instance, sealers=sealers, now=now)
            self._sealer = sealer

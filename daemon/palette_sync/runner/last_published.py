"""The last published state of an instance, kept in memory so that a store that lost it can be filled again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from palette_sync.runner.refill import joined, lost_something, lost_versions, refill, reseal
from palette_sync.store.life import Life
from palette_sync.store.redis import VersionConflict

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from palette_sync.core.model import InstanceState
    from palette_sync.reconcile.ports import Unpublished
    from palette_sync.store.publisher import Publisher
    from palette_sync.store.seal import Sealer


class LastPublished:
    """`state` is what this process last published or read, with what it could not publish; None before that.

    `life` is what it has confirmed since it began to lead without a gap.
    """

    def __init__(self, instance: str) -> None:
        self.state: InstanceState | None = None
        self._instance = instance
        self._sealer: Sealer | None = None
        self.life = Life()
        # Epochs whose head does not hold all of `state`: it was being published when the store failed.
        self._incomplete_epochs: set[int] = set()
        self._own_epochs: set[int] = set()
        self._uncertain_epoch = 0  # under which a version was sent whose fate is unknown; 0 = none

    @property
    def epoch(self) -> int:
        """The newest epoch that readers may know; 0 if there is none."""
        return max(self.state.head.epoch if self.state and self.state.head else 0, self._uncertain_epoch)

    def remember(self, publisher: Publisher) -> None:
        """Keep what the publisher read or published, unless it does not verify."""
        if publisher.uncertain:
            self._uncertain_epoch = publisher.epoch
        elif self._uncertain_epoch == publisher.epoch:
            self._uncertain_epoch = 0
        state = publisher.state
        if state.head is not None and state.trusted:
            self.state = state

    def would_fill(self, publisher: Publisher) -> bool:
        """Whether Redis holds nothing, or less than this process remembers."""
        found = publisher.state
        return found.head is None or not found.trusted or lost_something(found, self.state or found)

    def follow(self, state: InstanceState) -> None:
        """Keep what another process has published. Older or unverified content is ignored.

        This process has confirmed nothing of what is newer than its memory.
        """
        if state.head is None or not state.trusted or lost_something(state, self.state or state):
            return
        if self.state is None or lost_something(self.state, state):
            self.life.begin()
            self._incomplete_epochs.clear()
        self.state = state

    def add_unpublished(self, unpublished: Sequence[Unpublished], *, prefix: str, epoch: int, sealer: Sealer) -> None:
        """Add what the store did not take, so that nothing of it is issued again."""
        if not unpublished or self.state is None or self.state.head is None:
            return
        self._incomplete_epochs |= {self.state.head.epoch, epoch}
        for rest in unpublished:
            self.state = joined(self.state, rest, prefix=prefix, sealer=sealer)

    async def restore(self, publisher: Publisher, *, epoch: int, sealer: Sealer, now: datetime) -> bool:
        """Publish `state` again if the store lost part of it; then seal with `sealer` what an older key sealed.

        Return whether the store had lost something.

        If the store holds something newer, another process led meanwhile, and this one's life begins anew. Nothing is
        sealed again before a listing was tried in this life. `epoch` is that of the lease.

        Raises StoreError, and VersionConflict if a new epoch is needed.
        """
        if epoch == self._uncertain_epoch:
            raise VersionConflict(f"{self._instance}: nobody knows whether the last version under this lease arrived")
        # A reload may have replaced the keys outright, so what the former ones sealed is opened with them.
        sealers = (sealer,) if self._sealer is None else (sealer, self._sealer)
        head = publisher.state.head
        incomplete = head is not None and head.epoch in self._incomplete_epochs
        lost = self.state is not None and lost_something(publisher.state, self.state)
        if self.state is not None and (incomplete or lost):
            if lost_versions(publisher.state, self.state, epoch=epoch):
                raise VersionConflict(f"{self._instance}: Redis holds less than was published under this lease")
            self._incomplete_epochs.add(epoch)
            await refill(publisher, self.state, instance=self._instance, sealers=sealers, now=now)
        elif self._another_led(publisher.state):
            self.life.begin()
        self._own_epochs.add(epoch)
        self._incomplete_epochs.clear()
        await self.reseal(publisher, sealer=sealer, now=now)
        return lost

    def _another_led(self, found: InstanceState) -> bool:
        """Whether another process published since this one did."""
        if self.state is None or found.head is None or not lost_something(self.state, found):
            return False
        return found.head.epoch not in self._own_epochs

    async def reseal(self, publisher: Publisher, *, sealer: Sealer, now: datetime) -> None:
        """Seal with `sealer` what an older key sealed, once a listing was tried in this life. Raises StoreError."""
        if sealer is self._sealer or not self.life.listed:
            return
        sealers = (sealer,) if self._sealer is None else (sealer, self._sealer)
        await reseal(publisher, instance=self._instance, sealers=sealers, now=now)
        self._sealer = sealer

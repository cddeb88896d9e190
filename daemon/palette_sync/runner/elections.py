"""What a runner asks when several processes run: whether this one leads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from palette_sync.core.leadership import Decision


class Elections(Protocol):
    """Decides whether this process leads an instance, when several run."""

    async def confirm(self, instance: str) -> Decision:
        """Look at Redis and at the other processes now, and decide. Raises StoreError."""
        ...

    def decision(self, instance: str) -> Decision | None:
        """What was decided last; None before the first time."""
        ...

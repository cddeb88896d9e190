"""What a runner asks and notifies outside of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from palette_sync.core.leadership import Decision
    from palette_sync.core.reasons import Reason
    from palette_sync.reconcile.report import PassReport
    from palette_sync.runner.instance import Runner


class Elections(Protocol):
    """Decides whether this process leads an instance, when several run."""

    async def confirm(self, instance: str) -> Decision:
        """Look at Redis and at the other processes now, and decide. Raises StoreError."""
        ...

    def decision(self, instance: str) -> Decision | None:
        """What was decided last; None before the first time."""
        ...


class Observer(Protocol):
    """Is notified of what a runner does. The runner waits for these calls to return, so they must not block."""

    def pass_finished(self, report: PassReport, *, listed: bool) -> None:
        """`listed`: the pass listed Palette, and did not only work on known clusters."""
        ...

    def pass_failed(self, instance: str, reason: Reason) -> None:
        """A pass ended without a report."""
        ...

    def store_failed(self, instance: str) -> None:
        """Redis could not be used."""
        ...

    def status_changed(self, runner: Runner) -> None: ...

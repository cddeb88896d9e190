"""What this process knows of an instance since it began to lead it without a gap. No I/O.

A process that starts cannot know whether what it reads from Redis is the newest. Until it has seen a cluster in a
listing of Palette, or has written it, the cluster's record is unconfirmed: readers that hold another authentic record
of the cluster keep theirs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable


class Life:
    """`listed`: a listing of Palette was tried. `everything`: nothing is unconfirmed, whatever was read."""

    def __init__(self, *, everything: bool = False) -> None:
        self.listed = everything
        self._everything = everything
        self._confirmed: set[str] = set()

    def begin(self) -> None:
        """Start anew: another process may have led meanwhile."""
        self.listed = self._everything
        self._confirmed.clear()

    def confirm(self, uids: Iterable[str]) -> None:
        self._confirmed.update(uids)

    def forget(self, uids: Iterable[str]) -> None:
        self._confirmed.difference_update(uids)

    def unconfirmed(self, uids: Collection[str]) -> set[str]:
        """Those of `uids` that are not confirmed."""
        if self._everything or self._confirmed.issuperset(uids):
            return set()
        return set(uids) - self._confirmed

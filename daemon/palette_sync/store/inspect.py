"""Reads an instance for people, with the rights of the configured Redis user.

A reader's user may see the snapshot and not the daemon's own keys. What the server does not permit is left out and
named, instead of making the whole command fail.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from palette_sync.core.documents import DocumentError, Fields, decode_object
from palette_sync.store.errors import StoreDenied
from palette_sync.store.members import MemberBook
from palette_sync.store.read import Stored, read
from palette_sync.store.seal import Unsealed

if TYPE_CHECKING:
    from palette_sync.core.model import InstanceState
    from palette_sync.store.members import Company
    from palette_sync.store.redis import Store
    from palette_sync.store.seal import Sealer

ANNOUNCED_WITHIN = 1.5  # seconds within which a living process announces itself again
_OWN = ("work", "scopes", "issuers")


class Unverified(Unsealed):
    """For who has no seal key: opens nothing, and accepts every mac. What it accepts is shown as not verified."""


@dataclass(frozen=True, slots=True)
class Leader:
    """Who holds the lease of an instance, `host:pid`, and since when."""

    holder: str
    since: datetime | None


@dataclass(frozen=True, slots=True)
class Inspected:
    """An instance as far as it may be read. `denied`: the keys that the user may not read (`work`, `lease`, ...).

    `leader` is None if nobody holds the lease, or if the user may not see it.
    """

    state: InstanceState
    leader: Leader | None
    denied: frozenset[str]


async def inspect(store: Store, sealer: Sealer, instance: str) -> Inspected:
    """Raises StoreUnavailable, StoreError; StoreDenied if not even the snapshot may be read."""
    denied: set[str] = set()
    try:
        state = await store.load(instance)
    except StoreDenied:
        state = await _permitted(store, sealer, instance, denied)
    try:
        leader = _leader(await store.link.command("read the lease", "GET", store.keys.lease(instance)))
    except StoreDenied:
        leader = None
        denied.add("lease")
    return Inspected(state, leader, frozenset(denied))


async def living(store: Store, sealer: Sealer) -> Company | None:
    """Return the living processes; None if the user may not see them. Raises StoreUnavailable, StoreError.

    Where entries cannot be verified, this looks a second time a moment later: who announces itself meanwhile lives.
    """
    book = MemberBook(store.link, store.keys)
    try:
        company = await book.listen(sealer)
        if book.unknown:
            await asyncio.sleep(ANNOUNCED_WITHIN)
            company = await book.listen(sealer)
    except StoreDenied:
        return None
    return company


async def _permitted(store: Store, sealer: Sealer, instance: str, denied: set[str]) -> InstanceState:
    link, keys = store.link, store.keys
    names = ("head", "clusters", "credentials")
    snapshot = await link.transaction(f"read {instance}", *(("HGETALL", keys.of(instance, one)) for one in names))
    parts: dict[str, Any] = dict(zip(names, snapshot, strict=True))
    for what in (*_OWN, "status"):
        command = "GET" if what == "status" else "HGETALL"
        try:
            parts[what] = await link.command(f"read {what} of {instance}", command, keys.of(instance, what))
        except StoreDenied:
            denied.add(what)
    return (await read(keys.prefix, instance, Stored(**parts), sealer, now=datetime.now(UTC))).state


def _leader(raw: bytes | None) -> Leader | None:
    if raw is None:
        return None
    try:
        fields = Fields("lease", decode_object("lease", raw))
        return Leader(fields.text("holder"), fields.maybe_time("since"))
    except DocumentError:
        return Leader("somebody", None)

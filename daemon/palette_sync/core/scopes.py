"""How fresh each scope of an instance is after a pass, and which prunes the last status document holds. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from palette_sync.core.model import ScopeStatus

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from palette_sync.core.model import Discovery


def scopes_after(
    before: Mapping[str, ScopeStatus], discovery: Discovery, now: datetime
) -> dict[str, ScopeStatus | None]:
    """Return the scopes that change. None removes a scope whose project is gone or no longer selected.

    A scope whose listing failed keeps the time of its last good listing; `since` is when its listings began to fail.
    """
    if discovery.projects is None:
        error = discovery.error or "the project list failed"
        return {scope: _failing(status, error, now) for scope, status in before.items()}
    after: dict[str, ScopeStatus | None] = dict.fromkeys(before)
    for listing in discovery.listings:
        if listing.not_permitted:
            continue
        known = before.get(listing.scope, ScopeStatus(listing.name))
        if listing.error is None:
            after[listing.scope] = ScopeStatus(listing.name, listed_at=now)
        else:
            after[listing.scope] = replace(_failing(known, listing.error, now), name=listing.name)
    return after


def whole(discovery: Discovery) -> bool:
    """Whether a discovery listed everything. A tenant scope that the API key may not list does not count."""
    return discovery.projects is not None and all(
        listing.complete or listing.not_permitted for listing in discovery.listings
    )


def held_before(status: Mapping[str, object]) -> dict[str, int]:
    """Read the held prunes from the last status document. Anything malformed is ignored."""
    held = status.get("held")
    if not isinstance(held, dict):
        return {}
    return {uid: count for uid, count in held.items() if isinstance(uid, str) and type(count) is int}


def _failing(status: ScopeStatus, error: str, now: datetime) -> ScopeStatus:
    return replace(status, error=error, since=status.since if status.error else now)

"""How fresh each scope of an instance is after a pass. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from palette_sync.core.model import TENANT_SCOPE, ScopeStatus

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from palette_sync.core.model import Discovery


def scopes_after(
    before: Mapping[str, ScopeStatus], discovery: Discovery, now: datetime
) -> dict[str, ScopeStatus | None]:
    """Return the scopes that change. None removes a scope whose project is gone or no longer selected.

    A scope whose listing failed, or fell short of its announced total, keeps the time of its last good listing; `since`
    is when its listings began to fail. No scope is removed because of a list of projects that fell short.
    """
    if discovery.projects is None:
        error = discovery.error or "the project list failed"
        return {scope: _failing(status, error, now) for scope, status in before.items()}
    after: dict[str, ScopeStatus | None] = dict.fromkeys(before)
    if discovery.short:
        after = {scope: _failing(status, f"projects: {discovery.short}", now) for scope, status in before.items()}
    for listing in discovery.listings:
        if listing.not_permitted:
            continue
        known = before.get(listing.scope, ScopeStatus(listing.name))
        if listing.problem is None:
            after[listing.scope] = ScopeStatus(listing.name, listed_at=now)
        else:
            after[listing.scope] = replace(_failing(known, listing.problem, now), name=listing.name)
    return after


def access_reduced(before: Mapping[str, ScopeStatus], discovery: Discovery) -> bool:
    """Whether the API key sees less than at the last listing: a project is missing from a complete list of projects, or
    the tenant scope may not be listed any more. `before` are the scopes that were listed then.
    """
    refused = {listing.scope for listing in discovery.listings if listing.not_permitted}
    if before.keys() & refused:
        return True
    if discovery.projects is None or discovery.short:
        return False
    return bool(before.keys() - {TENANT_SCOPE} - {project.uid for project in discovery.projects})


def whole(discovery: Discovery) -> bool:
    """Whether a discovery listed everything. A tenant scope that the API key may not list does not count."""
    return (
        discovery.projects is not None
        and discovery.short is None
        and all(listing.complete or listing.not_permitted for listing in discovery.listings)
    )


def _failing(status: ScopeStatus, error: str, now: datetime) -> ScopeStatus:
    return replace(status, error=error, since=status.since if status.error else now)

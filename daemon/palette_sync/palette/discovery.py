"""Discovery of one instance: check the API key, list all projects, then list the clusters of each selected project.

If one project fails, the others are still complete. A failed listing is a `Listing` with an error, never an empty
`Listing`. A 404 for a project means "unknown", not "empty". A listing that falls short of its announced total keeps its
rows.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from palette_sync.core.model import TENANT_SCOPE, VIRTUAL_CLOUD_TYPE, Discovery, Listing, Scope
from palette_sync.core.text import one_line
from palette_sync.fanout import fan_out
from palette_sync.palette.errors import (
    NotFound,
    NotPermitted,
    PaletteError,
    TenantMismatch,
    Unauthorized,
)
from palette_sync.palette.listing import Room, read_listing
from palette_sync.palette.rows import (
    ApiKeyInfo,
    UserInfo,
    read_api_key,
    read_cluster,
    read_permissions,
    read_project,
    read_user_info,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from palette_sync.core.model import Cluster, Project
    from palette_sync.fanout import Outcome
    from palette_sync.palette.client import PaletteClient
    from palette_sync.palette.listing import Found

log = structlog.get_logger(__name__)

USER_INFO = "/v1/users/info"
API_KEYS = "/v1/apiKeys"
PERMISSIONS = "/v1/permissions"
PROJECTS = "/v1/dashboard/projects"
SEARCH = "/v1/dashboard/spectroclusters/search"

# Enough to use the full documented rate if answers take half a second, and few enough that no call waits long for the
# rate limit.
LISTINGS_AT_ONCE = 16
LISTING_TIMEOUT = 300.0  # seconds
_OLDEST_FIRST = [{"field": "creationTimestamp", "order": "asc"}]


async def discover(
    client: PaletteClient,
    *,
    choose: Callable[[Project], bool],
    tenant_scope: bool,
    include_virtual: bool,
    tenant: str | None = None,
    listing_timeout: float = LISTING_TIMEOUT,
    on_error: Callable[[str, Exception], None] = lambda _scope, _error: None,
) -> Discovery:
    """Discover an instance: the key's user, all projects, and the clusters of the projects that `choose` accepts.

    `tenant` is the name of the organisation that the key must belong to (None = any). `listing_timeout` is in seconds,
    for each project. Raises PaletteError if the key could not be checked; every later failure is part of the result,
    and `on_error` receives it with its scope (`projects` for the list of projects).
    """
    user = await user_info(client)
    if tenant is not None and user.org_name.casefold() != tenant.casefold():
        organisation = client.redact(one_line(user.org_name, 64)) or "without a name"
        raise TenantMismatch(f"the API key belongs to the tenant {organisation}, not to {tenant}")
    try:
        found = await read_listing(client, PROJECTS, {"filter": {}, "sort": _OLDEST_FIRST}, read_project)
    except PaletteError as error:
        on_error("projects", error)
        return Discovery(
            user.tenant_uid,
            user.org_name,
            projects=None,
            listings=(),
            error=str(error),
        )
    walk = _Walk(
        client,
        {project.uid: project for project in found.rows},
        include_virtual=include_virtual,
        listing_timeout=listing_timeout,
        on_error=on_error,
    )
    listings = await walk.list_all([project for project in found.rows if choose(project)], tenant_scope=tenant_scope)
    return Discovery(
        user.tenant_uid,
        user.org_name,
        projects=tuple(found.rows),
        listings=listings,
        short=found.short,
    )


async def user_info(client: PaletteClient) -> UserInfo:
    """Read which user and tenant the API key belongs to. Every valid key may do that. Raises PaletteError.

    Palette has been seen to answer a wrong key with `ResourceNotFound`. Nothing else can be missing here, so that
    answer raises Unauthorized.
    """
    try:
        return read_user_info(await client.get_json(USER_INFO))
    except NotFound as error:
        if error.code == "ResourceNotFound":
            text = f"{error} (Palette may answer a wrong API key like this)"
            raise Unauthorized(text, status=error.status, code=error.code) from None
        raise


async def api_key_expiry(client: PaletteClient, name: str) -> ApiKeyInfo | None:
    """Look up the API key with that name or uid; None if Palette does not list it. Raises PaletteError.

    Palette does not report which key a request was made with, so the operator must name it. Key names are unique per
    user only: if several users have a key of that name, the key of the requesting user counts.
    """
    user = await user_info(client)
    return read_api_key(await client.get_json(API_KEYS), name, user_uid=user.user_uid)


async def permission_names(client: PaletteClient) -> frozenset[str]:
    """The permissions that exist in this version of Palette, whether the key's user has them or not.

    Raises PaletteError.
    """
    return read_permissions(await client.get_json(PERMISSIONS))


class _Walk:
    """Reads the cluster listings of one instance."""

    def __init__(
        self,
        client: PaletteClient,
        known: Mapping[str, Project],
        *,
        include_virtual: bool,
        listing_timeout: float,
        on_error: Callable[[str, Exception], None],
    ) -> None:
        self._client = client
        self._known = known
        self._include_virtual = include_virtual
        self._timeout = listing_timeout
        self._on_error = on_error
        self._body = search_body(include_virtual=include_virtual)
        self._room = Room()

    async def list_all(self, projects: list[Project], *, tenant_scope: bool) -> tuple[Listing, ...]:
        """List the projects, and the tenant scope if wanted, concurrently. Each cluster is in one listing only."""
        wanted: list[Project | None] = [*projects, *([None] if tenant_scope else [])]
        outcomes = await fan_out(
            wanted,
            self._rows,
            limit=asyncio.Semaphore(LISTINGS_AT_ONCE),
            timeout=self._timeout,
            name=f"list:{self._client.instance}",
        )
        listings = [self._project_listing(outcome) for outcome in outcomes if outcome.key is not None]
        anything_seen = len(projects) < len(self._known) or any(one.clusters or one.problem for one in listings)
        listings += [
            self._tenant_listing(outcome, expect_rows=anything_seen) for outcome in outcomes if outcome.key is None
        ]
        return _each_once(listings)

    async def _rows(self, project: Project | None) -> Found[Cluster]:
        scope = project.uid if project is not None else None
        return await read_listing(self._client, SEARCH, self._body, read_cluster, project=scope, room=self._room)

    def _project_listing(self, outcome: Outcome[Project | None, Found[Cluster]]) -> Listing:
        """A row that names no project belongs to the project whose listing holds it."""
        project = outcome.key
        assert project is not None
        if outcome.value is None:
            return Listing(project.uid, project.name, error=self._explain(outcome.error, project.uid))
        rows = self._kept(
            row if row.project is not None or row.scope is Scope.TENANT else replace(row, project=project)
            for row in outcome.value.rows
        )
        clusters = tuple(one for one in rows if one.scope is not Scope.TENANT)
        return Listing(project.uid, project.name, clusters, short=outcome.value.short)

    def _tenant_listing(self, outcome: Outcome[Project | None, Found[Cluster]], *, expect_rows: bool) -> Listing:
        """Keep the tenant-scoped rows of the answer to a request without project header.

        With tenant rights that answer also holds the rows of all projects, which their own listings cover. Without
        tenant rights it is a 403 or empty, so an empty answer while there are clusters elsewhere counts as "not
        permitted". Rows with an unknown project stay in the listing, so that a later step can report them as skipped.
        """
        if isinstance(outcome.error, NotPermitted | Unauthorized):
            return Listing(TENANT_SCOPE, TENANT_SCOPE, not_permitted=True)
        if outcome.value is None:
            return Listing(TENANT_SCOPE, TENANT_SCOPE, error=self._explain(outcome.error, TENANT_SCOPE))
        if not outcome.value.rows and expect_rows:
            return Listing(TENANT_SCOPE, TENANT_SCOPE, not_permitted=True)
        rows = self._kept(outcome.value.rows)
        return Listing(
            TENANT_SCOPE,
            TENANT_SCOPE,
            tuple(one for one in rows if one.scope is Scope.TENANT or one.project is None),
            short=outcome.value.short,
        )

    def _kept(self, rows: Iterable[Cluster]) -> list[Cluster]:
        """Take each row's project from the project list; None (filters fail closed) if the list lacks it."""
        return [self._resolved(row) for row in rows if self._include_virtual or not row.virtual]

    def _resolved(self, row: Cluster) -> Cluster:
        if row.project is None:
            return row
        known = self._known.get(row.project.uid)
        return row if row.project == known else replace(row, project=known)

    def _explain(self, error: Exception | None, scope: str) -> str:
        if error is not None:
            self._on_error(scope, error)
        if isinstance(error, PaletteError):
            return str(error)
        if isinstance(error, TimeoutError):
            return f"not listed within {self._timeout:g} s"
        log.error("unexpected_error", instance=self._client.instance, scope=scope, exc_info=error)
        return f"unexpected {type(error).__name__}; the log has the traceback"


def search_body(*, include_virtual: bool, sort: object = _OLDEST_FIRST) -> object:
    """Build the filter of Palette's own client: not deleted, and nested (virtual) clusters only if included."""
    filters: list[object] = [{"property": "isDeleted", "type": "bool", "condition": {"bool": {"value": False}}}]
    if not include_virtual:
        nested = {
            "operator": "eq",
            "negation": True,
            "ignoreCase": True,
            "match": {"conjunction": "or", "values": [VIRTUAL_CLOUD_TYPE]},
        }
        filters.insert(0, {"property": "environment", "type": "string", "condition": {"string": nested}})
    group = {"conjunction": "and", "filters": filters}
    return {"filter": {"conjunction": "and", "filterGroups": [group]}, "sort": sort}


def _each_once(listings: list[Listing]) -> tuple[Listing, ...]:
    """Keep every cluster in one listing only: that of the project it names, else the first listing that holds it.

    A tenant-scoped cluster appears only in the tenant's listing.
    """
    home: dict[str, str] = {}
    for listing in listings:
        for cluster in listing.clusters:
            own = cluster.project.uid if cluster.project is not None else None
            if cluster.uid not in home or listing.scope == own:
                home[cluster.uid] = listing.scope
    return tuple(
        replace(listing, clusters=tuple(one for one in listing.clusters if home[one.uid] == listing.scope))
        for listing in listings
    )

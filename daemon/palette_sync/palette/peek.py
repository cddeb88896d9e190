"""A peek: what changed in Palette since the last look, newest first, for the price of one request.

Between two full listings a peek asks for the clusters sorted by their last change, and stops at the first row that is
already known in that state. It finds new clusters and changed ones. It cannot see what vanished, so nothing is ever
dropped because of it, and where Palette's order is wrong, only the full listing counts.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from palette_sync.core.model import TENANT_SCOPE, Discovery, Listing, Scope
from palette_sync.palette.discovery import SEARCH, search_body
from palette_sync.palette.errors import NotPermitted, PaletteError, Unauthorized
from palette_sync.palette.listing import fetch_page
from palette_sync.palette.rows import read_cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from palette_sync.core.model import Cluster, Project
    from palette_sync.palette.client import PaletteClient

NEWEST_FIRST = [{"field": "lastModifiedTimestamp", "order": "desc"}]
MOST_PAGES = 4  # of one look; the full listing finds what lies behind them
MOST_OTHERS = 50_000  # rows of projects that are not served are forgotten beyond this number


@dataclass
class Peek:
    """Remembers the rows of one instance from look to look.

    With tenant-wide rights one request sees all projects. Otherwise each look asks for one project, in turns.
    """

    _discovery: Discovery | None = None
    _served: dict[str, Cluster] = field(default_factory=dict)
    _others: dict[str, Cluster] = field(default_factory=dict)
    _tenant_wide: bool = True
    _turn: int = 0

    def learn(self, discovery: Discovery) -> None:
        """Remember the rows of a full listing, or of a look whose rows were worked on."""
        rows = {one.uid: _bare(one) for listing in discovery.listings for one in listing.clusters}
        if discovery.projects is None:
            self._served.update(rows)
        else:
            self._discovery, self._served = discovery, rows

    async def look(
        self,
        client: PaletteClient,
        *,
        choose: Callable[[Project], bool],
        tenant_scope: bool,
        include_virtual: bool,
    ) -> Discovery | None:
        """Return the new and changed rows as a discovery of incomplete listings; None if there are none.

        The arguments are those of `discover`. Without a full listing before, or if Palette does not answer, there is
        nothing to return: the next full listing reports what is wrong. Pass what was returned to `learn` once it has
        been worked on.
        """
        if self._discovery is None:
            return None
        projects = {project.uid: project for project in self._discovery.projects or ()}
        chosen = sorted(uid for uid, project in projects.items() if choose(project))
        try:
            rows = await self._newest(client, chosen, include_virtual=include_virtual)
        except PaletteError:
            return None
        wanted: dict[str, list[Cluster]] = {}
        for row in rows:
            project = projects.get(row.project.uid) if row.project is not None else None
            serves = tenant_scope if row.scope is Scope.TENANT else project is not None and choose(project)
            if row.gone or not serves or (row.virtual and not include_virtual):
                self._remember_other(row)
            else:
                scope = project.uid if project is not None else TENANT_SCOPE
                wanted.setdefault(scope, []).append(replace(row, project=project))
        names = {uid: project.name for uid, project in projects.items()}
        # Neither complete nor failed: these listings add and refresh, and say nothing about other clusters.
        listings = tuple(
            Listing(scope, names.get(scope, TENANT_SCOPE), tuple(found), short="") for scope, found in wanted.items()
        )
        known = self._discovery
        return Discovery(known.tenant_uid, known.org_name, projects=None, listings=listings) if listings else None

    async def _newest(self, client: PaletteClient, chosen: list[str], *, include_virtual: bool) -> list[Cluster]:
        body = search_body(include_virtual=include_virtual, sort=NEWEST_FIRST)
        if self._tenant_wide:
            try:
                rows, first_page = await self._until_known(client, body, project=None)
            except (NotPermitted, Unauthorized):
                first_page = 0
            if first_page or not self._served:
                return rows if first_page else []
            self._tenant_wide = False  # a key with project roles only sees nothing without a project
        if not chosen:
            return []
        self._turn += 1
        project = chosen[self._turn % len(chosen)]
        rows, _ = await self._until_known(client, body, project=project)
        return rows

    async def _until_known(
        self, client: PaletteClient, body: object, *, project: str | None
    ) -> tuple[list[Cluster], int]:
        """Return the rows before the first one that is known, and how many rows the first page had."""
        rows: list[Cluster] = []
        token, first_page = "", 0
        for number in range(MOST_PAGES):
            page, found = await fetch_page(client, SEARCH, body, read_cluster, token=token, project=project)
            if number == 0:
                first_page = len(found)
            fresh = list(self._fresh(found))
            rows += fresh
            token = page.following
            if len(fresh) < len(found) or not token:
                break
        return rows, first_page

    def _fresh(self, rows: Iterable[Cluster]) -> Iterable[Cluster]:
        for row in rows:
            if _bare(row) in (self._served.get(row.uid), self._others.get(row.uid)):
                return
            yield row

    def _remember_other(self, row: Cluster) -> None:
        if len(self._others) >= MOST_OTHERS:
            self._others.clear()
        self._others[row.uid] = _bare(row)


def _bare(row: Cluster) -> Cluster:
    """A row without its project, whose name a listing takes from elsewhere."""
    return replace(row, project=None)

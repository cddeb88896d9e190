"""Serves the page, and what its buttons ask for."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

from aiohttp import web

from palette_sync.page.cluster import find, view
from palette_sync.page.guard import Guard, Holder
from palette_sync.page.overview import Analysis, analyse
from palette_sync.page.query import Query
from palette_sync.page.render import assets, render_cluster, render_message, render_overview
from palette_sync.page.responses import html, kept, see_other

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from palette_sync.core.history import FormerVersion, VersionChange
    from palette_sync.core.model import InstanceState
    from palette_sync.core.objects import Desired

KEPT = 2.0  # seconds for which an analysis is used again
LEADING = "leading"  # the state of an instance that this process leads (`runner.status.RunnerState`)


class Source(Holder, Protocol):
    """Where the page finds what it shows, and who does what it asks for."""

    def document(self) -> Mapping[str, Any]:
        """The status document, without its problems."""
        ...

    async def states(self) -> Mapping[str, InstanceState]:
        """The snapshots by instance: of this process, or of Redis where another process leads."""
        ...

    def desired(self, instance: str) -> Desired | None:
        """What the configuration wants in the clusters of an instance; None if it is not configured."""
        ...

    async def history(
        self, instance: str, version: int
    ) -> tuple[Sequence[FormerVersion], Sequence[VersionChange]] | None:
        """The versions up to `version` that are known, as many as a page shows; None if they cannot be read."""
        ...

    def resync(self, instance: str, *, allow_prune: bool) -> bool:
        """Ask for a resync. Returns False if this process does not lead the instance."""
        ...

    def ask_cluster(self, instance: str, uid: str, *, rotate: bool) -> str:
        """Ask for a look at one cluster, or for a new token of it. Returns why that is not done, or ""."""
        ...


def routes(source: Source) -> list[web.RouteDef]:
    guard = Guard(source)
    page = _Page(source, guard)
    return [
        web.get("/", guard.reading(page.overview)),
        web.get("/clusters/{instance}/{uid}", guard.reading(page.cluster)),
        web.post("/instances/{instance}/resync", guard.acting(page.resync)),
        web.post("/clusters/{instance}/{uid}/{action:resync|rotate}", guard.acting(page.act)),
        web.post("/login", guard.login),
        web.post("/logout", guard.acting(guard.logout)),
        web.get("/static/{name}", page.static),
    ]


class _Page:
    def __init__(self, source: Source, guard: Guard) -> None:
        self._source = source
        self._guard = guard
        self._kept: tuple[datetime, Mapping[str, InstanceState], Analysis] | None = None

    async def overview(self, request: web.Request) -> web.Response:
        source = self._source
        states, now, document = await source.states(), source.now(), source.document()
        last = self._kept
        if last is None or (now - last[0]).total_seconds() > KEPT or not _same(last[1], states):
            last = self._kept = (now, states, analyse(document, states, now=now))
        text = render_overview(
            last[2],
            Query.of(request.query),
            now=now,
            state=str(document.get("state", "")),
            form_key=self._guard.form_key(request),
        )
        return html(text)

    async def cluster(self, request: web.Request) -> web.Response:
        source, instance, uid = self._source, request.match_info["instance"], request.match_info["uid"]
        state, now = (await source.states()).get(instance), source.now()
        row = find(state, uid, now=now) if state is not None else None
        if state is None or row is None:
            text = "No published cluster has this instance and uid. palette-sync history finds removed clusters."
            return html(render_message("Unknown cluster", text, now=now), status=HTTPStatus.NOT_FOUND)
        history = await source.history(instance, state.head.version if state.head else 0)
        remark = "Redis does not answer, so the history is unknown." if history is None else ""
        found = view(row, state, history or ((), ()), source.desired(instance))
        leads = source.document().get("instances", {}).get(instance, {}).get("state") == LEADING
        form_key = self._guard.form_key(request)
        return html(render_cluster(found, now=now, remark=remark, form_key=form_key, acts=bool(form_key) and leads))

    async def resync(self, request: web.Request, form: Mapping[str, str]) -> web.Response:
        instance = request.match_info["instance"]
        if self._source.resync(instance, allow_prune=form.get("allow_prune") == "yes"):
            return see_other("/#instances-heading")
        text = (
            "This process does not lead an instance of that name. Use the page of the process that leads it, or run "
            "palette-sync resync."
        )
        return html(render_message("Not done", text, now=self._source.now()), status=HTTPStatus.CONFLICT)

    async def act(self, request: web.Request, _form: Mapping[str, str]) -> web.Response:
        instance, uid = request.match_info["instance"], request.match_info["uid"]
        why_not = self._source.ask_cluster(instance, uid, rotate=request.match_info["action"] == "rotate")
        if not why_not:
            return see_other(f"/clusters/{quote(instance, safe='')}/{quote(uid, safe='')}")
        return html(render_message("Not done", why_not, now=self._source.now()), status=HTTPStatus.CONFLICT)

    async def static(self, request: web.Request) -> web.Response:
        asset = next((one for one in assets().values() if one.name == request.match_info["name"]), None)
        if asset is None:
            raise web.HTTPNotFound
        return kept(asset.body, asset.content_type)


def _same(one: Mapping[str, object], other: Mapping[str, object]) -> bool:
    return one.keys() == other.keys() and all(one[name] is other[name] for name in one)

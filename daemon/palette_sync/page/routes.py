"""Serves the page, and what its buttons ask for."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

from aiohttp import web

from palette_sync.page.cluster import find, view
from palette_sync.page.guard import Guard, Holder
from palette_sync.page.overview import Analysis, analyse
from palette_sync.page.query import Query
from palette_sync.page.render import (
    assets,
    render_cluster,
    render_configuration,
    render_message,
    render_overview,
    render_timeline,
)
from palette_sync.page.responses import html, kept, see_other
from palette_sync.page.timeline import latest_changes, timeline

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from palette_sync.core.activity import Slot
    from palette_sync.core.history import FormerVersion, VersionChange
    from palette_sync.core.model import InstanceState
    from palette_sync.core.objects import Desired
    from palette_sync.page.configuration import Configuration

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

    def activity(self) -> Mapping[str, Mapping[datetime, Slot]]:
        """What was done in the last 24 hours, by instance and by when a slot begins; as of the last `states`."""
        ...

    async def configuration(self) -> Configuration:
        """The configuration in force, without secrets."""
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
        web.get("/timeline", guard.reading(page.timeline)),
        web.get("/timeline/{instance}", guard.reading(page.timeline)),
        web.get("/configuration", guard.reading(page.configuration)),
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
        self._analysing = asyncio.Lock()

    async def overview(self, request: web.Request) -> web.Response:
        source, query, form_key = self._source, Query.of(request.query), self._guard.form_key(request)
        states, now, document = await source.states(), source.now(), source.document()
        days = {name: timeline(slots, now=now) for name, slots in source.activity().items()}
        analysis, state = await self._analysis(document, states, now), str(document.get("state", ""))

        def rendered() -> str:
            return render_overview(analysis, query, now=now, state=state, days=days, form_key=form_key)

        return html(await asyncio.to_thread(rendered))

    async def _analysis(
        self, document: Mapping[str, Any], states: Mapping[str, InstanceState], now: datetime
    ) -> Analysis:
        """With thousands of clusters this takes a while, so it is done once for requests in a row, and in a thread."""
        async with self._analysing:
            last = self._kept
            if last is None or (now - last[0]).total_seconds() > KEPT or not _same(last[1], states):
                last = self._kept = (now, states, await asyncio.to_thread(analyse, document, states, now=now))
        return last[2]

    async def timeline(self, request: web.Request) -> web.Response:
        source, wanted = self._source, request.match_info.get("instance", "")
        states, now, activity = await source.states(), source.now(), source.activity()
        if wanted and wanted not in activity:
            return html(
                render_message("Unknown instance", "No instance of that name is configured.", now=now),
                status=HTTPStatus.NOT_FOUND,
            )
        days = {name: timeline(slots, now=now) for name, slots in sorted(activity.items())}
        one = wanted or (next(iter(days)) if len(days) == 1 else "")
        state = states.get(one)
        history = (
            await source.history(one, state.head.version) if state is not None and state.head is not None else None
        )
        changes = latest_changes(state, *history) if state is not None and history is not None else None
        return html(render_timeline(days, one, changes, now=now, form_key=self._guard.form_key(request)))

    async def configuration(self, request: web.Request) -> web.Response:
        found, form_key = await self._source.configuration(), self._guard.form_key(request)
        return html(render_configuration(found, now=self._source.now(), form_key=form_key))

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

"""Serves the page. Nothing of it is cached but its files, and it runs no script and loads no style of others.

Who connects from another machine gets no page: reading needs no login, so it is for this machine alone.
"""

from __future__ import annotations

from http import HTTPStatus
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Protocol

from aiohttp import web

from palette_sync.page.cluster import find, view
from palette_sync.page.overview import Analysis, analyse
from palette_sync.page.query import Query
from palette_sync.page.render import assets, render_cluster, render_message, render_overview

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from datetime import datetime

    from palette_sync.core.history import FormerVersion, VersionChange
    from palette_sync.core.model import InstanceState
    from palette_sync.core.objects import Desired

KEPT = 2.0  # seconds for which an analysis is used again
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
ELSEWHERE = (
    "The page is shown to this machine only, because it needs no login. Forward the port and open it through "
    "localhost, for example: ssh -L 9464:127.0.0.1:9464 HOST, or kubectl port-forward POD 9464. The command "
    "palette-sync status shows the problems from anywhere."
)


class Source(Protocol):
    """Where the page finds what it shows."""

    def now(self) -> datetime: ...

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


def routes(source: Source) -> list[web.RouteDef]:
    page = _Page(source)
    return [
        web.get("/", _for_this_machine(page.overview, source)),
        web.get("/clusters/{instance}/{uid}", _for_this_machine(page.cluster, source)),
        web.get("/static/{name}", page.static),
    ]


class _Page:
    def __init__(self, source: Source) -> None:
        self._source = source
        self._kept: tuple[datetime, Mapping[str, InstanceState], Analysis] | None = None

    async def overview(self, request: web.Request) -> web.Response:
        source = self._source
        states, now, document = await source.states(), source.now(), source.document()
        kept = self._kept
        if kept is None or (now - kept[0]).total_seconds() > KEPT or not _same(kept[1], states):
            kept = self._kept = (now, states, analyse(document, states, now=now))
        query = Query.of(request.query)
        return _html(render_overview(kept[2], query, now=now, state=str(document.get("state", ""))))

    async def cluster(self, request: web.Request) -> web.Response:
        source, instance, uid = self._source, request.match_info["instance"], request.match_info["uid"]
        state, now = (await source.states()).get(instance), source.now()
        row = find(state, uid, now=now) if state is not None else None
        if state is None or row is None:
            text = (
                "No published cluster has this instance and uid. palette-sync history finds clusters that were removed."
            )
            return _html(render_message("Unknown cluster", text, now=now), status=HTTPStatus.NOT_FOUND)
        history = await source.history(instance, state.head.version if state.head else 0)
        remark = "Redis does not answer, so the history is unknown." if history is None else ""
        found = view(row, state, history or ((), ()), source.desired(instance))
        return _html(render_cluster(found, now=now, remark=remark))

    async def static(self, request: web.Request) -> web.Response:
        asset = next((one for one in assets().values() if one.name == request.match_info["name"]), None)
        if asset is None:
            raise web.HTTPNotFound
        headers = {**HEADERS, "Cache-Control": "public, max-age=31536000, immutable"}
        return web.Response(body=asset.body, content_type=asset.content_type, charset="utf-8", headers=headers)


def _for_this_machine(
    handler: Callable[[web.Request], Awaitable[web.Response]], source: Source
) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def checked(request: web.Request) -> web.Response:
        if not from_this_machine(request.remote):
            text = render_message("Not from here", ELSEWHERE, now=source.now())
            return _html(text, status=HTTPStatus.FORBIDDEN)
        return await handler(request)

    return checked


def from_this_machine(peer: str | None) -> bool:
    """Whether the address of a client is one of loopback."""
    try:
        address = ip_address((peer or "").partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def _same(one: Mapping[str, object], other: Mapping[str, object]) -> bool:
    return one.keys() == other.keys() and all(one[name] is other[name] for name in one)


def _html(text: str, *, status: HTTPStatus = HTTPStatus.OK) -> web.Response:
    headers = {**HEADERS, "Cache-Control": "no-store"}
    return web.Response(text=text, status=status, content_type="text/html", charset="utf-8", headers=headers)

"""Who may see the page. Without a token: this machine, read-only. With one: everybody who sends it or logs in."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import ip_address
from typing import TYPE_CHECKING, Protocol

from palette_sync.page.login import (
    COOKIE,
    LIFE,
    bearer_matches,
    form_is_own,
    form_key,
    session_is_valid,
    session_of,
    token_matches,
)
from palette_sync.page.render import render_login, render_message
from palette_sync.page.responses import html, see_other

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from datetime import datetime

    from aiohttp import web

    from palette_sync.core.model import Secret

    Handler = Callable[[web.Request], Awaitable[web.Response]]

_FORWARDED = ("Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP")
_LOOPBACK = re.compile(r"(localhost|127(\.[0-9]{1,3}){3}|\[::1\])(:[0-9]{1,5})?")
PATIENCE = 5.0  # seconds for the body of a form
FORM = "application/x-www-form-urlencoded"
ELSEWHERE = (
    "The page is shown to this machine only, because it needs no login. Forward the port and open it through "
    "localhost, for example: ssh -L 9464:127.0.0.1:9464 HOST, or kubectl port-forward POD 9464. Or set [http] "
    "token_file, so that the page asks for a token. The command palette-sync status shows the problems from anywhere."
)


class Holder(Protocol):
    """Where the token stands; a reload may replace it."""

    @property
    def token(self) -> Secret | None: ...

    def now(self) -> datetime: ...


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who asks. `may_act`: he has the token. `session`: the cookie that proves it, "" for a bearer."""

    may_act: bool = False
    session: str = ""


class Guard:
    def __init__(self, holder: Holder) -> None:
        self._holder = holder

    def visitor(self, request: web.Request) -> Visitor | None:
        """None if he may see nothing."""
        token = self._holder.token
        if token is None:
            return Visitor() if _is_direct(request) else None
        if bearer_matches(token, request.headers.get("Authorization")):
            return Visitor(may_act=True)
        session = request.cookies.get(COOKIE, "")
        return (
            Visitor(may_act=True, session=session) if session_is_valid(token, session, now=self._holder.now()) else None
        )

    def form_key(self, request: web.Request) -> str:
        """What the forms of a page carry; "" for who gets none."""
        token, visitor = self._holder.token, self.visitor(request)
        return form_key(token, visitor.session) if token and visitor and visitor.session else ""

    def reading(self, handler: Handler) -> Handler:
        """The handler for those who may see the page."""

        async def checked(request: web.Request) -> web.Response:
            return self._refusal() if self.visitor(request) is None else await handler(request)

        return checked

    def acting(self, handler: Callable[[web.Request, Mapping[str, str]], Awaitable[web.Response]]) -> Handler:
        """The handler, which gets the members of the form, for those who have the token and use a form of the page."""

        async def checked(request: web.Request) -> web.Response:
            token, visitor = self._holder.token, self.visitor(request)
            if token is None or visitor is None:
                return self._refusal()
            form = await form_of(request)
            if visitor.session and not form_is_own(token, visitor.session, form.get("key", "")):
                text = "The form is not of this session. Open the page again."
                return html(render_message("Refused", text, now=self._holder.now()), status=HTTPStatus.FORBIDDEN)
            return await handler(request, form)

        return checked

    async def login(self, request: web.Request) -> web.Response:
        token, now = self._holder.token, self._holder.now()
        if token is None:
            return self._refusal()
        if not token_matches(token, (await form_of(request)).get("token", "").strip()):
            return html(render_login(now=now, wrong=True), status=HTTPStatus.UNAUTHORIZED)
        response = see_other("/")
        response.set_cookie(
            COOKIE,
            session_of(token, now=now),
            max_age=int(LIFE.total_seconds()),
            path="/",
            httponly=True,
            samesite="Lax",
            secure=request.headers.get("X-Forwarded-Proto") == "https",
        )
        return response

    async def logout(self, _request: web.Request, _form: Mapping[str, str]) -> web.Response:
        response = see_other("/")
        response.del_cookie(COOKIE, path="/")
        return response

    def _refusal(self) -> web.Response:
        now = self._holder.now()
        if self._holder.token is None:
            return html(render_message("Not from here", ELSEWHERE, now=now), status=HTTPStatus.FORBIDDEN)
        return html(render_login(now=now), status=HTTPStatus.UNAUTHORIZED)


def _is_direct(request: web.Request) -> bool:
    """Whether the request comes from this machine, and not through a proxy on it."""
    host = request.headers.get("Host", "localhost").strip().lower()
    forwarded = any(name in request.headers for name in _FORWARDED)
    return from_this_machine(request.remote) and not forwarded and _LOOPBACK.fullmatch(host) is not None


async def form_of(request: web.Request) -> dict[str, str]:
    """The members of a form; empty for a body of another kind."""
    if request.content_type != FORM:
        return {}
    try:
        async with asyncio.timeout(PATIENCE):
            return {name: value for name, value in (await request.post()).items() if isinstance(value, str)}
    except (TimeoutError, ValueError):
        return {}


def from_this_machine(peer: str | None) -> bool:
    """Whether the address of a client is one of loopback."""
    try:
        address = ip_address((peer or "").partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)

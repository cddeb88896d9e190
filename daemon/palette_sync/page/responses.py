"""Responses of the page. Nothing is cached but its files, and a browser runs no script and loads no style of others."""

from __future__ import annotations

from http import HTTPStatus

from aiohttp import web

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


def html(text: str, *, status: HTTPStatus = HTTPStatus.OK) -> web.Response:
    headers = {**HEADERS, "Cache-Control": "no-store"}
    return web.Response(text=text, status=status, content_type="text/html", charset="utf-8", headers=headers)


def see_other(path: str) -> web.Response:
    """Lead a browser from a form to a page."""
    return web.Response(status=HTTPStatus.SEE_OTHER, headers={**HEADERS, "Location": path, "Cache-Control": "no-store"})


def kept(body: bytes, content_type: str) -> web.Response:
    """A file whose name changes with its content."""
    headers = {**HEADERS, "Cache-Control": "public, max-age=31536000, immutable"}
    return web.Response(body=body, content_type=content_type, charset="utf-8", headers=headers)

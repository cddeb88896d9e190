"""The network side of the simulator: one HTTP server object behind any number of TLS listeners.

A listener belongs to a `Site` (a Palette instance or a cluster's API server). The frontend finds the site by the local
port, applies faults and latency, logs the request, and sends the site's answer.
"""

from __future__ import annotations

import asyncio
import socket
import time
from typing import TYPE_CHECKING, Protocol

from aiohttp import web

from palette_sync.simulator.certificates import LazyContext
from palette_sync.simulator.exchange import Answer, Call
from palette_sync.simulator.faults import FaultBook, Origin
from palette_sync.simulator.request_log import LoggedRequest, RequestLog

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from palette_sync.simulator.faults import Fault, Target
    from palette_sync.simulator.request_log import CredentialKind

_BACKLOG = 128
_KEEP_ALIVE = 75.0
_PIECES = 50
_GARBAGE = b"\x00\xff<html>{{:::\x1f garbage ]]" * 8


class Site(Protocol):
    """The server behind a listener."""

    @property
    def instance_name(self) -> str: ...

    @property
    def cluster_uid(self) -> str | None: ...

    def target_of(self, path: str) -> Target: ...

    def credential_of(self, call: Call) -> CredentialKind: ...

    def answer(self, call: Call) -> Answer: ...


class Listener:
    """An open port. `close` frees it immediately; open connections are dropped at their next request."""

    def __init__(self, host: str, port: int, close: Callable[[], None]) -> None:
        self.host = host
        self.port = port
        self.closed = False
        self._close = close

    def close(self) -> None:
        self.closed = True
        self._close()

    @property
    def url(self) -> str:
        return f"https://{self.host}:{self.port}"


class Frontend:
    """Serves all sites of one simulator. Create and use it inside one running event loop.

    `listen` is the IPv4 address to bind, and `host` the name or address in URLs.
    """

    def __init__(self, faults: FaultBook, log: RequestLog, latency: float, *, listen: str, host: str) -> None:
        self.latency = latency
        self._listen = listen
        self._host = host
        self._faults = faults
        self._log = log
        self._sites: dict[int, Site] = {}
        self._servers: dict[int, asyncio.Server] = {}
        self._stopping = asyncio.Event()
        self._http = web.Server(
            self._handle, handler_cancellation=True, access_log=None, keepalive_timeout=_KEEP_ALIVE, lingering_time=0.0
        )

    async def open(self, site: Site, find_context: Callable[[], ssl.SSLContext], *, port: int = 0) -> Listener:
        """Listen for `site` on a port, by default on a free one. `find_context` is called for every connection."""
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((self._listen, port))
            server = await asyncio.get_running_loop().create_server(
                self._http, sock=sock, ssl=LazyContext(find_context).as_context(), backlog=_BACKLOG
            )
        except BaseException:
            sock.close()
            raise
        port = int(sock.getsockname()[1])
        self._sites[port] = site
        self._servers[port] = server
        return Listener(self._host, port, lambda: self._shut(port))

    def _shut(self, port: int) -> None:
        self._sites.pop(port, None)
        server = self._servers.pop(port, None)
        if server is not None:
            server.close()

    async def close(self) -> None:
        """Close all ports and connections, including hanging requests."""
        self._stopping.set()
        for port in list(self._servers):
            self._shut(port)
        connections = self._http.connections
        await self._http.shutdown(timeout=0.05)
        for connection in connections:
            if connection.transport is not None:
                connection.transport.abort()
        await asyncio.sleep(0)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        transport = request.transport
        site = self._sites.get(transport.get_extra_info("sockname")[1]) if transport is not None else None
        if site is None or transport is None:
            return _cut(request)
        arrived = time.time()
        call = await _read(request, transport)
        target = site.target_of(call.path)
        project_uid = call.headers.get("ProjectUid")
        origin = Origin(target, site.instance_name, site.cluster_uid, call.method, call.path, project_uid)
        extra, fault = self._faults.meet(origin)
        if self.latency + extra > 0:
            await asyncio.sleep(self.latency + extra)
        answer = _injected_answer(fault) if fault is not None else None
        if answer is None and (fault is None or fault.kind not in {"hang", "drop"}):
            answer = site.answer(call)
        sent = answer if fault is None or fault.kind != "lost-answer" else None
        self._note(origin, call, site.credential_of(call), sent.status if sent is not None else None, arrived)
        if sent is None:
            if fault is not None and fault.kind == "hang":
                await self._stopping.wait()
            return _cut(request)
        if fault is not None and fault.kind == "slow-body":
            return await _dribble(request, sent, fault.seconds)
        if fault is not None and fault.kind == "truncate":
            return await _truncate(request, sent)
        return web.Response(status=sent.status, body=sent.body, headers=_headers(sent))

    def _note(self, origin: Origin, call: Call, credential: CredentialKind, status: int | None, arrived: float) -> None:
        self._log.add(
            LoggedRequest(
                time=arrived,
                target=origin.target,
                instance=origin.instance,
                cluster=origin.cluster,
                method=origin.method,
                path=origin.path,
                query="&".join(f"{name}={value}" for name, value in call.query.items()),
                status=status,
                project_uid=origin.project_uid,
                credential=credential,
                user_agent=call.headers.get("User-Agent", ""),
            )
        )


async def _read(request: web.BaseRequest, transport: asyncio.Transport) -> Call:
    return Call(
        method=request.method,
        path=request.path,
        query=request.query,
        headers=request.headers,
        body=await request.read() if request.can_read_body else b"",
        client_subject=_subject(transport),
    )


def _subject(transport: asyncio.Transport) -> tuple[str, tuple[str, ...]] | None:
    certificate = transport.get_extra_info("peercert")
    if not certificate:
        return None
    pairs = [pair for part in certificate.get("subject", ()) for pair in part]
    name = next((value for key, value in pairs if key == "commonName"), "")
    return name, tuple(value for key, value in pairs if key == "organizationName")


def _injected_answer(fault: Fault) -> Answer | None:
    """Return the answer of a fault that replaces the site's answer, or None."""
    if fault.kind == "status":
        body = fault.body if fault.body is not None else f"fault injected: {fault.status}\n"
        return Answer(fault.status, body.encode(), "text/plain; charset=utf-8", fault.headers)
    if fault.kind == "garbage":
        return Answer(200, _GARBAGE, headers=fault.headers)
    if fault.kind == "redirect":
        return Answer(307, headers={**fault.headers, "Location": fault.location})
    return None


def _headers(answer: Answer) -> dict[str, str]:
    return {"Content-Type": answer.content_type, **answer.headers}


def _cut(request: web.BaseRequest) -> web.StreamResponse:
    """Close the connection without an answer. The returned response is never sent."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=499)


async def _dribble(request: web.BaseRequest, answer: Answer, pause: float) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, headers=_headers(answer))
    response.content_length = len(answer.body)
    await response.prepare(request)
    size = max(1, len(answer.body) // _PIECES)
    for start in range(0, len(answer.body), size):
        await asyncio.sleep(pause)
        await response.write(answer.body[start : start + size])
    return response


async def _truncate(request: web.BaseRequest, answer: Answer) -> web.StreamResponse:
    body = answer.body or b"0123456789"
    response = web.StreamResponse(status=answer.status, headers=_headers(answer))
    response.content_length = len(body)
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    if request.transport is not None:
        request.transport.close()
    return response

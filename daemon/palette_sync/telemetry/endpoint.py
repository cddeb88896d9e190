"""Health and metrics over HTTP: `/livez`, `/readyz`, `/metrics`, `/status.json`. Read-only and free of secrets.

What else the port serves, such as the page at `/`, comes from outside (`routes`).

A request must name a host by which the endpoint can be meant. Otherwise a web page in an operator's browser could read
the endpoint on loopback, through a name of its own that resolves to 127.0.0.1 (DNS rebinding).
"""

from __future__ import annotations

import asyncio
import errno
from collections import deque
from fnmatch import fnmatchcase
from http import HTTPStatus
from ipaddress import ip_address
from typing import TYPE_CHECKING, Protocol, Self

import orjson
from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
    from types import TracebackType

# Clients of the endpoint must not use up the file descriptors that the daemon's own connections need. The oldest
# connection is closed for a new one, so that a client that holds connections open cannot keep probes out.
MAX_CONNECTIONS = 64
MISDIRECTED = "the Host header names another host; if it is right, add it to [http] hosts\n"
INDEX = "palette-sync: /livez /readyz /metrics /status.json\n"


class Probes(Protocol):
    """What the endpoint shows. A problem is one line for people; an empty list means all is well."""

    def not_live(self) -> list[str]: ...

    def not_ready(self) -> list[str]: ...

    def status(self) -> Mapping[str, object]: ...

    def metrics(self) -> tuple[bytes, str]:
        """A body and its content type."""
        ...


class EndpointError(Exception):
    """The endpoint cannot listen. The text says where, and what to do."""


class Endpoint:
    """Listens at `host:port` (`[host]:port` for IPv6) while its context is open. Port 0 takes a free one, see `url`.

    `hosts` are globs of names that the Host header may have besides addresses and names without a dot.
    `routes` are served beside those of this module; without any, `/` lists the paths.
    """

    def __init__(
        self, listen: str, probes: Probes, *, hosts: Collection[str] = (), routes: Sequence[web.RouteDef] = ()
    ) -> None:
        host, _, port = listen.rpartition(":")
        self.url = ""
        self._listen = listen
        self._host, self._port = host.strip("[]"), int(port)
        self._probes = probes
        self._hosts = hosts
        self._routes = [*routes] or [web.get("/", self._index)]
        self._runner: web.AppRunner | None = None
        self._listener: asyncio.Server | None = None
        self._connections: deque[web.RequestHandler] = deque()

    async def __aenter__(self) -> Self:
        """Raises EndpointError."""
        app = web.Application(middlewares=[self._check_host])
        app.add_routes(
            [
                *self._routes,
                web.get("/livez", self._livez),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._metrics),
                web.get("/status.json", self._status),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await self._runner.setup()
        try:
            loop = asyncio.get_running_loop()
            # asyncio accepts a whole backlog in one turn. It is shorter than MAX_CONNECTIONS, so that a connection
            # that is closed for a new one has been started before.
            self._listener = await loop.create_server(
                self._connection, self._host, self._port, backlog=MAX_CONNECTIONS // 4
            )
        except (OSError, OverflowError) as error:
            await self._runner.cleanup()
            where = f"http.listen: cannot listen at {self._listen}"
            raise EndpointError(f'{where}: {_reason(error)}; choose another address, or "" for none') from None
        host, port = self._listener.sockets[0].getsockname()[:2]
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._runner is not None
        assert self._listener is not None
        self._listener.close()
        await self._runner.cleanup()

    def _connection(self) -> web.RequestHandler:
        """The handler of one more connection."""
        assert self._runner is not None
        assert self._runner.server is not None
        if len(self._connections) >= MAX_CONNECTIONS:
            self._connections.popleft().force_close()
        connection = self._runner.server()
        self._connections.append(connection)
        return connection

    @web.middleware
    async def _check_host(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if not host_is_meant(request.headers.get("Host"), self._hosts):
            return web.Response(status=HTTPStatus.MISDIRECTED_REQUEST, text=MISDIRECTED)
        return await handler(request)

    async def _index(self, _: web.Request) -> web.Response:
        return web.Response(text=INDEX)

    async def _livez(self, _: web.Request) -> web.Response:
        return _verdict(self._probes.not_live())

    async def _readyz(self, _: web.Request) -> web.Response:
        return _verdict(self._probes.not_ready())

    async def _metrics(self, _: web.Request) -> web.Response:
        body, content_type = self._probes.metrics()
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _status(self, _: web.Request) -> web.Response:
        return web.Response(body=orjson.dumps(self._probes.status()), content_type="application/json")


def host_is_meant(header: str | None, hosts: Collection[str]) -> bool:
    """Whether a request with this Host header may be meant for the endpoint.

    No web page can make a browser send an address or a name without a dot that is not its own. A browser always sends
    the header.
    """
    if header is None:
        return True
    name = header.strip().lower()
    if name.startswith("["):
        name = name[1:].partition("]")[0]
    elif name.count(":") <= 1:
        name = name.partition(":")[0]
    try:
        ip_address(name)
    except ValueError:
        return bool(name) and ("." not in name or any(fnmatchcase(name, one.lower()) for one in hosts))
    return True


def _reason(error: OSError | OverflowError) -> str:
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        return "it is in use (by another palette-sync?)"
    return (getattr(error, "strerror", None) or str(error))[:200]


def _verdict(problems: list[str]) -> web.Response:
    if not problems:
        return web.Response(text="ok\n")
    return web.Response(status=503, text="".join(f"{problem}\n" for problem in problems))

"""HTTP sessions and requests, for all clients of the daemon.

Every session has timeouts, follows no redirects, keeps no cookies and reads nothing from the environment (no `.netrc`,
no proxy variables). Every body has a size limit. Network failures become `TransportError`, whose text names the host
and the cause, but never a query, a header or a body.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import TYPE_CHECKING

import aiohttp
from yarl import URL

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

CHUNK = 64 * 1024
# Is called whenever a server begins to answer, so that the caller's caller sees who hangs and who is only slow.
ANSWERED: ContextVar[Callable[[], None]] = ContextVar("ANSWERED", default=lambda: None)


class RequestOutcome(StrEnum):
    """The result of a request, as a label of metrics."""

    OK = "ok"
    CANCELLED = "cancelled"  # the caller stopped waiting
    CONFLICT = "conflict"
    ERROR = "error"
    INCOMPLETE = "incomplete"
    MALFORMED = "malformed"
    NOT_FOUND = "not-found"
    NOT_PERMITTED = "not-permitted"
    RATE_LIMITED = "rate-limited"
    REJECTED = "rejected"
    SERVER_FAILURE = "server-failure"
    TENANT_MISMATCH = "tenant-mismatch"
    UNAUTHORIZED = "unauthorized"
    UNREACHABLE = "unreachable"
    UNUSABLE_SETTINGS = "unusable-settings"


class Cause(StrEnum):
    """Why no complete answer arrived."""

    DNS = "dns"
    CONNECT = "connect"
    TLS = "tls"
    TIMEOUT = "timeout"
    BROKEN = "broken"
    TOO_LARGE = "too-large"


class TransportError(Exception):
    """No complete answer arrived, because of `cause`. The text is safe to log."""

    def __init__(self, cause: Cause, message: str) -> None:
        super().__init__(message)
        self.cause = cause


@dataclass(frozen=True, slots=True)
class Reply:
    """A complete answer. `headers` are case-insensitive. `repr` leaves out the body, which may hold secrets."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def __repr__(self) -> str:
        return f"Reply(status={self.status}, {len(self.body)} bytes)"


def open_session(
    *,
    tls: ssl.SSLContext | bool,
    connections: int,
    connect_timeout: float = 10.0,
    proxy: str | None = None,
) -> aiohttp.ClientSession:
    """Open a session that verifies servers with `tls` (True = the system's trust). Call it inside the event loop.

    `connections` limits the open sockets; `connect_timeout` (seconds) limits DNS, TCP and TLS together. `proxy` is the
    only proxy that is used.
    """
    connector = aiohttp.TCPConnector(ssl=tls, limit=connections, limit_per_host=connections)
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, connect=connect_timeout),
        trust_env=False,
        proxy=proxy,
        raise_for_status=False,
    )


async def request(
    session: aiohttp.ClientSession,
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    params: Mapping[str, str] | None = None,
    body: bytes | None = None,
    timeout: float,  # noqa: ASYNC109 - it must cover connecting and reading as one
    max_body: int,
    server_hostname: str | None = None,
) -> Reply:
    """Make one request and read the whole answer, whatever its status. Redirects are returned, not followed.

    `timeout` (seconds) covers everything from connecting to the last byte; `max_body` counts decompressed bytes.
    Raises `TransportError`.
    """
    host = "the server"
    try:
        host = _host_of(url)
        async with (
            asyncio.timeout(timeout),
            session.request(
                method,
                url,
                headers=headers,
                params=params,
                data=body,
                allow_redirects=False,
                server_hostname=server_hostname,
            ) as response,
        ):
            ANSWERED.get()()
            return Reply(response.status, response.headers, await _read(response, max_body, host))
    except TimeoutError:
        raise TransportError(Cause.TIMEOUT, f"{host} did not answer within {timeout:g} s") from None
    except aiohttp.InvalidURL:
        raise TransportError(Cause.CONNECT, "the address is not a valid http or https URL") from None
    except aiohttp.ClientConnectorDNSError:
        raise TransportError(Cause.DNS, f"the host name of {host} cannot be resolved") from None
    except aiohttp.ClientConnectorCertificateError as error:
        reason = getattr(error.certificate_error, "verify_message", "") or "verification failed"
        raise TransportError(Cause.TLS, f"the certificate of {host} is not trusted: {reason}") from None
    except (aiohttp.ClientSSLError, ssl.SSLError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or "handshake failed"
        raise TransportError(Cause.TLS, f"TLS with {host} failed: {str(reason)[:100]}") from None
    except aiohttp.ClientProxyConnectionError:
        raise TransportError(Cause.CONNECT, f"cannot connect to the proxy for {host}") from None
    except aiohttp.ClientConnectorError as error:
        raise TransportError(Cause.CONNECT, f"cannot connect to {host}: {_system_message(error.os_error)}") from None
    except (aiohttp.ClientError, ConnectionError, OSError, ValueError) as error:
        # aiohttp's parsers raise ValueError for some invalid data. The error texts may quote received data, so only the
        # type is named.
        raise TransportError(Cause.BROKEN, f"the connection to {host} broke: {type(error).__name__}") from None


def http_date(text: str) -> datetime | None:
    """Parse the date in a header (RFC 9110, 5.6.7); None if it is not a date."""
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, IndexError, OverflowError):
        return None
    return when.replace(tzinfo=UTC) if when.tzinfo is None else when


def _system_message(error: OSError) -> str:
    """Return the operating system's message; asyncio's own text also contains the address."""
    return os.strerror(error.errno) if error.errno else error.strerror or "refused"


def _host_of(url: str) -> str:
    """Return host and port of `url`, without user and password. Raises aiohttp.InvalidURL."""
    try:
        parsed = URL(url)
    except (ValueError, TypeError):
        raise aiohttp.InvalidURL("") from None
    if parsed.scheme not in {"http", "https"} or not parsed.host_port_subcomponent:
        raise aiohttp.InvalidURL("")
    return parsed.host_port_subcomponent


async def _read(response: aiohttp.ClientResponse, max_body: int, host: str) -> bytes:
    declared = response.content_length
    if declared is not None and declared > max_body:
        raise _too_large(host, max_body)
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.content.iter_chunked(CHUNK):
        size += len(chunk)
        if size > max_body:
            raise _too_large(host, max_body)
        chunks.append(chunk)
    return b"".join(chunks)


def _too_large(host: str, max_body: int) -> TransportError:
    return TransportError(Cause.TOO_LARGE, f"the answer of {host} is larger than {max_body} bytes")

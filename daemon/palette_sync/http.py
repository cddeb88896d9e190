"""HTTP sessions and requests, for all clients of the daemon.

Every session has timeouts, follows no redirects, keeps no cookies and reads nothing from the environment (no `.netrc`,
no proxy variables). Every body has a size limit. Network failures become `TransportError`, whose text names the host
and the cause, but never a query, a header or a body.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING

import aiohttp
from yarl import URL

from palette_sync import __version__
from palette_sync.core.network import NetworkPolicy, Standing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from aiohappyeyeballs import AddrInfoType
    from aiohttp.abc import AbstractStreamWriter

USER_AGENT = f"palette-sync/{__version__}"
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
    ADDRESS = "address"
    CONNECT = "connect"
    PROXY = "proxy"  # a proxy answered in place of the server, and refused
    TLS = "tls"  # the certificate does not verify
    HANDSHAKE = "handshake"  # TLS failed in another way
    TLS_VERSION = "tls-version"  # the server speaks only versions before 1.2
    PLAIN_HTTP = "plain-http"  # the server answered TLS with plain HTTP
    TIMEOUT = "timeout"
    BROKEN = "broken"
    TOO_LARGE = "too-large"


class TransportError(Exception):
    """No complete answer arrived, because of `cause`. The text is safe to log and to publish.

    `detail` is what happened in full, for the log only; empty where the text says all.
    """

    def __init__(self, cause: Cause, message: str, *, detail: str = "") -> None:
        super().__init__(message)
        self.cause = cause
        self.detail = detail


class _AddressRefused(OSError):
    """The policy does not permit a connection to this address."""


class _Judge:
    """Makes sockets for addresses that `network` permits. `unnamed`: the operator has not named one of them."""

    def __init__(self, network: NetworkPolicy) -> None:
        self._network = network
        self.unnamed = False

    def socket(self, info: AddrInfoType) -> socket.socket:
        """Raises _AddressRefused."""
        family, kind, protocol, _, address = info
        standing = self._network.judge(str(address[0]))
        if standing is Standing.REFUSED:
            raise _AddressRefused("the address is refused")
        self.unnamed |= standing is Standing.UNNAMED
        return socket.socket(family, kind, protocol)

    def published(self, error: TransportError) -> TransportError:
        """The error as it may be published."""
        if self.unnamed and error.cause in _SAME_FOR_A_SCANNER:
            return TransportError(Cause.CONNECT, NOT_REACHED, detail=str(error))
        return error


class _Connector(aiohttp.TCPConnector):
    """Connects only to addresses that are permitted. A name is judged by what it resolves to, at each connection."""

    def __init__(self, network: NetworkPolicy, *, tls: ssl.SSLContext | bool, connections: int) -> None:
        self.judge = _Judge(network)
        super().__init__(ssl=tls, limit=connections, limit_per_host=connections, socket_factory=self.judge.socket)


# Whoever chose the address must not learn from a published reason whether a port is closed, filtered or open: the
# daemon would scan its own network for him. For addresses in `[network] allow` the cause is published.
NOT_REACHED = "the server cannot be reached, or does not answer in time (the daemon's log has the cause)"
_SAME_FOR_A_SCANNER = frozenset({Cause.CONNECT, Cause.TIMEOUT, Cause.BROKEN, Cause.HANDSHAKE, Cause.PLAIN_HTTP})
_ADDRESS_REFUSED = (
    "has an address to which palette-sync does not connect, such as loopback or link-local; "
    "if it is right, name its network in [network] allow"
)


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
    network: NetworkPolicy | None = None,
) -> aiohttp.ClientSession:
    """Open a session that verifies servers with `tls` (True = the system's trust). Call it inside the event loop.

    `connections` limits the open sockets; `connect_timeout` (seconds) limits DNS, TCP and TLS together. `proxy` is the
    only proxy that is used. `network` judges the address of each connection; None where the operator wrote the URL.
    """
    connector = (
        aiohttp.TCPConnector(ssl=tls, limit=connections, limit_per_host=connections)
        if network is None
        else _Connector(network, tls=tls, connections=connections)
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, connect=connect_timeout),
        trust_env=False,
        headers={"User-Agent": USER_AGENT},
        proxy=proxy,
        raise_for_status=False,
    )


class CheckedBody(aiohttp.BytesPayload):
    """A body that leaves this process only if `may_send` agrees at that moment: connecting may have taken long, and the
    process may have been stopped meanwhile. `refused` says that it was not sent, so that the server did nothing.
    """

    def __init__(self, value: bytes, may_send: Callable[[], bool]) -> None:
        super().__init__(value)
        self.refused = False
        self._may_send = may_send

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        if not self._may_send():
            self.refused = True
            raise ConnectionAbortedError("the body may not be sent any more")
        await super().write_with_length(writer, content_length)


async def request(
    session: aiohttp.ClientSession,
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    params: Mapping[str, str] | None = None,
    body: bytes | CheckedBody | None = None,
    timeout: float,  # noqa: ASYNC109 - it must cover connecting and reading as one
    max_body: int,
    server_hostname: str | None = None,
) -> Reply:
    """Make one request and read the whole answer, whatever its status. Redirects are returned, not followed.

    `timeout` (seconds) covers everything from connecting to the last byte; `max_body` counts decompressed bytes.
    Raises `TransportError`.
    """
    try:
        return await _request(
            session,
            method,
            url,
            headers=headers,
            params=params,
            body=body,
            timeout=timeout,
            max_body=max_body,
            server_hostname=server_hostname,
        )
    except TransportError as error:
        if isinstance(session.connector, _Connector):
            raise session.connector.judge.published(error) from None
        raise


async def _request(
    session: aiohttp.ClientSession,
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None,
    params: Mapping[str, str] | None,
    body: bytes | CheckedBody | None,
    timeout: float,  # noqa: ASYNC109 - see `request`
    max_body: int,
    server_hostname: str | None,
) -> Reply:
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
        raise _tls_failure(host, error) from None
    except (aiohttp.ClientHttpProxyError, aiohttp.ClientConnectorError) as error:
        raise _connection_failure(host, error) from None
    except (aiohttp.ClientError, ConnectionError, OSError, ValueError) as error:
        # aiohttp's parsers raise ValueError for some invalid data. The error texts may quote received data, so only the
        # type is named.
        raise TransportError(Cause.BROKEN, f"the connection to {host} broke: {type(error).__name__}") from None


def _connection_failure(
    host: str, error: aiohttp.ClientHttpProxyError | aiohttp.ClientConnectorError
) -> TransportError:
    match error:
        case aiohttp.ClientHttpProxyError():
            cause = Cause.PROXY if error.status < HTTPStatus.INTERNAL_SERVER_ERROR else Cause.CONNECT
            return TransportError(cause, f"the proxy for {host} answered HTTP {error.status}")
        case aiohttp.ClientProxyConnectionError():
            return TransportError(Cause.CONNECT, f"cannot connect to the proxy for {host}")
    if isinstance(error.os_error, _AddressRefused):
        return TransportError(Cause.ADDRESS, f"{host} {_ADDRESS_REFUSED}")
    return TransportError(Cause.CONNECT, f"cannot connect to {host}: {_system_message(error.os_error)}")


@asynccontextmanager
async def tls_connection(
    url: str,
    *,
    tls: ssl.SSLContext,
    server_hostname: str | None,
    timeout: float,  # noqa: ASYNC109 - of connecting and the handshake as one
    network: NetworkPolicy,
) -> AsyncIterator[ssl.SSLObject]:
    """Connect to the server of `url`, and yield the connection after its handshake. Nothing is sent.

    `network` judges the address, as for a session. Raises TransportError.
    """
    host, judge = _host_of(url), _Judge(network)
    try:
        async with asyncio.timeout(timeout):
            _, writer = await _open_tls(URL(url), judge, tls, server_hostname)
    except ssl.SSLCertVerificationError as error:
        raise TransportError(Cause.TLS, f"the certificate of {host} is not trusted: {error.verify_message}") from None
    except ssl.SSLError as error:
        raise judge.published(_tls_failure(host, error)) from None
    except socket.gaierror:
        raise TransportError(Cause.DNS, f"the host name of {host} cannot be resolved") from None
    except _AddressRefused:
        raise TransportError(Cause.ADDRESS, f"{host} {_ADDRESS_REFUSED}") from None
    except TimeoutError:
        raise judge.published(TransportError(Cause.TIMEOUT, f"{host} did not answer within {timeout:g} s")) from None
    except OSError as error:
        failed = TransportError(Cause.CONNECT, f"cannot connect to {host}: {_system_message(error)}")
        raise judge.published(failed) from None
    try:
        yield writer.get_extra_info("ssl_object")
    finally:
        writer.transport.abort()


async def _open_tls(
    url: URL, judge: _Judge, tls: ssl.SSLContext, server_hostname: str | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Try the addresses of the host one after another. Raises OSError."""
    loop = asyncio.get_running_loop()
    last: OSError = OSError("no address")
    for info in await loop.getaddrinfo(url.raw_host, url.port, type=socket.SOCK_STREAM):
        try:
            connected = judge.socket(info)
        except OSError as error:
            last = error
            continue
        try:
            connected.setblocking(False)
            await loop.sock_connect(connected, info[4])
        except OSError as error:
            connected.close()
            last = error
            continue
        except BaseException:
            connected.close()
            raise
        return await asyncio.open_connection(sock=connected, ssl=tls, server_hostname=server_hostname or url.raw_host)
    raise last


def _tls_failure(host: str, error: aiohttp.ClientSSLError | ssl.SSLError) -> TransportError:
    """Name the cause of a failed handshake by OpenSSL's reason (openssl/sslerr.h)."""
    found = getattr(error, "reason", None) or getattr(error, "strerror", None) or "handshake failed"
    reason = str(found)[:100]
    if any(word in reason for word in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST")):
        return TransportError(Cause.PLAIN_HTTP, f"{host} answers in plain HTTP and not in TLS")
    if any(word in reason for word in ("PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL")):
        return TransportError(Cause.TLS_VERSION, f"{host} speaks no TLS version from 1.2 on")
    return TransportError(Cause.HANDSHAKE, f"TLS with {host} failed: {reason}")


@lru_cache(maxsize=64)
def http_date(text: str) -> datetime | None:
    """Parse the date in a header (RFC 9110, 5.6.7); None if it is not a date.

    Remembered, because all answers of a second carry the same one.
    """
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

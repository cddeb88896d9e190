"""Asks a daemon's HTTP endpoint, with the standard library: the client of the daemon takes longer to import than the
answer to come.
"""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

TIMEOUT = 5.0  # seconds for the whole answer
LIMIT = 4 * 1024 * 1024  # bytes of one answer


class NotAsked(Exception):
    """There was no answer. The text names the URL and the cause."""


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    body: bytes


def get(url: str, *, timeout: float = TIMEOUT, limit: int = LIMIT) -> Reply:
    """GET `url`, without following redirects. Raises NotAsked, also for an answer that is too large or too slow."""
    parts = urlsplit(url)
    ends = time.monotonic() + timeout
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    try:
        connection = kind(parts.hostname or "", parts.port, timeout=timeout)
        try:
            connection.request("GET", parts.path or "/", headers={"Accept-Encoding": "identity"})
            response = connection.getresponse()
            body = b"".join(_pieces(response, connection, ends=ends, limit=limit))
        finally:
            connection.close()
    except TimeoutError:
        raise NotAsked(f"{url} did not answer within {timeout:g} s") from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise NotAsked(f"{url} cannot be asked: {_cause(error)}") from None
    return Reply(response.status, body)


def _pieces(
    response: http.client.HTTPResponse, connection: http.client.HTTPConnection, *, ends: float, limit: int
) -> Iterator[bytes]:
    """Raises TimeoutError at `ends` also where bytes still trickle, and ValueError beyond `limit`."""
    size = 0
    while True:
        left = ends - time.monotonic()
        if left <= 0:
            raise TimeoutError
        if connection.sock is not None:  # it is closed already where the answer ends the connection
            connection.sock.settimeout(left)
        piece = response.read1(65536)
        if not piece:
            return
        size += len(piece)
        if size > limit:
            raise ValueError(f"more than {limit} bytes")
        yield piece


def _cause(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate does not verify: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return "it does not speak TLS"
    if isinstance(error, socket.gaierror):
        return "its name is unknown"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    if isinstance(error, ValueError) and not isinstance(error, UnicodeError):
        return str(error)
    return "it does not speak HTTP"

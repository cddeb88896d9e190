"""Ask an API server for its version without a credential: does it answer?"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

import orjson

from palette_sync.http import TransportError, open_session, request
from palette_sync.kube.errors import ProxyAnswered, error_of, status_document, unreachable
from palette_sync.kube.tokens import version_in
from palette_sync.kube.transport import Requests, tls_context

if TYPE_CHECKING:
    from palette_sync.core.model import Server

VERSION_ANSWER = 64 * 1024
VERSION = "get_code"  # as the client library calls it
_SHAPE = ("major", "minor", "gitVersion")
_REFUSALS = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})


async def probe_version(
    server: Server,
    *,
    timeout: float,  # noqa: ASYNC109 - of the one request
    requests: Requests | None = None,
) -> str | None:
    """Ask `/version` without a credential. An API server that answers, also with a refusal, is reachable.

    The result is None if the server refuses to name its version: a Status of 401 or 403. Whatever else answers is no
    Kubernetes API, and no user's token may be sent there. Raises KubeError (ProxyAnswered where no API server
    answered), KubeconfigError.
    """
    requests = requests or Requests()
    context = tls_context(server, None)
    async with open_session(tls=context, connections=1, connect_timeout=timeout, network=requests.network) as session:
        with requests.counted(VERSION):
            try:
                reply = await request(
                    session,
                    "GET",
                    f"{server.url}/version",
                    timeout=timeout,
                    max_body=VERSION_ANSWER,
                    server_hostname=server.tls_server_name,
                )
            except TransportError as error:
                raise unreachable(error) from None
            if reply.status == HTTPStatus.OK and (version := _version_of(reply.body)) is not None:
                return version
            if status_document(reply.body).get("code") != reply.status:
                raise ProxyAnswered(f"GET /version: HTTP {reply.status}, which is not from a Kubernetes API server")
            if reply.status not in _REFUSALS:
                raise error_of("GET /version", reply)
    return None


def _version_of(body: bytes) -> str | None:
    """The version in an answer of the shape that every API server gives (`version.Info`); None for any other answer."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(document, dict) or not all(isinstance(document.get(name), str) for name in _SHAPE):
        return None
    return version_in(document)

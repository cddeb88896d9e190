"""Ask an API server for its version without a credential: does it answer?"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import orjson

from palette_sync.http import TransportError, open_session, request
from palette_sync.kube.errors import ProxyAnswered, status_document, unreachable
from palette_sync.kube.tokens import version_in
from palette_sync.kube.transport import Requests, tls_context

if TYPE_CHECKING:
    from palette_sync.core.model import Server
    from palette_sync.http import Reply

VERSION_ANSWER = 64 * 1024
VERSION = "get_code"  # as the client library calls it


async def probe_version(
    server: Server,
    *,
    timeout: float,  # noqa: ASYNC109 - of the one request
    requests: Requests | None = None,
) -> str | None:
    """Ask `/version` without a credential. An answer of an API server means reachable, also a refusal.

    The result is None if the server refuses to name its version. A 401 need not have the shape of Kubernetes, because a
    proxy that checks the users' tokens itself answers with its own 401.
    Raises Unreachable, ProxyAnswered, KubeconfigError.
    """
    counted = (requests or Requests()).counted(VERSION)
    async with open_session(tls=tls_context(server, None), connections=1, connect_timeout=timeout) as session:
        with counted:
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
            version = _version_document(reply)
            if version is None and not _refused(reply):
                raise ProxyAnswered(f"GET /version: HTTP {reply.status}, which is not from a Kubernetes API server")
    return version_in(version) if version is not None else None


def _version_document(reply: Reply) -> dict[str, Any] | None:
    try:
        document = orjson.loads(reply.body)
    except orjson.JSONDecodeError:
        return None
    return document if isinstance(document, dict) and "gitVersion" in document else None


def _refused(reply: Reply) -> bool:
    """Whether an API server, or a proxy that authenticates for it, refused the request."""
    if status_document(reply.body):
        return True
    return reply.status == HTTPStatus.UNAUTHORIZED and not reply.body.lstrip().startswith(b"<")

"""Ask an API server for its version without a credential: does it answer?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from palette_sync.http import TransportError, open_session, request
from palette_sync.kube.errors import unreachable
from palette_sync.kube.tokens import version_in
from palette_sync.kube.transport import Requests, tls_context

if TYPE_CHECKING:
    from palette_sync.core.model import Server

VERSION_ANSWER = 64 * 1024
VERSION = "get_code"  # as the client library calls it


async def probe_version(
    server: Server,
    *,
    timeout: float,  # noqa: ASYNC109 - of the one request
    requests: Requests | None = None,
) -> str | None:
    """Ask `/version` without a credential. Any HTTP answer means reachable; a version comes only if it is told.

    Raises Unreachable, KubeconfigError.
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
    try:
        document = orjson.loads(reply.body)
    except orjson.JSONDecodeError:
        return None
    return version_in(document) if isinstance(document, dict) else None

"""Tokens of Google Cloud for GKE, and the question to Google which server a cluster has.

A Google access token opens every cluster that its identity may use, so it is sent to a server only after Google's API
names that server and its CA for the cluster. Source: the Kubernetes Engine API v1, `projects.locations.clusters.get`.
"""

from __future__ import annotations

import base64
import binascii
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import orjson

from palette_sync.cloud.errors import CredentialsUnavailable, ServerRefused
from palette_sync.core.model import Secret
from palette_sync.http import TransportError, open_session, request
from palette_sync.tls import trusting

if TYPE_CHECKING:
    from palette_sync.core.cloud import CloudCluster
    from palette_sync.core.model import Server

API = "https://container.googleapis.com"
SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_ANSWER = 1024 * 1024
_TIMEOUT = 10.0  # seconds


class GoogleTokens:
    """Finds Google's application default credentials once; google-auth renews their token. The method blocks."""

    def __init__(self) -> None:
        self._credentials: Any = None

    def token(self) -> Secret:
        """An access token. Raises CredentialsUnavailable."""
        import google.auth
        from google.auth.exceptions import GoogleAuthError
        from google.auth.transport.requests import Request

        try:
            if self._credentials is None:
                self._credentials, _ = google.auth.default(scopes=[SCOPE])
            if not self._credentials.valid:
                self._credentials.refresh(_with_timeout(Request()))
        except GoogleAuthError as error:
            # The texts of google-auth may quote what it received.
            raise CredentialsUnavailable(f"no Google credentials can be used: {type(error).__name__}") from None
        return Secret(str(self._credentials.token))


def _with_timeout(call: Any) -> Any:
    """Google's request waits for two minutes otherwise."""

    def bounded(*args: Any, **options: Any) -> Any:
        return call(*args, **{**options, "timeout": _TIMEOUT})

    return bounded


async def confirm(cluster: CloudCluster, server: Server, token: Secret, *, api: str, ca_pem: str | None = None) -> None:
    """Raise ServerRefused unless Google names this server and its CA for the cluster.

    `api` is the address of Google's API, `ca_pem` its CA if it is not one of the system's. Raises
    CredentialsUnavailable where the API does not answer, or does not let the identity read the cluster.
    """
    path = f"/v1/projects/{cluster.project}/locations/{cluster.location}/clusters/{cluster.name}"
    headers = {"Authorization": f"Bearer {token.reveal()}", "Accept": "application/json"}
    try:
        async with open_session(tls=trusting(ca_pem), connections=1, connect_timeout=_TIMEOUT) as session:
            reply = await request(session, "GET", f"{api}{path}", headers=headers, timeout=_TIMEOUT, max_body=_ANSWER)
    except TransportError as error:
        raise CredentialsUnavailable(f"Google's API was not asked for the cluster: {error}") from None
    if reply.status != HTTPStatus.OK:
        raise CredentialsUnavailable(f"Google's API answered HTTP {reply.status} for the cluster {cluster.name}")
    try:
        document = orjson.loads(reply.body)
    except orjson.JSONDecodeError:
        document = None
    if not isinstance(document, dict):
        raise CredentialsUnavailable("Google's API answered with something else than a cluster")
    if not _names(document, server):
        raise ServerRefused(f"Google names another server or CA for the cluster {cluster.name}, so it gets no token")


def _names(document: dict[str, Any], server: Server) -> bool:
    """Whether a cluster of Google's API has this server. Its DNS endpoint has a certificate of a public CA."""
    host = server.url.removeprefix("https://").removesuffix(":443")
    if server.tls_server_name is not None:
        return False
    endpoints = _object(document, "controlPlaneEndpointsConfig")
    if server.ca_data is None:
        return host == _object(endpoints, "dnsEndpointConfig").get("endpoint")
    private, addresses = _object(document, "privateClusterConfig"), _object(endpoints, "ipEndpointsConfig")
    named = {
        document.get("endpoint"),
        *(one.get(key) for one in (private, addresses) for key in ("privateEndpoint", "publicEndpoint")),
    }
    ca = _certificates(_object(document, "masterAuth").get("clusterCaCertificate"))
    return host in named and ca is not None and ca == _certificates(server.ca_data)


def _object(document: dict[str, Any], key: str) -> dict[str, Any]:
    found = document.get(key)
    return found if isinstance(found, dict) else {}


def _certificates(data: object) -> str | None:
    """Base64 of PEM as comparable text."""
    try:
        return "".join(base64.b64decode(str(data), validate=True).decode("ascii").split()) or None
    except (binascii.Error, ValueError):
        return None

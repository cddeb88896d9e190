"""Requests to one cluster: kubernetes_asyncio's API classes over our own session.

The stock transport reads proxies and netrc from the environment, follows redirects, has no timeout, writes keys to
temporary files and builds a context with the system's trust (20 ms) per client. This one uses one connection per
cluster and closes it when the work is done. Trust and client key stay in memory, redirects are not
followed, and bodies have a limit.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import re
import ssl
import tempfile
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlencode

import orjson
from kubernetes_asyncio.client import (
    ApiClient,
    AuthorizationV1Api,
    Configuration,
    CoreV1Api,
    RbacAuthorizationV1Api,
    VersionApi,
)
from kubernetes_asyncio.client.rest import RESTClientObject

from palette_sync.core.network import UNCONFIGURED, NetworkPolicy
from palette_sync.core.reasons import Reason
from palette_sync.http import (
    USER_AGENT,
    CheckedBody,
    RequestOutcome,
    TransportError,
    http_date,
    open_session,
    request,
)
from palette_sync.kube.errors import KubeError, Malformed, WritesFenced, error_of, unreachable
from palette_sync.kube.kubeconfig import BearerToken, CertificateAndToken, ClientCertificate, KubeconfigError
from palette_sync.kube.server_warnings import SeenWarnings
from palette_sync.tls import certificates_problem, key_problem, reader_rules, reader_trust, system_trust, trusting
from palette_sync.tracing import span

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping
    from datetime import datetime

    import aiohttp

    from palette_sync.core.model import Secret, Server
    from palette_sync.http import Reply

LARGEST_ANSWER = 1024 * 1024
# Values in one answer. A megabyte of `{},` is 350,000 objects, which take 22 MB for as long as the work on the cluster.
MOST_VALUES = 20_000
TOKEN_REQUEST = "create_namespaced_service_account_token"  # noqa: S105 - as the client library calls it
_OVERLOADED = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})
# Of a request's timeout, for connecting: so a server to which no connection succeeds always fails here, and not by the
# deadline of the cluster's work, whose message differs.
CONNECT_SHARE = 0.8
# Reviews are POST requests that change nothing.
_REVIEWS = "/apis/authorization.k8s.io/"
MERGE_PATCH = "application/merge-patch+json"
_warnings = SeenWarnings()  # of this process
Credential = ClientCertificate | BearerToken | CertificateAndToken | None


class _Rest(RESTClientObject):
    """The library's transport; its verbs (`get`, `post`, ...) all call `request`."""

    def __init__(
        self, session: aiohttp.ClientSession, server: Server, timeout: float, may_write: Callable[[], bool]
    ) -> None:
        self._session = session
        self._may_write = may_write
        self._server_hostname = server.tls_server_name
        self._timeout = timeout
        self._deadline = asyncio.get_running_loop().time() + timeout
        self.server_time: datetime | None = None

    async def close(self) -> None:
        await self._session.close()

    async def request(  # the library's signature
        self,
        method: str,
        url: str,
        query_params: Any = None,
        headers: Mapping[str, str] | None = None,
        body: Any = None,
        post_params: Any = None,  # noqa: ARG002
        _preload_content: bool = True,  # noqa: FBT001, FBT002
        _request_timeout: Any = None,
    ) -> Reply:
        headers = dict(headers or {})
        if body is not None:
            headers.setdefault("Content-Type", "application/json")
        if query_params:
            url = f"{url}?{urlencode(query_params)}"
        data = None if body is None else orjson.dumps(body)
        timeout = _request_timeout or self._timeout
        reply = await self._send(method, url, headers, data, timeout)
        pause = _retry_after(reply)
        if pause is None or asyncio.get_running_loop().time() + pause >= self._deadline:
            return reply
        await asyncio.sleep(pause)
        return await self._send(method, url, headers, data, timeout)

    async def _send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout: float,  # noqa: ASYNC109 - passed on
    ) -> Reply:
        data: bytes | CheckedBody | None = body
        if method != "GET" and _REVIEWS not in url:
            if not self._may_write():
                raise WritesFenced
            # Asked again once the connection stands: a process may be stopped for long while it connects.
            data = CheckedBody(body or b"", self._may_write)
        try:
            reply = await request(
                self._session,
                method,
                url,
                headers=headers,
                body=data,
                timeout=timeout,
                max_body=LARGEST_ANSWER,
                server_hostname=self._server_hostname,
            )
        except TransportError as error:
            if isinstance(data, CheckedBody) and data.refused:
                raise WritesFenced from None
            raise unreachable(error) from None
        self.server_time = http_date(reply.headers.get("Date", "")) or self.server_time
        return reply


def _retry_after(reply: Reply) -> int | None:
    """Seconds after which an API server that is overloaded, or starts, wants to be asked again; None if never.

    It has done nothing yet, so a write is repeated too, as client-go does. API servers send seconds, never a date.
    """
    after = reply.headers.get("Retry-After", "")
    if reply.status not in _OVERLOADED or not re.fullmatch(r"[0-9]{1,6}", after):
        return None
    return int(after)


class _Client(ApiClient):
    """An ApiClient that never builds the stock transport."""

    def __init__(self, configuration: Configuration, rest: _Rest) -> None:
        self.configuration = configuration
        self.rest_client = rest
        self.default_headers = {"User-Agent": USER_AGENT}
        self.cookie = None  # type: ignore[assignment]  # the library's default too
        self.pool_threads = 1
        self.client_side_validation = False


class Requests:
    """Counts requests to API servers, and says to which addresses they may go (`network`).

    `may_write` is asked before each request that writes. If it says no, the request raises WritesFenced.

    `report` receives each operation, by the client library's name, and its outcome: `ok`, the outcome of an error
    class, or `cancelled` if the caller stopped waiting.
    """

    def __init__(
        self,
        report: Callable[[str, str], None] = lambda _operation, _outcome: None,
        *,
        network: NetworkPolicy = UNCONFIGURED,
        may_write: Callable[[], bool] = lambda: True,
    ) -> None:
        self._report = report
        self.may_write = may_write
        self.network = network
        self.total = 0

    @contextlib.contextmanager
    def counted(self, operation: str) -> Iterator[None]:
        outcome = RequestOutcome.CANCELLED
        with span("kube_request", operation=operation) as traced:
            try:
                yield
                outcome = RequestOutcome.OK
            except KubeError as error:
                outcome = error.outcome
                raise
            finally:
                self.total += 1
                traced.set(outcome=outcome.value)
                self._report(operation, outcome)


class KubeApi:
    """One cluster's API with one credential. An async context manager; calls share one connection in sequence.

    `timeout`: seconds for each request. A Retry-After is obeyed if it ends within that time from the beginning.
    """

    def __init__(
        self, server: Server, credential: Credential, *, timeout: float, requests: Requests | None = None
    ) -> None:
        self.server = server
        self._certificate, self._token = _parts(credential)
        self._timeout = timeout
        self._requests = requests or Requests()
        self._rest: _Rest | None = None

    async def __aenter__(self) -> Self:
        context = tls_context(self.server, self._certificate)
        session = open_session(
            tls=context,
            connections=1,
            connect_timeout=self._timeout * CONNECT_SHARE,
            network=self._requests.network,
        )
        self._rest = _Rest(session, self.server, self._timeout, self._requests.may_write)
        configuration = Configuration(host=self.server.url)
        client = _Client(configuration, self._rest)
        if self._token is not None:
            client.default_headers["Authorization"] = f"Bearer {self._token.reveal()}"
        self.core = CoreV1Api(client)
        self.rbac = RbacAuthorizationV1Api(client)
        self.authorization = AuthorizationV1Api(client)
        self.version = VersionApi(client)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._rest is not None:
            await self._rest.close()

    @property
    def server_time(self) -> datetime | None:
        """The time by the API server's clock, as its last answer said (whole seconds); None if none said it."""
        return self._rest.server_time if self._rest is not None else None

    async def call(
        self, what: str, operation: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        """Make one call and return the decoded object. `what` names it in errors. Raises KubeError."""
        with self._requests.counted(operation.__name__):
            reply: Reply = await operation(*args, _preload_content=False, **kwargs)
            if "Warning" in reply.headers:
                _warnings.log(self.server.url, reply, token=self._token)
            if not 200 <= reply.status < 300:  # noqa: PLR2004 - HTTP
                may_lack = operation.__name__ == TOKEN_REQUEST or getattr(operation, "__self__", None) is self.rbac
                raise error_of(what, reply, token=self._token, may_lack=may_lack)
            if reply.body.count(b",") + reply.body.count(b"[") + reply.body.count(b"{") > MOST_VALUES:
                raise Malformed(f"{what}: the answer holds more than {MOST_VALUES} values")
            try:
                document = orjson.loads(reply.body)
            except orjson.JSONDecodeError:
                raise Malformed(f"{what}: the answer is not JSON") from None
            if not isinstance(document, dict):
                raise Malformed(f"{what}: the answer is not an object")
            return document


def _parts(credential: Credential) -> tuple[ClientCertificate | None, Secret | None]:
    """What TLS presents, and what the Authorization header carries."""
    if isinstance(credential, CertificateAndToken):
        return credential.certificate, credential.token.token
    if isinstance(credential, BearerToken):
        return None, credential.token
    return credential, None


def tls_context(server: Server, credential: Credential, *, any_anchor: bool = False) -> ssl.SSLContext:
    """Trust for one cluster, with the client certificate if there is one. Raises KubeconfigError.

    It verifies as Node does, and so Backstage: a chain ends at a root. With `any_anchor` it verifies as Go does, and so
    kubectl: any certificate of the CA will do, even an intermediate one.
    Without a CA the system's trust is used. That context is shared, because loading it takes 20 ms and 0.8 MB.
    """
    if server.ca_data is None:
        if not isinstance(credential, ClientCertificate):
            return reader_trust()
        context = reader_rules(system_trust())  # its own, because it gets a client certificate
    else:
        try:
            pem = base64.b64decode(server.ca_data).decode("ascii")
            if problem := certificates_problem(pem):
                raise KubeconfigError(Reason.BAD_CA, f"the cluster's CA {problem}")
            context = trusting(pem)
        except ValueError:
            raise KubeconfigError(Reason.BAD_CA, "the cluster's CA is not a valid certificate") from None
    if any_anchor:
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if isinstance(credential, ClientCertificate):
        if problem := certificates_problem(credential.certificate):
            raise KubeconfigError(Reason.BAD_CREDENTIAL, f"the client certificate {problem}")
        if problem := key_problem(credential.key.reveal()):
            raise KubeconfigError(Reason.BAD_CREDENTIAL, f"the client key {problem}")
        with _in_memory(credential.certificate + credential.key.reveal()) as path:
            try:
                context.load_cert_chain(path, password=_refuse_password)
            except (ssl.SSLError, OSError, ValueError):
                raise KubeconfigError(
                    Reason.BAD_CREDENTIAL, "the client certificate and key do not load together"
                ) from None
    return context


def _refuse_password() -> str:
    """Keep OpenSSL from asking for the passphrase of an encrypted key on the terminal."""
    raise ValueError("the key is encrypted")


@contextlib.contextmanager
def _in_memory(text: str) -> Iterator[str]:
    """Offer text as a path without writing it to a disk: `load_cert_chain` reads files only."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("client", os.MFD_CLOEXEC)
        try:
            os.write(descriptor, text.encode())
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
    else:
        # Other systems: a file that only its owner may read, deleted as soon as it was read.
        with tempfile.NamedTemporaryFile("w") as file:
            file.write(text)
            file.flush()
            yield file.name

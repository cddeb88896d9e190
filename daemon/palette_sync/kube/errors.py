"""Errors of a cluster, by meaning. Callers never see errors of aiohttp or kubernetes_asyncio.

`reason` ends up in a record's `access.reason`; texts are safe to publish: they contain at most the reason and the
shortened message of a Kubernetes Status, never a header or another body.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, ClassVar

import orjson

from palette_sync.core.reasons import Reason
from palette_sync.core.text import one_line
from palette_sync.http import Cause, RequestOutcome

if TYPE_CHECKING:
    from palette_sync.core.model import Secret
    from palette_sync.core.plan import Blocked as BlockedPlan
    from palette_sync.http import Reply, TransportError

LONGEST_MESSAGE = 400  # characters, of which the middle is cut
# API servers answer so, without a Status, for a group or subresource that they do not have.
_UNKNOWN_PATH = b"404 page not found"
_REFUSED_USER = re.compile(r'\bUser "([^"]+)" cannot ')


class KubeError(Exception):
    """A request to a cluster's API failed. `outcome` is the word for metrics."""

    reason: Reason = Reason.FAILED
    outcome: ClassVar[RequestOutcome] = RequestOutcome.ERROR
    detail: str = ""  # what happened in full, for the log only


class Unauthorized(KubeError):
    reason = Reason.UNAUTHORIZED
    outcome = RequestOutcome.UNAUTHORIZED


class AdminCredentialRefused(Unauthorized):
    """The credential of an admin kubeconfig is not accepted (any longer)."""

    reason = Reason.ADMIN_CREDENTIAL_REFUSED


class CloudIdentityRefused(AdminCredentialRefused):
    """A token that a cloud just gave is not accepted by the cluster."""

    reason = Reason.CLOUD_IDENTITY_REFUSED


class Forbidden(KubeError):
    """`user` is whom the API server's authorizer refused; None where the answer does not say."""

    reason = Reason.FORBIDDEN
    outcome = RequestOutcome.NOT_PERMITTED
    user: str | None = None


class NamespaceTerminating(Forbidden):
    """Nothing can be created in a namespace that is being deleted."""

    reason = Reason.NAMESPACE_TERMINATING


class NotFound(KubeError):
    reason = Reason.NOT_FOUND
    outcome = RequestOutcome.NOT_FOUND


class Conflict(KubeError):
    """Another writer was faster: the object exists already, or it changed since it was read."""

    reason = Reason.CONTENDED
    outcome = RequestOutcome.CONFLICT


class Invalid(KubeError):
    reason = Reason.INVALID
    outcome = RequestOutcome.REJECTED


class TooMany(KubeError):
    reason = Reason.TOO_MANY_REQUESTS
    outcome = RequestOutcome.RATE_LIMITED


class ServerFailure(KubeError):
    reason = Reason.SERVER_FAILURE
    outcome = RequestOutcome.SERVER_FAILURE


class Malformed(KubeError):
    """The answer is not one of a Kubernetes API server."""

    reason = Reason.MALFORMED
    outcome = RequestOutcome.MALFORMED


_BY_CAUSE = {
    Cause.ADDRESS: Reason.ADDRESS_REFUSED,
    Cause.TLS: Reason.CERTIFICATE_REFUSED,
    Cause.HANDSHAKE: Reason.CERTIFICATE_REFUSED,
    Cause.TLS_VERSION: Reason.OLD_TLS,
    Cause.PLAIN_HTTP: Reason.PLAIN_HTTP,
}


class Unreachable(KubeError):
    """No complete answer arrived. TLS failures have the reasons `CertificateRefused`, `PlainHttp` and `OldTls`.

    An address that is refused has the reason `AddressRefused`.
    """

    reason = Reason.UNREACHABLE
    outcome = RequestOutcome.UNREACHABLE

    def __init__(self, message: str, *, cause: Cause = Cause.BROKEN, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail
        self.reason = _BY_CAUSE.get(cause, self.reason)


class ProxyAnswered(Unreachable):
    """An answer came, but not from a Kubernetes API server, so the server itself was not reached."""

    reason = Reason.PROXY_ANSWERED


class ChainIncomplete(KubeError):
    """The API server's certificate leads to no root that is known, so readers cannot verify it."""

    reason = Reason.CHAIN_INCOMPLETE


class TokenNotFilled(KubeError):
    """The API server did not write a token into its Secret in time."""

    reason = Reason.TOKEN_NOT_FILLED


class TokensTooShort(KubeError):
    """The API server grants tokens for so short a time that they would have to be renewed all the time."""

    reason = Reason.TOKENS_TOO_SHORT


class TokenRejected(KubeError):
    """A token that was just issued is still refused after several seconds."""

    reason = Reason.TOKEN_REJECTED


class AccessDenied(KubeError):
    """A token works, but the rights that it should have do not take effect."""

    reason = Reason.ACCESS_DENIED


class Blocked(KubeError):
    """The plan forbids any write (`Conflict`, `NamespaceTerminating`)."""

    def __init__(self, blocked: BlockedPlan) -> None:
        super().__init__(blocked.message)
        self.reason = blocked.reason


def unreachable(error: TransportError) -> KubeError:
    """Translate a failure of the transport."""
    if error.cause is Cause.TOO_LARGE:
        return Malformed(str(error))
    return Unreachable(str(error), cause=error.cause, detail=error.detail)


_BY_STATUS: dict[int, type[KubeError]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    422: Invalid,
    400: Invalid,
    429: TooMany,
}


def error_of(what: str, reply: Reply, *, token: Secret | None = None, may_lack: bool = False) -> KubeError:
    """Translate an answer other than success. `what` names the request without secrets.

    `token` is the one in the request: if a proxy echoes it, it is removed. `may_lack`: some API servers do not have the
    path of the request, and answer 404 with a plain text.
    """
    status = reply.status
    kind = _BY_STATUS.get(status) or (ServerFailure if status >= 500 else Malformed)  # noqa: PLR2004 - HTTP
    document = status_document(reply.body)
    detail = _detail(document, token)
    if kind is NotFound and not document and not (may_lack and reply.body.strip() == _UNKNOWN_PATH):
        return ProxyAnswered(f"{what}: HTTP {status}, which is not from a Kubernetes API server")
    if kind is Malformed and 300 <= status < 400:  # noqa: PLR2004 - HTTP
        detail = "a redirect, which is never followed"
    if kind is Forbidden and _terminating(document):
        kind = NamespaceTerminating
    error = kind(f"{what}: HTTP {status}{f' ({detail})' if detail else ''}")
    if isinstance(error, Forbidden):
        error.user = _refused_user(document)
    return error


def status_document(body: bytes) -> dict[str, Any]:
    """The Status of Kubernetes, or nothing: other bodies come from proxies and are not repeated."""
    try:
        document: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return document if isinstance(document, dict) and document.get("kind") == "Status" else {}


def _detail(document: dict[str, Any], token: Secret | None) -> str:
    words = (document.get("reason"), document.get("message"))
    text = ": ".join(word for word in words if isinstance(word, str) and word)
    if token:
        text = text.replace(token.reveal(), "***")
    return one_line(text, LONGEST_MESSAGE)


def _refused_user(document: dict[str, Any]) -> str | None:
    """The user in an authorizer's `... is forbidden: User "NAME" cannot create resource ...`."""
    message = document.get("message")
    found = _REFUSED_USER.search(message) if isinstance(message, str) else None
    return found.group(1) if found else None


def _terminating(document: dict[str, Any]) -> bool:
    """Whether the namespace is being deleted. API servers since 1.13 name the cause, older ones only say it."""
    details = document.get("details")
    listed = details.get("causes") if isinstance(details, dict) else None
    causes = listed if isinstance(listed, list) else ()
    named = any(isinstance(cause, dict) and cause.get("reason") == "NamespaceTerminating" for cause in causes)
    return named or "because it is being terminated" in str(document.get("message", ""))

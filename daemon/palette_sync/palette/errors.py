"""Palette's errors by meaning, and the translation of an HTTP answer into one of them.

Palette's error documents come in two forms: its own errors have a word as `code`, those of its HTTP framework a number.
Proxies in between answer with other bodies. Only the message of a recognised document is repeated, shortened and
without the API key: Palette has been seen to echo a bad key (palette-sdk-go, change 209).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, ClassVar

import orjson

from palette_sync.core.text import one_line
from palette_sync.http import RequestOutcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from palette_sync.http import Cause

MESSAGE_LENGTH = 200
_CODE_LENGTH = 64
_ENVELOPE_SIZE = 64 * 1024


class PaletteError(Exception):
    """Base of Palette's errors; the text is safe to log. `status` and `code` are from the answer, None if absent."""

    retryable: bool = False
    outcome: ClassVar[RequestOutcome] = RequestOutcome.ERROR

    def __init__(self, message: str, *, status: int | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Unauthorized(PaletteError):
    """The API key is missing, wrong, expired or revoked."""

    outcome = RequestOutcome.UNAUTHORIZED


class NotPermitted(PaletteError):
    """The key's user lacks a permission, or the object belongs to another project than the request's."""

    outcome = RequestOutcome.NOT_PERMITTED


class NotFound(PaletteError):
    """The object does not exist (yet), or this version lacks the path. Not a proof that something was deleted.

    Only the code `ResourceNotFound`, and a 404 without a word as code, mean that.
    """

    outcome = RequestOutcome.NOT_FOUND


class ProjectUnavailable(PaletteError):
    """The project of the request is unknown, or not open to the key's user. Says nothing about the object asked for.

    Palette 4.9.22 and later check the project of every request (its release notes name `ProjectNotFoundInTenant` and
    `ResourceAccessDenied`).
    """

    outcome = RequestOutcome.NOT_PERMITTED


class TooManyRequests(PaletteError):
    """Palette's rate limit was exceeded. `retry_after` is from the answer, in seconds."""

    retryable = True
    outcome = RequestOutcome.RATE_LIMITED

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, status=status, code=code)
        self.retry_after = retry_after


class Rejected(PaletteError):
    """Another 4xx, or a redirect: repeating the request does not help."""

    outcome = RequestOutcome.REJECTED


class ServerFailure(PaletteError):
    """A 5xx. `retry_after` is from the answer, in seconds."""

    retryable = True
    outcome = RequestOutcome.SERVER_FAILURE

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, status=status, code=code)
        self.retry_after = retry_after


class Unreachable(PaletteError):
    """No complete answer arrived. `cause` says why, and decides whether a retry may help."""

    outcome = RequestOutcome.UNREACHABLE

    def __init__(self, message: str, *, retryable: bool, cause: Cause | None = None) -> None:
        super().__init__(message)
        self.retryable = retryable
        self.cause = cause


class FileTooLarge(PaletteError):
    """Palette did answer, but the cluster's file is larger than what is read."""

    outcome = RequestOutcome.MALFORMED


class Malformed(PaletteError):
    """The answer does not match Palette's API description."""

    outcome = RequestOutcome.MALFORMED


class IncompleteListing(PaletteError):
    """A listing holds fewer rows than it announced, or does not end."""

    outcome = RequestOutcome.INCOMPLETE


class TenantMismatch(PaletteError):
    """The API key belongs to another tenant than the configured one."""

    outcome = RequestOutcome.TENANT_MISMATCH


class UnusableSettings(PaletteError):
    """The configured URL, API key or CA cannot be used."""

    outcome = RequestOutcome.UNUSABLE_SETTINGS


@dataclass(frozen=True, slots=True)
class Envelope:
    """Code and message of a recognised error document; empty otherwise."""

    code: str = ""
    message: str = ""


_BY_CODE: dict[str, type[PaletteError]] = {
    "UnAuthorizedAccess": Unauthorized,
    "OperationForbidden": NotPermitted,
    "ResOperationForbidden": NotPermitted,
    "ResourceAccessDenied": ProjectUnavailable,
    "ResourceNotFound": NotFound,
    "TooManyRequests": TooManyRequests,
}
_OF_A_PROJECT = re.compile(r"Project\w*(NotFound|AccessDenied|Forbidden|Invalid)\w*")
_BY_STATUS: dict[int, type[PaletteError]] = {
    HTTPStatus.UNAUTHORIZED: Unauthorized,
    HTTPStatus.FORBIDDEN: NotPermitted,
    HTTPStatus.NOT_FOUND: NotFound,
    HTTPStatus.TOO_MANY_REQUESTS: TooManyRequests,
}


def read_envelope(body: bytes) -> Envelope:
    """Read Palette's error document, whatever its content type; an empty Envelope if `body` is something else."""
    if len(body) > _ENVELOPE_SIZE:
        return Envelope()
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return Envelope()
    if not isinstance(document, dict):
        return Envelope()
    code, message = document.get("code"), document.get("message")
    if isinstance(code, bool) or not isinstance(code, str | int):
        return Envelope()
    return Envelope(str(code), message if isinstance(message, str) else "")


def error_of(
    what: str, status: int, body: bytes, *, redact: Callable[[str], str], retry_after: float | None = None
) -> PaletteError:
    """Translate an answer other than 2xx into an error. `what` (method and path) begins its text."""
    envelope = read_envelope(body)
    code = one_line(redact(envelope.code), _CODE_LENGTH)
    text = f"{what}: HTTP {status}"
    if code:
        text += f" {code}"
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        text += ", a redirect, which is not followed; is the URL right?"
    elif message := one_line(redact(envelope.message), MESSAGE_LENGTH):
        text += f": {message}"
    kind = _kind_of(status, envelope.code)
    if kind is NotFound and redact(envelope.message) != envelope.message:
        kind = Unauthorized  # the key itself is what was not found
    if kind is TooManyRequests or kind is ServerFailure:
        return kind(text, status=status, code=code or None, retry_after=retry_after)
    return kind(text, status=status, code=code or None)


def _kind_of(status: int, code: str) -> type[PaletteError]:
    if status < HTTPStatus.BAD_REQUEST:
        return Rejected
    if status == HTTPStatus.UNAUTHORIZED:
        return Unauthorized  # with any code: a wrong key has been answered with `ResourceNotFound`
    if known := _BY_CODE.get(code):
        return known
    if _OF_A_PROJECT.fullmatch(code):
        return ProjectUnavailable
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return ServerFailure
    if status == HTTPStatus.NOT_FOUND and code and not code.isdecimal():
        return Rejected  # a word that is not known: something else than the object may be missing
    return _BY_STATUS.get(status, Rejected)

"""The errors of an API server as clients receive them: HTTP status, reason and a `kind: Status` body."""

from __future__ import annotations

from typing import TYPE_CHECKING

from palette_sync.simulator.exchange import Answer, Json, answer_json

if TYPE_CHECKING:
    from palette_sync.simulator.kube_resources import Resource


class KubeApiError(Exception):
    """The API server rejects a request; `answer` builds the response."""

    def __init__(self, status: int, reason: str, message: str, details: Json | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.details = details or {}

    def answer(self) -> Answer:
        return answer_json(
            {
                "kind": "Status",
                "apiVersion": "v1",
                "metadata": {},
                "status": "Failure",
                "message": str(self),
                "reason": self.reason,
                "details": self.details,
                "code": self.status,
            },
            self.status,
        )


def _named(resource: Resource, name: str, kind: bool = False) -> Json:  # noqa: FBT001, FBT002 - a private detail
    details: Json = {"name": name, "kind": resource.kind if kind else resource.plural}
    if resource.group:
        details["group"] = resource.group
    return details


def bad_request(message: str) -> KubeApiError:
    return KubeApiError(400, "BadRequest", message)


def unauthorized() -> KubeApiError:
    return KubeApiError(401, "Unauthorized", "Unauthorized")


def forbidden(resource: Resource | None, name: str, message: str) -> KubeApiError:
    if resource is None:
        return KubeApiError(403, "Forbidden", message)
    quoted = f' "{name}"' if name else ""
    text = f"{resource.qualified}{quoted} is forbidden: {message}"
    return KubeApiError(403, "Forbidden", text, _named(resource, name))


def not_found(resource: Resource, name: str) -> KubeApiError:
    return KubeApiError(404, "NotFound", f'{resource.qualified} "{name}" not found', _named(resource, name))


def no_such_path() -> KubeApiError:
    return KubeApiError(404, "NotFound", "the server could not find the requested resource")


def method_not_allowed() -> KubeApiError:
    return KubeApiError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")


def already_exists(resource: Resource, name: str) -> KubeApiError:
    return KubeApiError(409, "AlreadyExists", f'{resource.qualified} "{name}" already exists', _named(resource, name))


def conflict(resource: Resource, name: str, why: str) -> KubeApiError:
    text = f'Operation cannot be fulfilled on {resource.qualified} "{name}": {why}'
    return KubeApiError(409, "Conflict", text, _named(resource, name))


def unsupported_media_type(content_type: str) -> KubeApiError:
    text = (
        f"the body of the request was in an unknown format - accepted media types include: "
        f"application/merge-patch+json (received {content_type})"
    )
    return KubeApiError(415, "UnsupportedMediaType", text)


def invalid(resource: Resource, name: str, field: str, why: str, cause: str = "FieldValueInvalid") -> KubeApiError:
    details = _named(resource, name, kind=True)
    details["causes"] = [{"reason": cause, "message": why, "field": field}]
    qualified = f"{resource.kind}.{resource.group}" if resource.group else resource.kind
    return KubeApiError(422, "Invalid", f'{qualified} "{name}" is invalid: {field}: {why}', details)

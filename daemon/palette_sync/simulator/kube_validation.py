"""Validation and defaults of an API server, for the resources that palette-sync writes.

Source: kubernetes, `pkg/apis/core/validation` and `pkg/apis/rbac/validation`.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING

from palette_sync.simulator import kube_errors as errors
from palette_sync.simulator.kube_resources import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    RBAC_GROUP,
    ROLE_BINDINGS,
    ROLES,
    SECRETS,
    Resource,
)

if TYPE_CHECKING:
    from palette_sync.simulator.exchange import Json

SERVICE_ACCOUNT_TOKEN = "kubernetes.io/service-account-token"  # noqa: S105 - a Secret type
SERVICE_ACCOUNT_ANNOTATION = "kubernetes.io/service-account.name"
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_MAX_NAME = 253


def check_identity(resource: Resource, body: Json, namespace: str, name: str) -> None:
    """Reject a body whose kind, name or namespace differs from the path, and fill in missing ones."""
    for field, want in (("kind", resource.kind), ("apiVersion", resource.api_version)):
        have = body.setdefault(field, want)
        if have != want:
            raise errors.bad_request(f"the {field} in the data ({have}) does not match the expected {want}")
    metadata = body.setdefault("metadata", {})
    if not isinstance(metadata, dict):
        raise errors.bad_request("metadata is not an object")
    if metadata.setdefault("name", name) != name:
        raise errors.bad_request("the name of the object does not match the name on the URL")
    if not resource.namespaced:
        if metadata.pop("namespace", ""):
            raise errors.bad_request("namespace is not allowed on a cluster-scoped object")
    elif metadata.setdefault("namespace", namespace) != namespace:
        raise errors.bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )


def check_name(resource: Resource, name: str) -> None:
    if resource.group == RBAC_GROUP:
        good = bool(name) and "/" not in name and "%" not in name and name not in {".", ".."}
    else:
        good = _NAME.fullmatch(name) is not None and len(name) <= _MAX_NAME
    if not name:
        raise errors.invalid(resource, "", "metadata.name", "Required value: name or generateName is required")
    if not good:
        why = f'Invalid value: "{name[:100]}": a lowercase RFC 1123 subdomain is expected'
        raise errors.invalid(resource, name, "metadata.name", why)


def check_content(resource: Resource, name: str, new: Json, old: Json | None) -> None:
    """Check `new` and fill in its defaults. It replaces `old` (None = it is created)."""
    if resource is SECRETS:
        _check_secret(name, new, old)
    elif resource in {CLUSTER_ROLES, ROLES}:
        _check_rules(resource, name, new)
    elif resource in {CLUSTER_ROLE_BINDINGS, ROLE_BINDINGS}:
        _check_binding(resource, name, new, old)


def _check_secret(name: str, new: Json, old: Json | None) -> None:
    data = new["data"] = {**(new.get("data") or {})}
    for key, text in (new.pop("stringData", None) or {}).items():
        data[key] = base64.b64encode(str(text).encode()).decode()
    for key, value in data.items():
        try:
            base64.b64decode(value, validate=True)
        except (binascii.Error, TypeError, ValueError):
            raise errors.bad_request(f"Secret in version v1 cannot be handled: data[{key}] is not base64") from None
    if not data:
        del new["data"]
    kind = new.setdefault("type", "Opaque" if old is None else old["type"])
    if old is not None and kind != old["type"]:
        raise errors.invalid(SECRETS, name, "type", f'Invalid value: "{kind}": field is immutable')
    if old is not None and old.get("immutable") and (data != (old.get("data") or {}) or not new.get("immutable")):
        raise errors.invalid(SECRETS, name, "data", "Forbidden: field is immutable when `immutable` is set")
    annotations = new["metadata"].get("annotations") or {}
    if kind == SERVICE_ACCOUNT_TOKEN and not annotations.get(SERVICE_ACCOUNT_ANNOTATION):
        field = f"metadata.annotations[{SERVICE_ACCOUNT_ANNOTATION}]"
        raise errors.invalid(SECRETS, name, field, "Required value", "FieldValueRequired")


def _check_rules(resource: Resource, name: str, new: Json) -> None:
    rules = new.setdefault("rules", None)
    if rules is not None and not isinstance(rules, list):
        raise errors.bad_request("rules is not a list")
    for index, rule in enumerate(rules or ()):
        if not rule.get("verbs"):
            field = f"rules[{index}].verbs"
            raise errors.invalid(resource, name, field, "Required value: verbs must contain at least one value")
        if rule.get("nonResourceURLs"):
            continue
        for part in ("apiGroups", "resources"):
            if not rule.get(part):
                why = "Required value: resource rules must supply at least one api group and resource"
                raise errors.invalid(resource, name, f"rules[{index}].{part}", why)


def _check_binding(resource: Resource, name: str, new: Json, old: Json | None) -> None:
    role = new.get("roleRef")
    if not isinstance(role, dict) or not role.get("name") or role.get("kind") not in {"ClusterRole", "Role"}:
        raise errors.invalid(resource, name, "roleRef", "Required value: kind and name of a role")
    role.setdefault("apiGroup", RBAC_GROUP)
    if old is not None and role != old["roleRef"]:
        raise errors.invalid(resource, name, "roleRef", "Invalid value: cannot change roleRef")
    for index, subject in enumerate(new.get("subjects") or ()):
        kind = subject.get("kind")
        if kind not in {"User", "Group", "ServiceAccount"}:
            raise errors.invalid(resource, name, f"subjects[{index}].kind", f'Unsupported value: "{kind}"')
        if kind == "ServiceAccount" and not subject.get("namespace"):
            raise errors.invalid(resource, name, f"subjects[{index}].namespace", "Required value")
        if kind != "ServiceAccount":
            subject.setdefault("apiGroup", RBAC_GROUP)

"""The five objects between JSON and the values that decisions are made of. Secrets' data goes no further than here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from palette_sync.core.model import MANAGED_BY
from palette_sync.core.plan import (
    MANAGED_BY_LABEL,
    SERVICE_ACCOUNT_ANNOTATION,
    Action,
    Kind,
    Meta,
    ObservedBinding,
    ObservedNamespace,
    ObservedRole,
    ObservedSecret,
    ObservedServiceAccount,
)
from palette_sync.core.rbac import PolicyRule
from palette_sync.kube.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from palette_sync.core.plan import Desired

Document = dict[str, Any]
RBAC_GROUP = "rbac.authorization.k8s.io"


def meta_of(document: Document) -> Meta:
    """Raises Malformed where an object has no uid or resourceVersion: it could not be written safely."""
    metadata = _metadata(document)
    uid, version = metadata.get("uid"), metadata.get("resourceVersion")
    if not isinstance(uid, str) or not isinstance(version, str):
        raise Malformed("an object without uid or resourceVersion")
    return Meta(uid, version, _strings(metadata.get("labels")))


def namespace_of(document: Document) -> ObservedNamespace:
    phase = section(document, "status").get("phase")
    terminating = phase == "Terminating" or _metadata(document).get("deletionTimestamp") is not None
    return ObservedNamespace(meta_of(document), terminating=terminating)


def service_account_of(document: Document) -> ObservedServiceAccount:
    return ObservedServiceAccount(meta_of(document))


def secret_of(document: Document) -> ObservedSecret:
    """What matters of a Secret; its values are not kept."""
    metadata, data = _metadata(document), section(document, "data")
    return ObservedSecret(
        name=str(metadata.get("name", "")),
        meta=meta_of(document),
        type=str(document.get("type", "")),
        service_account=_strings(metadata.get("annotations")).get(SERVICE_ACCOUNT_ANNOTATION),
        has_token=bool(data.get("token")),
        empty=not data,
    )


def role_of(document: Document) -> ObservedRole:
    return ObservedRole(meta_of(document), tuple(map(_rule_of, _objects(document, "rules"))))


def binding_of(document: Document) -> ObservedBinding:
    role = section(document, "roleRef")
    subjects = frozenset(
        (str(one.get("kind", "")), str(one.get("namespace", "")), str(one.get("name", "")))
        for one in _objects(document, "subjects")
    )
    return ObservedBinding(meta_of(document), (str(role.get("kind", "")), str(role.get("name", ""))), subjects)


def _rule_of(rule: Document) -> PolicyRule:
    return PolicyRule(
        api_groups=_words(rule, "apiGroups"),
        resources=_words(rule, "resources"),
        verbs=_words(rule, "verbs"),
        resource_names=_words(rule, "resourceNames"),
        non_resource_urls=_words(rule, "nonResourceURLs"),
    )


def items_of(document: Document) -> list[Document]:
    """The objects of a list answer. Raises Malformed."""
    return _objects(document, "items")


def _metadata(document: Document) -> Document:
    return section(document, "metadata")


def section(document: Document, key: str) -> Document:
    """A part that is an object, or absent. Raises Malformed: whoever answers may be no Kubernetes at all."""
    value = document.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Malformed(f"an object whose {key} is none")
    return value


def _objects(document: Document, key: str) -> list[Document]:
    value = document.get(key)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise Malformed(f"an object whose {key} is no list of objects")
    return value


def _words(document: Document, key: str) -> tuple[str, ...]:
    value = document.get(key)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise Malformed(f"an object whose {key} is no list of words")
    return tuple(value)


def _strings(value: object) -> Mapping[str, str]:
    return {str(key): str(text) for key, text in value.items()} if isinstance(value, dict) else {}


def body_of(desired: Desired, action: Action) -> Document:
    """The object that a create action posts."""
    body: Document = {"metadata": {"name": action.name, "labels": _labels(action)}}
    match action.kind:
        case Kind.NAMESPACE:
            return {"apiVersion": "v1", "kind": "Namespace", **body}
        case Kind.SERVICE_ACCOUNT:
            body["metadata"]["namespace"] = desired.namespace
            return {"apiVersion": "v1", "kind": "ServiceAccount", "automountServiceAccountToken": False, **body}
        case Kind.SECRET:
            body["metadata"]["namespace"] = desired.namespace
            if desired.token_source == "secret":  # noqa: S105 - a mode's name
                body["metadata"]["annotations"] = {SERVICE_ACCOUNT_ANNOTATION: desired.service_account}
            return {"apiVersion": "v1", "kind": "Secret", "type": desired.secret_type, **body}
        case Kind.CLUSTER_ROLE:
            return {"apiVersion": f"{RBAC_GROUP}/v1", "kind": "ClusterRole", "rules": _rules(desired), **body}
        case Kind.CLUSTER_ROLE_BINDING:
            role = {"apiGroup": RBAC_GROUP, "kind": "ClusterRole", "name": desired.cluster_role}
            kind = {"apiVersion": f"{RBAC_GROUP}/v1", "kind": "ClusterRoleBinding"}
            return {**kind, "roleRef": role, "subjects": _subjects(desired), **body}
    raise AssertionError(action.kind)


def patch_of(desired: Desired, action: Action) -> Document:
    """The merge patch of an update action; its resourceVersion makes the API server refuse a stale one with 409."""
    assert action.meta is not None
    patch: Document = {"metadata": {"resourceVersion": action.meta.resource_version, "labels": _labels(action)}}
    if action.kind is Kind.CLUSTER_ROLE:
        patch["rules"] = _rules(desired)
        patch["aggregationRule"] = None
    elif action.kind is Kind.CLUSTER_ROLE_BINDING:
        patch["subjects"] = _subjects(desired)
    return patch


def preconditions_of(action: Action) -> Document:
    """DeleteOptions that delete exactly the object that was looked at."""
    assert action.meta is not None
    preconditions = {"uid": action.meta.uid, "resourceVersion": action.meta.resource_version}
    return {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": preconditions}


def _labels(action: Action) -> dict[str, str]:
    return {MANAGED_BY_LABEL: MANAGED_BY, **action.labels}


def _rules(desired: Desired) -> list[Document]:
    keys = {
        "apiGroups": "api_groups",
        "resources": "resources",
        "verbs": "verbs",
        "resourceNames": "resource_names",
        "nonResourceURLs": "non_resource_urls",
    }
    return [
        {key: list(getattr(rule, attribute)) for key, attribute in keys.items() if getattr(rule, attribute)}
        for rule in desired.rules
    ]


def _subjects(desired: Desired) -> list[Document]:
    return [{"kind": "ServiceAccount", "name": desired.service_account, "namespace": desired.namespace}]

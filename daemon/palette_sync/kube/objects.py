"""Translate the five objects between JSON and values. The data of Secrets does not leave this module."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from palette_sync.core.objects import (
    MARKS,
    SERVICE_ACCOUNT_ANNOTATION,
    Kind,
    Meta,
    ObservedBinding,
    ObservedNamespace,
    ObservedRole,
    ObservedSecret,
    ObservedServiceAccount,
    Wanted,
)
from palette_sync.core.rbac import PolicyRule
from palette_sync.core.reasons import Reason
from palette_sync.kube.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from palette_sync.core.plan import Action

Document = dict[str, Any]
RBAC_GROUP = "rbac.authorization.k8s.io"
# Names of Secrets and uids are stored in Redis, so they must have the form that Kubernetes gives them: DNS-1123
# subdomains of at most 253 characters, and UUIDs. A resourceVersion is opaque.
MOST_OBJECTS = 200  # of one list, or entries of one object; of our Secrets there are a few
LONGEST_VERSION = 128
_UID = re.compile(r"[A-Za-z0-9-]{1,64}")
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")


def meta_of(document: Document) -> Meta:
    """Raises Malformed for an object without uid or resourceVersion: it could not be written safely."""
    metadata = _metadata(document)
    uid, version = metadata.get("uid"), metadata.get("resourceVersion")
    if not isinstance(uid, str) or not isinstance(version, str):
        raise Malformed("an object without uid or resourceVersion")
    if not _UID.fullmatch(uid) or not 0 < len(version) <= LONGEST_VERSION:
        raise Malformed("an object whose uid or resourceVersion is not one of Kubernetes")
    return Meta(uid, version, _strings(metadata.get("labels")), _strings(metadata.get("annotations")))


def namespace_of(document: Document) -> ObservedNamespace:
    phase = section(document, "status").get("phase")
    terminating = phase == "Terminating" or _metadata(document).get("deletionTimestamp") is not None
    return ObservedNamespace(meta_of(document), terminating=terminating)


def service_account_of(document: Document) -> ObservedServiceAccount:
    automount = document.get("automountServiceAccountToken")
    return ObservedServiceAccount(meta_of(document), automount if isinstance(automount, bool) else None)


def secret_of(document: Document) -> ObservedSecret:
    """A Secret without its values."""
    meta, name = meta_of(document), _metadata(document).get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise Malformed("a Secret whose name is not one of Kubernetes")
    return ObservedSecret(
        name=name,
        meta=meta,
        type=str(document.get("type", "")),
        service_account=meta.annotations.get(SERVICE_ACCOUNT_ANNOTATION),
        empty=not section(document, "data"),
        created_at=created_at(document),
    )


def created_at(document: Document) -> datetime | None:
    """When the object was made, by the cluster's clock; None where it does not say."""
    text = _metadata(document).get("creationTimestamp")
    return time_in(text) if isinstance(text, str) else None


def time_in(text: str) -> datetime:
    """A time of the API server, in whole seconds. Raises Malformed."""
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=moment.tzinfo or UTC, microsecond=0).astimezone(UTC)
    except (ValueError, OverflowError):
        raise Malformed("the API server returned an invalid time") from None


def role_of(document: Document) -> ObservedRole:
    rules = tuple(map(_rule_of, _objects(document, "rules")))
    return ObservedRole(meta_of(document), rules, aggregated=bool(document.get("aggregationRule")))


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
    """A part that is an object, or absent. Raises Malformed: the server may not be Kubernetes at all."""
    value = document.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Malformed(f"an object whose {key} is not an object")
    return value


def _objects(document: Document, key: str) -> list[Document]:
    value = document.get(key)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise Malformed(f"an object whose {key} is not a list of objects")
    if len(value) > MOST_OBJECTS:
        raise Malformed(f"an object with more than {MOST_OBJECTS} {key}")
    return value


def _words(document: Document, key: str) -> tuple[str, ...]:
    value = document.get(key)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise Malformed(f"an object whose {key} is not a list of strings")
    return tuple(value)


def _strings(value: object) -> Mapping[str, str]:
    return {str(key): str(text) for key, text in value.items()} if isinstance(value, dict) else {}


def body_of(wanted: Wanted) -> Document:
    """The object to create."""
    metadata: Document = {"name": wanted.name, "labels": dict(wanted.labels)}
    if wanted.annotations:
        metadata["annotations"] = dict(wanted.annotations)
    if wanted.namespace is not None:
        metadata["namespace"] = wanted.namespace
    group = "v1" if wanted.kind in _CORE else f"{RBAC_GROUP}/v1"
    body: Document = {"apiVersion": group, "kind": wanted.kind.value, "metadata": metadata}
    if wanted.automount is not None:
        body["automountServiceAccountToken"] = wanted.automount
    if wanted.type is not None:
        body["type"] = wanted.type
    if wanted.kind is Kind.CLUSTER_ROLE:
        body["rules"] = _rules(wanted)
    if wanted.role is not None:
        body["roleRef"] = {"apiGroup": RBAC_GROUP, "kind": wanted.role[0], "name": wanted.role[1]}
        body["subjects"] = _subjects(wanted)
    return body


_CORE = frozenset({Kind.NAMESPACE, Kind.SERVICE_ACCOUNT, Kind.SECRET})


def patch_of(action: Action) -> Document:
    """The merge patch of an update. Its resourceVersion makes the API server refuse a stale one with 409."""
    assert action.meta is not None
    assert action.wanted is not None
    wanted = action.wanted
    metadata: Document = {"resourceVersion": action.meta.resource_version, "labels": dict(wanted.labels)}
    if wanted.annotations:
        metadata["annotations"] = dict(wanted.annotations)
    patch: Document = {"metadata": metadata}
    if wanted.kind is Kind.CLUSTER_ROLE:
        patch["rules"] = _rules(wanted)
        patch["aggregationRule"] = None
    elif wanted.kind is Kind.CLUSTER_ROLE_BINDING:
        patch["subjects"] = _subjects(wanted)
    elif action.reason is Reason.ACCOUNT_DRIFTED:
        patch["automountServiceAccountToken"] = wanted.automount
    return patch


def hand_back_patch_of(action: Action) -> Document:
    """The merge patch that takes our labels off an object."""
    assert action.meta is not None
    labels = {label: None for label in MARKS if label in action.meta.labels}
    return {"metadata": {"resourceVersion": action.meta.resource_version, "labels": labels}}


def preconditions_of(action: Action) -> Document:
    """DeleteOptions that delete exactly the object that was looked at."""
    assert action.meta is not None
    preconditions = {"uid": action.meta.uid, "resourceVersion": action.meta.resource_version}
    return {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": preconditions}


def _rules(wanted: Wanted) -> list[Document]:
    keys = {
        "apiGroups": "api_groups",
        "resources": "resources",
        "verbs": "verbs",
        "resourceNames": "resource_names",
        "nonResourceURLs": "non_resource_urls",
    }
    return [
        {key: list(getattr(rule, attribute)) for key, attribute in keys.items() if getattr(rule, attribute)}
        for rule in wanted.rules
    ]


def _subjects(wanted: Wanted) -> list[Document]:
    return [{"kind": kind, "name": name, "namespace": namespace} for kind, namespace, name in sorted(wanted.subjects)]

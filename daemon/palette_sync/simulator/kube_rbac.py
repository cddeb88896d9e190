"""Authorisation by RBAC, as an API server evaluates the roles and bindings of its cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from palette_sync.simulator.kube_resources import CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, ROLE_BINDINGS, ROLES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from palette_sync.simulator.exchange import Json
    from palette_sync.simulator.kube_store import KubeStore
    from palette_sync.simulator.kube_tokens import User

SUPERUSERS = "system:masters"


@dataclass(frozen=True, slots=True)
class Attributes:
    """What a request wants to do: a verb on a resource, or on a non-resource path (`url`)."""

    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    url: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    allowed: bool
    reason: str = ""


def decide(store: KubeStore, user: User, attributes: Attributes) -> Verdict:
    """Decide whether `user` may do what `attributes` describe, and name the binding that allows it."""
    if SUPERUSERS in user.groups:
        return Verdict(allowed=True)
    for binding in store.list(CLUSTER_ROLE_BINDINGS):
        if _binds(binding, user, "") and _allows(_rules(store, binding, ""), attributes):
            return Verdict(allowed=True, reason=_because("ClusterRoleBinding", binding, user))
    if attributes.namespace:
        for binding in store.list(ROLE_BINDINGS, attributes.namespace):
            rules = _rules(store, binding, attributes.namespace)
            if _binds(binding, user, attributes.namespace) and _allows(rules, attributes):
                return Verdict(allowed=True, reason=_because("RoleBinding", binding, user))
    return Verdict(allowed=False)


def _binds(binding: Json, user: User, namespace: str) -> bool:
    for subject in binding.get("subjects") or ():
        kind, name = subject.get("kind"), subject.get("name")
        if kind == "Group" and name in user.groups:
            return True
        if kind == "User" and name == user.name:
            return True
        if kind == "ServiceAccount" and (subject.get("namespace") or namespace, name) == user.service_account:
            return True
    return False


def _rules(store: KubeStore, binding: Json, namespace: str) -> Iterable[Any]:
    reference = binding["roleRef"]
    if reference["kind"] == "ClusterRole":
        role = store.find(CLUSTER_ROLES, "", reference["name"])
    else:
        role = store.find(ROLES, namespace, reference["name"])
    return (role or {}).get("rules") or ()


def _allows(rules: Iterable[Json], wanted: Attributes) -> bool:
    return any(_rule_allows(rule, wanted) for rule in rules)


def _rule_allows(rule: Json, wanted: Attributes) -> bool:
    if not {"*", wanted.verb} & set(rule.get("verbs") or ()):
        return False
    if wanted.url:
        return any(_url_matches(pattern, wanted.url) for pattern in rule.get("nonResourceURLs") or ())
    names = rule.get("resourceNames")
    return (
        bool({"*", wanted.group} & set(rule.get("apiGroups") or ()))
        and bool(set(_resource_patterns(wanted)) & set(rule.get("resources") or ()))
        and (not names or wanted.name in names)
    )


def _resource_patterns(wanted: Attributes) -> Iterator[str]:
    yield "*"
    if wanted.subresource:
        yield f"*/{wanted.subresource}"
        yield f"{wanted.resource}/{wanted.subresource}"
    else:
        yield wanted.resource


def _url_matches(pattern: str, url: str) -> bool:
    return url.startswith(pattern[:-1]) if pattern.endswith("*") else url == pattern


def _because(kind: str, binding: Json, user: User) -> str:
    role = binding["roleRef"]
    account = user.service_account
    subject = f'ServiceAccount "{account[1]}/{account[0]}"' if account else f'User "{user.name}"'
    name = binding["metadata"]["name"]
    return f'RBAC: allowed by {kind} "{name}" of {role["kind"]} "{role["name"]}" to {subject}'

"""Escalation prevention: nobody grants rights that he does not hold.

An API server checks each role and binding that is written, besides the right to write it: the user holds every right
of the role, or has the verb `escalate` on the role (for a binding: `bind`).
https://kubernetes.io/docs/reference/access-authn-authz/rbac/#privilege-escalation-prevention-and-bootstrapping
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

from palette_sync.simulator import kube_errors as errors
from palette_sync.simulator import kube_rbac
from palette_sync.simulator.kube_rbac import Attributes
from palette_sync.simulator.kube_resources import CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, ROLE_BINDINGS, ROLES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from palette_sync.simulator.exchange import Json
    from palette_sync.simulator.kube_resources import Target
    from palette_sync.simulator.kube_store import KubeStore
    from palette_sync.simulator.kube_tokens import User


def refuse_escalation(store: KubeStore, user: User, target: Target, wanted: Json) -> None:
    """Raise Forbidden if `wanted` grants more than `user` holds: a role or a binding as it would stand after the write.

    `escalate` is asked for the name in the path. A creation has none there, so `resourceNames` cannot allow it.
    """
    resource, namespace = target.resource, target.namespace
    if resource in (CLUSTER_ROLES, ROLES):
        verb, role, rules = "escalate", resource, wanted.get("rules") or []
        role_name = target.name
    elif resource in (CLUSTER_ROLE_BINDINGS, ROLE_BINDINGS):
        reference = wanted.get("roleRef") or {}
        verb, role = "bind", CLUSTER_ROLES if reference.get("kind") == "ClusterRole" else ROLES
        role_name = reference.get("name", "")
        rules = (store.find(role, namespace if role is ROLES else "", role_name) or {}).get("rules") or []
    else:
        return
    if kube_rbac.decide(store, user, Attributes(verb, role.group, role.plural, "", namespace, role_name)).allowed:
        return
    missing = [rule for rule in rules if not _held(store, user, namespace, rule)]
    if missing:
        groups = " ".join(f'"{group}"' for group in sorted(user.groups))
        who = f'user "{user.name}" (groups=[{groups}])'
        shown = "\n".join(_shown(rule) for rule in missing)
        why = f"{who} is attempting to grant RBAC permissions not currently held:\n{shown}"
        raise errors.forbidden(resource, (wanted.get("metadata") or {}).get("name", ""), why)


def _held(store: KubeStore, user: User, namespace: str, rule: Json) -> bool:
    return all(kube_rbac.decide(store, user, one).allowed for one in _atoms(rule, namespace))


def _atoms(rule: Json, namespace: str) -> Iterator[Attributes]:
    """Every single right of a rule. A `*` in it is held only by who holds `*`."""
    verbs = rule.get("verbs") or []
    for verb, url in product(verbs, rule.get("nonResourceURLs") or []):
        yield Attributes(verb, url=url)
    groups, patterns, names = (
        rule.get("apiGroups") or [],
        rule.get("resources") or [],
        rule.get("resourceNames") or [""],
    )
    for verb, group, pattern, name in product(verbs, groups, patterns, names):
        plural, _, subresource = pattern.partition("/")
        yield Attributes(verb, group, plural, subresource, namespace, name)


_WORDS = (
    ("APIGroups", "apiGroups"),
    ("Resources", "resources"),
    ("ResourceNames", "resourceNames"),
    ("NonResourceURLs", "nonResourceURLs"),
    ("Verbs", "verbs"),
)


def _shown(rule: Json) -> str:
    parts = []
    for shown, key in _WORDS:
        if rule.get(key):
            values = " ".join(f'"{value}"' for value in rule[key])
            parts.append(f"{shown}:[{values}]")
    return "{" + ", ".join(parts) + "}"

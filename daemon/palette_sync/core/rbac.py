"""What Backstage may read in a cluster: rules, the two presets, and the dangers of wide rules. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ANY = "*"
READ = ("get", "list", "watch")


@dataclass(frozen=True, slots=True, order=True)
class PolicyRule:
    """One rule of a ClusterRole. The core API group is the empty string."""

    api_groups: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ()
    resource_names: tuple[str, ...] = ()
    non_resource_urls: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AccessProbe:
    """The question of a SelfSubjectAccessReview that the rules must answer with yes.

    `resource` may name a subresource (`pods/log`); `name` narrows it to one object. With `path` it asks for a
    non-resource URL, and group and resource are empty.
    """

    group: str
    resource: str
    verb: str
    name: str = ""
    path: str = ""


# The in-process plugin's rules; wider than they sound (`wide_rights`).
READ_ONLY = (PolicyRule((ANY,), (ANY,), READ),)

# What Backstage's Kubernetes plugin shows, and what palette-sync reads to verify its own access. No Secrets; of
# subresources only logs, status and scale, because GET on pods/exec or nodes/proxy is as good as a shell.
VIEW = (
    PolicyRule(
        ("",),
        (
            *("configmaps", "endpoints", "events", "limitranges", "namespaces", "nodes", "persistentvolumeclaims"),
            *("persistentvolumes", "pods", "pods/log", "replicationcontrollers", "resourcequotas", "serviceaccounts"),
            *("services", "*/status", "*/scale"),
        ),
        READ,
    ),
    PolicyRule(
        ("apps",),
        ("daemonsets", "deployments", "replicasets", "statefulsets", "controllerrevisions", "*/status", "*/scale"),
        READ,
    ),
    PolicyRule(("autoscaling",), ("horizontalpodautoscalers", "*/status"), READ),
    PolicyRule(("batch",), ("cronjobs", "jobs", "*/status"), READ),
    PolicyRule(("discovery.k8s.io",), ("endpointslices",), READ),
    PolicyRule(("events.k8s.io",), ("events",), READ),
    PolicyRule(("metrics.k8s.io",), ("nodes", "pods"), READ),
    PolicyRule(("networking.k8s.io",), ("ingresses", "ingressclasses", "networkpolicies", "*/status"), READ),
    PolicyRule(("policy",), ("poddisruptionbudgets", "*/status"), READ),
    PolicyRule(("rbac.authorization.k8s.io",), ("clusterrolebindings", "clusterroles"), READ),
    PolicyRule(("storage.k8s.io",), ("storageclasses",), READ),
)

PRESETS: Mapping[str, tuple[PolicyRule, ...]] = {"read-only": READ_ONLY, "view": VIEW}


def normalise(rules: Iterable[PolicyRule]) -> frozenset[PolicyRule]:
    """Rules by meaning: order and repetition, of rules and of the words in them, do not matter."""
    return frozenset(
        PolicyRule(
            _words(rule.api_groups),
            _words(rule.resources),
            _words(rule.verbs),
            _words(rule.resource_names),
            _words(rule.non_resource_urls),
        )
        for rule in rules
    )


def allows(rules: Iterable[PolicyRule], *, group: str, resource: str, verb: str) -> bool:
    """Whether the rules allow a verb on all objects of a resource (`pods`, `pods/exec`), as Kubernetes decides it."""
    _, _, sub = resource.partition("/")
    patterns = {resource, ANY} | ({f"{ANY}/{sub}"} if sub else set())
    return any(
        {group, ANY} & set(rule.api_groups)
        and patterns & set(rule.resources)
        and {verb, ANY} & set(rule.verbs)
        and not rule.resource_names
        for rule in rules
    )


_DANGERS = (
    ("", "secrets", "get", "reads every Secret of the cluster"),
    (
        "",
        "pods/exec",
        "get",
        "allows GET on pods/exec, which before Kubernetes 1.35 runs commands in any pod over a WebSocket",
    ),
    ("", "nodes/proxy", "get", "allows GET on nodes/proxy, which reaches every kubelet"),
    ("", "services/proxy", "get", "allows GET on services/proxy, which reaches every service"),
)


# From this version on, a WebSocket to pods/exec needs `create` too (feature gate
# AuthorizePodWebsocketUpgradeCreatePermission, beta and on by default in 1.35).
_EXEC_NEEDS_CREATE = (1, 35)
_VERSION = re.compile(r"v?(\d{1,4})\.(\d{1,4})")


def wide_rights(rules: Iterable[PolicyRule], *, versions: Iterable[str | None] = ()) -> tuple[str, ...]:
    """Describe what these rules allow beyond looking at workloads.

    `versions` are those of the API servers for which the rules are meant. Without any, or with one that is unknown,
    what depends on the version is described with its condition.
    """
    rules, versions = tuple(rules), tuple(versions)
    harmless = {"pods/exec"} if versions and all(map(_refuses_exec, versions)) else set()
    found = [
        text
        for group, resource, verb, text in _DANGERS
        if resource not in harmless and allows(rules, group=group, resource=resource, verb=verb)
    ]
    writing = sorted({verb for rule in rules for verb in rule.verbs} - set(READ))
    if writing:
        found.append(f"allows more than reading: {', '.join(writing)}")
    return tuple(found)


def _refuses_exec(version: str | None) -> bool:
    found = _VERSION.match(version or "")
    return found is not None and (int(found[1]), int(found[2])) >= _EXEC_NEEDS_CREATE


def probe_of(rules: Iterable[PolicyRule]) -> AccessProbe:
    """A question that the rules answer with yes: listing pods if they allow it, else the first thing they allow."""
    rules = tuple(rules)
    pods = AccessProbe("", "pods", "list")
    if allows(rules, group="", resource="pods", verb="list"):
        return pods
    return next((probe for probe in map(_probe, rules) if probe is not None), pods)


def _probe(rule: PolicyRule) -> AccessProbe | None:
    if not rule.verbs:
        return None
    verb = "get" if rule.verbs[0] == ANY else rule.verbs[0]
    if rule.api_groups and rule.resources:
        resource = "pods" if rule.resources[0] == ANY else rule.resources[0]
        name = rule.resource_names[0] if rule.resource_names else ""
        return AccessProbe(rule.api_groups[0], resource, verb, name=name)
    if rule.non_resource_urls:
        return AccessProbe("", "", verb, path=rule.non_resource_urls[0])
    return None


def _words(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(words)))

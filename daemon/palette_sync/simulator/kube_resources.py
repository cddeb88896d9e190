"""The resources of the simulated API servers, and the parsing of resource paths."""

from __future__ import annotations

from dataclasses import dataclass

RBAC_GROUP = "rbac.authorization.k8s.io"


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind of object. `plural` is its name in paths; objects of `virtual` kinds (reviews) are not stored."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    virtual: bool = False

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural


NAMESPACES = Resource("", "v1", "namespaces", "Namespace", namespaced=False)
SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount")
SECRETS = Resource("", "v1", "secrets", "Secret")
PODS = Resource("", "v1", "pods", "Pod")
SERVICES = Resource("", "v1", "services", "Service")
DEPLOYMENTS = Resource("apps", "v1", "deployments", "Deployment")
REPLICA_SETS = Resource("apps", "v1", "replicasets", "ReplicaSet")
CLUSTER_ROLES = Resource(RBAC_GROUP, "v1", "clusterroles", "ClusterRole", namespaced=False)
CLUSTER_ROLE_BINDINGS = Resource(RBAC_GROUP, "v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False)
ROLES = Resource(RBAC_GROUP, "v1", "roles", "Role")
ROLE_BINDINGS = Resource(RBAC_GROUP, "v1", "rolebindings", "RoleBinding")
TOKEN_REQUESTS = Resource("authentication.k8s.io", "v1", "tokenrequests", "TokenRequest", virtual=True)
ACCESS_REVIEWS = Resource(
    "authorization.k8s.io",
    "v1",
    "selfsubjectaccessreviews",
    "SelfSubjectAccessReview",
    namespaced=False,
    virtual=True,
)
SUBJECT_REVIEWS = Resource(
    "authentication.k8s.io", "v1", "selfsubjectreviews", "SelfSubjectReview", namespaced=False, virtual=True
)

RESOURCES = (
    NAMESPACES,
    SERVICE_ACCOUNTS,
    SECRETS,
    PODS,
    SERVICES,
    Resource("", "v1", "configmaps", "ConfigMap"),
    Resource("", "v1", "events", "Event"),
    Resource("", "v1", "limitranges", "LimitRange"),
    Resource("", "v1", "nodes", "Node", namespaced=False),
    Resource("", "v1", "resourcequotas", "ResourceQuota"),
    DEPLOYMENTS,
    REPLICA_SETS,
    Resource("apps", "v1", "statefulsets", "StatefulSet"),
    Resource("apps", "v1", "daemonsets", "DaemonSet"),
    Resource("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler"),
    Resource("batch", "v1", "jobs", "Job"),
    Resource("batch", "v1", "cronjobs", "CronJob"),
    Resource("networking.k8s.io", "v1", "ingresses", "Ingress"),
    CLUSTER_ROLES,
    CLUSTER_ROLE_BINDINGS,
    ROLES,
    ROLE_BINDINGS,
    ACCESS_REVIEWS,
    SUBJECT_REVIEWS,
)

_BY_PATH = {(r.group, r.version, r.plural): r for r in RESOURCES}
_BY_WORD = {word.lower(): r for r in reversed(RESOURCES) for word in (r.plural, r.kind)}
_GROUPS = {(r.group, r.version) for r in RESOURCES}


def resource_named(word: str) -> Resource:
    """Find a resource by its kind (`ClusterRole`) or plural (`clusterroles`), ignoring case. Raises KeyError."""
    return _BY_WORD[word.lower()]


@dataclass(frozen=True, slots=True)
class Target:
    """A parsed resource path. `resource` is None if this server does not know it; absent parts are empty strings."""

    group: str
    version: str
    plural: str
    resource: Resource | None
    namespace: str = ""
    name: str = ""
    subresource: str = ""


def parse_path(path: str) -> Target | None:
    """Parse a path; None if it is not the path of a resource."""
    parts = path.strip("/").split("/")
    if parts[0] == "api" and len(parts) > 2:  # noqa: PLR2004 - api, version, resource
        group, version, rest = "", parts[1], parts[2:]
    elif parts[0] == "apis" and len(parts) > 3:  # noqa: PLR2004 - apis, group, version, resource
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return None
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2 and rest[2] not in {"status", "finalize"}:  # noqa: PLR2004
        namespace, rest = rest[1], rest[2:]
    elif rest[0] == "namespaces" and len(rest) > 1:
        namespace = rest[1]
    plural, name, subresource = (*rest, "", "", "")[:3]
    return Target(group, version, plural, _BY_PATH.get((group, version, plural)), namespace, name, subresource)


def known_group(group: str, version: str) -> bool:
    return (group, version) in _GROUPS

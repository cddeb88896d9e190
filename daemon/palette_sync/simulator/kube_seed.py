"""The objects of a new cluster: system namespaces and roles as kubeadm creates them, and a small web shop.

Default roles and bindings are equal in every cluster, so all clusters share the same documents. The other objects are
created when they are first requested.
"""

from __future__ import annotations

import hashlib
import uuid
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from palette_sync.simulator import kube_resources as resources

if TYPE_CHECKING:
    from palette_sync.simulator.exchange import Json
    from palette_sync.simulator.kube_resources import Resource

CREATED = "2026-01-15T08:00:00Z"
_NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system", "shop")
_WORKLOADS = (("shop", "cart", 2), ("shop", "checkout", 2), ("default", "echo", 1))
_READ = ["get", "list", "watch"]
_VIEWED = ["pods", "services", "configmaps", "endpoints", "namespaces", "events", "serviceaccounts", "pods/log"]
_ROLES: dict[str, list[Json]] = {
    "cluster-admin": [
        {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
        {"nonResourceURLs": ["*"], "verbs": ["*"]},
    ],
    "system:basic-user": [
        {
            "apiGroups": ["authorization.k8s.io"],
            "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
            "verbs": ["create"],
        },
        {"apiGroups": ["authentication.k8s.io"], "resources": ["selfsubjectreviews"], "verbs": ["create"]},
    ],
    "system:discovery": [
        {"nonResourceURLs": ["/api", "/api/*", "/apis", "/apis/*", "/openapi", "/openapi/*"], "verbs": ["get"]}
    ],
    "system:public-info-viewer": [
        {"nonResourceURLs": ["/healthz", "/livez", "/readyz", "/version", "/version/"], "verbs": ["get"]}
    ],
    "view": [
        {"apiGroups": [""], "resources": _VIEWED, "verbs": _READ},
        {"apiGroups": ["apps"], "resources": ["deployments", "replicasets", "statefulsets"], "verbs": _READ},
    ],
}
_BINDINGS = {
    "cluster-admin": ["system:masters"],
    "system:basic-user": ["system:authenticated"],
    "system:discovery": ["system:authenticated"],
    "system:public-info-viewer": ["system:authenticated", "system:unauthenticated"],
}


def stable_uid(*words: str) -> str:
    """Return a UUID that depends only on `words`."""
    return str(uuid.UUID(bytes=hashlib.sha256("\0".join(words).encode()).digest()[:16], version=4))


def seed(cluster_uid: str, resource: Resource) -> list[Json]:
    """Return the objects of one kind in a new cluster."""
    if resource is resources.CLUSTER_ROLES:
        return list(_cluster_roles())
    if resource is resources.CLUSTER_ROLE_BINDINGS:
        return list(_cluster_role_bindings())
    if resource is resources.NAMESPACES:
        return [_namespace(cluster_uid, name) for name in _NAMESPACES]
    if resource is resources.SERVICE_ACCOUNTS:
        return [_object(resource, cluster_uid, "default", namespace) for namespace in _NAMESPACES]
    if resource is resources.DEPLOYMENTS:
        return [_deployment(cluster_uid, *workload) for workload in _WORKLOADS]
    if resource is resources.PODS:
        return [_pod(cluster_uid, ns, app, i) for ns, app, count in _WORKLOADS for i in range(count)]
    if resource is resources.SERVICES:
        return [_service(cluster_uid, namespace, app) for namespace, app, _ in _WORKLOADS]
    return []


def _object(resource: Resource, seed_word: str, name: str, namespace: str = "", **content: Any) -> Json:
    metadata: Json = {
        "name": name,
        "uid": stable_uid(seed_word, resource.plural, namespace, name),
        "resourceVersion": "100",
        "creationTimestamp": CREATED,
    }
    if namespace:
        metadata["namespace"] = namespace
    metadata.update(content.pop("metadata", {}))
    return {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": metadata, **content}


_BOOTSTRAP = {
    "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
    "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
}


@lru_cache(maxsize=1)
def _cluster_roles() -> tuple[Json, ...]:
    kind = resources.CLUSTER_ROLES
    return tuple(_object(kind, "", name, metadata=_BOOTSTRAP, rules=rules) for name, rules in _ROLES.items())


@lru_cache(maxsize=1)
def _cluster_role_bindings() -> tuple[Json, ...]:
    group = resources.RBAC_GROUP
    return tuple(
        _object(
            resources.CLUSTER_ROLE_BINDINGS,
            "",
            name,
            metadata=_BOOTSTRAP,
            roleRef={"apiGroup": group, "kind": "ClusterRole", "name": name},
            subjects=[{"apiGroup": group, "kind": "Group", "name": subject} for subject in groups],
        )
        for name, groups in _BINDINGS.items()
    )


def _namespace(cluster_uid: str, name: str) -> Json:
    return _object(
        resources.NAMESPACES,
        cluster_uid,
        name,
        metadata={"labels": {"kubernetes.io/metadata.name": name}},
        spec={"finalizers": ["kubernetes"]},
        status={"phase": "Active"},
    )


def _deployment(cluster_uid: str, namespace: str, app: str, replicas: int) -> Json:
    template = {"metadata": {"labels": {"app": app}}, "spec": {"containers": [_container(app)]}}
    return _object(
        resources.DEPLOYMENTS,
        cluster_uid,
        app,
        namespace,
        metadata={"labels": {"app": app}, "generation": 1},
        spec={"replicas": replicas, "selector": {"matchLabels": {"app": app}}, "template": template},
        status={
            "observedGeneration": 1,
            "replicas": replicas,
            "readyReplicas": replicas,
            "availableReplicas": replicas,
        },
    )


def _container(app: str) -> Json:
    return {"name": app, "image": f"registry.example/{app}:1.4.2", "resources": {}}


def _pod(cluster_uid: str, namespace: str, app: str, index: int) -> Json:
    suffix = stable_uid(cluster_uid, app, str(index))[:5]
    ready = [{"type": "Ready", "status": "True", "lastTransitionTime": CREATED}]
    return _object(
        resources.PODS,
        cluster_uid,
        f"{app}-7d4f8b6c9d-{suffix}",
        namespace,
        metadata={"labels": {"app": app, "pod-template-hash": "7d4f8b6c9d"}},
        spec={"nodeName": "node-1", "serviceAccountName": "default", "containers": [_container(app)]},
        status={"phase": "Running", "podIP": f"10.0.0.{index + 10}", "startTime": CREATED, "conditions": ready},
    )


def _service(cluster_uid: str, namespace: str, app: str) -> Json:
    return _object(
        resources.SERVICES,
        cluster_uid,
        app,
        namespace,
        metadata={"labels": {"app": app}},
        spec={"selector": {"app": app}, "type": "ClusterIP", "ports": [{"port": 80, "protocol": "TCP"}]},
        status={"loadBalancer": {}},
    )

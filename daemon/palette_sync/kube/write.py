"""Write one of the five objects, exactly as it was planned.

Creating is a POST, updating a merge patch that carries the resourceVersion, deleting carries uid and resourceVersion
(invariant 5, docs/architecture.md). Server-side apply without them would take over other people's objects silently.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from palette_sync.core.objects import Kind
from palette_sync.kube.objects import body_of, patch_of, preconditions_of
from palette_sync.kube.transport import MERGE_PATCH

if TYPE_CHECKING:
    from palette_sync.core.plan import Action
    from palette_sync.kube.transport import KubeApi


async def write(api: KubeApi, action: Action, *, namespace: str) -> None:
    """Perform one action on an object; `namespace` is where service account and Secrets live.

    Raises Conflict where the object changed since it was observed, and other KubeErrors.
    """
    what = f"{action.verb} {action.kind} {action.name}"
    if action.verb in ("replace", "delete"):
        await api.call(what, *_deletion(api, action, namespace), body=preconditions_of(action))
    if action.verb in ("replace", "create"):
        await api.call(what, *_creation(api, action, namespace))
    if action.verb == "update":
        operation, *where = _patching(api, action, namespace)
        await api.call(what, operation, *where, patch_of(action), _content_type=MERGE_PATCH)


def _creation(api: KubeApi, action: Action, namespace: str) -> tuple[Any, ...]:
    assert action.wanted is not None
    body = body_of(action.wanted)
    match action.kind:
        case Kind.NAMESPACE:
            return api.core.create_namespace, body
        case Kind.SERVICE_ACCOUNT:
            return api.core.create_namespaced_service_account, namespace, body
        case Kind.SECRET:
            return api.core.create_namespaced_secret, namespace, body
        case Kind.CLUSTER_ROLE:
            return api.rbac.create_cluster_role, body
        case Kind.CLUSTER_ROLE_BINDING:
            return api.rbac.create_cluster_role_binding, body
    raise AssertionError(action.kind)


def _patching(api: KubeApi, action: Action, namespace: str) -> tuple[Any, ...]:
    match action.kind:
        case Kind.NAMESPACE:
            return api.core.patch_namespace, action.name
        case Kind.SERVICE_ACCOUNT:
            return api.core.patch_namespaced_service_account, action.name, namespace
        case Kind.SECRET:
            return api.core.patch_namespaced_secret, action.name, namespace
        case Kind.CLUSTER_ROLE:
            return api.rbac.patch_cluster_role, action.name
        case Kind.CLUSTER_ROLE_BINDING:
            return api.rbac.patch_cluster_role_binding, action.name
    raise AssertionError(action.kind)


def _deletion(api: KubeApi, action: Action, namespace: str) -> tuple[Any, ...]:
    match action.kind:
        case Kind.SECRET:
            return api.core.delete_namespaced_secret, action.name, namespace
        case Kind.CLUSTER_ROLE_BINDING:
            return api.rbac.delete_cluster_role_binding, action.name
    raise AssertionError(action.kind)

"""Write one of the five objects, exactly as it was planned.

Creating is a POST, updating a merge patch that carries the resourceVersion, deleting carries uid and resourceVersion
(invariant 5, docs/architecture.md). Server-side apply without them would take over other people's objects silently.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from palette_sync.core.objects import Kind
from palette_sync.core.rbac import AccessProbe
from palette_sync.kube.errors import Forbidden, Invalid, KubeError, NotFound
from palette_sync.kube.objects import body_of, hand_back_patch_of, patch_of, preconditions_of
from palette_sync.kube.tokens import review
from palette_sync.kube.transport import MERGE_PATCH

if TYPE_CHECKING:
    from collections.abc import Sequence

    from palette_sync.core.actions import Action
    from palette_sync.core.objects import Desired
    from palette_sync.kube.transport import KubeApi


async def write(api: KubeApi, action: Action, *, namespace: str, dry_run: bool = False) -> None:
    """Perform one action on an object; `namespace` is where service account and Secrets live.

    With `dry_run` the API server authorises, admits and validates the write, and keeps nothing of it; of a replacement
    only the deletion is asked for. Raises Conflict where the object changed since it was observed, other KubeErrors.
    """
    what = f"{action.verb} {action.kind} {action.name}"
    options: dict[str, Any] = {"dry_run": "All"} if dry_run else {}
    if action.verb in ("replace", "delete"):
        await api.call(what, *_deletion(api, action, namespace), body=preconditions_of(action), **options)
    if action.verb == "create" or (action.verb == "replace" and not dry_run):
        await api.call(what, *_creation(api, action, namespace), **options)
    if action.verb == "update":
        operation, *where = _patching(api, action, namespace)
        await api.call(what, operation, *where, patch_of(action), _content_type=MERGE_PATCH, **options)
    if action.verb == "hand back":
        operation, *where = _patching(api, action, namespace)
        await api.call(what, operation, *where, hand_back_patch_of(action), _content_type=MERGE_PATCH, **options)


async def rehearse(api: KubeApi, actions: Sequence[Action], desired: Desired) -> None:
    """Ask the API server whether it would take these writes, one after another, without making any.

    For what lives in a namespace that does not exist yet, and for a token, it is asked whether the right is there. What
    depends in another way on an object that these writes would make is passed over. Raises KubeError.
    """
    created = {action.kind for action in actions if action.verb == "create"}
    for action in actions:
        if action.kind is Kind.TOKEN or (Kind.NAMESPACE in created and action.kind in _NAMESPACED):
            await _ask_for_right(api, action, desired)
            continue
        try:
            await write(api, action, namespace=desired.namespace, dry_run=True)
        except NotFound:
            if action.kind is not Kind.CLUSTER_ROLE_BINDING or Kind.CLUSTER_ROLE not in created:
                raise
        except Invalid as error:
            if _NO_DRY_RUN not in str(error):
                raise


async def _ask_for_right(api: KubeApi, action: Action, desired: Desired) -> None:
    if action.kind is Kind.TOKEN and desired.token_in_secret:
        return  # it is read from a Secret
    resource = _RESOURCES[action.kind]
    try:
        allowed = await review(api, AccessProbe("", resource, "create"))
    except KubeError:
        return  # some clusters forbid access reviews to everybody
    if not allowed:
        raise Forbidden(f"the credential may not create {resource} (access review)")


_RESOURCES = {
    Kind.SERVICE_ACCOUNT: "serviceaccounts",
    Kind.SECRET: "secrets",
    Kind.TOKEN: "serviceaccounts/token",
}
_NAMESPACED = frozenset({Kind.SERVICE_ACCOUNT, Kind.SECRET})
# An admission webhook with side effects refuses a dry run (kubernetes, `webhook/errors/statuserror.go`).
_NO_DRY_RUN = "does not support dry run"


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
        case Kind.NAMESPACE:
            return api.core.delete_namespace, action.name
        case Kind.SERVICE_ACCOUNT:
            return api.core.delete_namespaced_service_account, action.name, namespace
        case Kind.SECRET:
            return api.core.delete_namespaced_secret, action.name, namespace
        case Kind.CLUSTER_ROLE:
            return api.rbac.delete_cluster_role, action.name
        case Kind.CLUSTER_ROLE_BINDING:
            return api.rbac.delete_cluster_role_binding, action.name
    raise AssertionError(action.kind)

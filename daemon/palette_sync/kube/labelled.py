"""Find every object of palette-sync in a cluster by its label, whatever its name, and what else lives beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from palette_sync.core.objects import SERVICE_ACCOUNT_ANNOTATION, TOKEN_SECRET_TYPE, Kind
from palette_sync.core.release import LabelledObject
from palette_sync.kube.errors import Forbidden, NotFound
from palette_sync.kube.objects import items_of, meta_of, section
from palette_sync.kube.observe import OURS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from palette_sync.core.objects import Desired
    from palette_sync.kube.transport import KubeApi

_MOST_LISTED = 50  # objects of one kind that are looked at to find one of somebody else


async def find_labelled(api: KubeApi, desired: Desired) -> tuple[LabelledObject, ...]:
    """Return all that carry our label: cluster-wide kinds, and what lives in the configured or a labelled namespace.

    Of a cluster-wide kind that may not be listed, only the object of the configured name is looked at. What is being
    deleted is left out. Raises KubeError.
    """
    core, rbac = api.core, api.rbac
    spaces = await _all(api, Kind.NAMESPACE, core.list_namespace, core.read_namespace, desired.namespace)
    role, binding = desired.cluster_role, desired.cluster_role_binding
    found = [
        *spaces,
        *await _all(api, Kind.CLUSTER_ROLE, rbac.list_cluster_role, rbac.read_cluster_role, role),
        *await _all(
            api,
            Kind.CLUSTER_ROLE_BINDING,
            rbac.list_cluster_role_binding,
            rbac.read_cluster_role_binding,
            binding,
        ),
    ]
    for namespace in sorted({desired.namespace, *(one.name for one in spaces)}):
        for kind, operation in (
            (Kind.SECRET, core.list_namespaced_secret),
            (Kind.SERVICE_ACCOUNT, core.list_namespaced_service_account),
        ):
            listed = await api.call(f"GET {kind} of ours", operation, namespace, label_selector=OURS)
            found += _labelled(kind, items_of(listed))
    return tuple(one for one in found if one.meta.ours)


async def find_others(api: KubeApi, desired: Desired, namespaces: list[str]) -> dict[str, str]:
    """Return, by namespace, the name of an object of somebody else in it, where there is one. Raises KubeError.

    What the cluster itself puts into every namespace does not count. What may not be listed counts as somebody's.
    """
    found = {}
    for namespace in namespaces:
        for kind, operation in (
            ("Pod", api.core.list_namespaced_pod),
            ("ConfigMap", api.core.list_namespaced_config_map),
            ("Secret", api.core.list_namespaced_secret),
            ("ServiceAccount", api.core.list_namespaced_service_account),
            ("Service", api.core.list_namespaced_service),
            ("PersistentVolumeClaim", api.core.list_namespaced_persistent_volume_claim),
            ("RoleBinding", api.rbac.list_namespaced_role_binding),
        ):
            try:
                listed = await api.call(f"GET {kind}", operation, namespace, limit=_MOST_LISTED)
            except NotFound:
                continue  # the server has no such kind, or the namespace is gone
            except Forbidden:
                found[namespace] = f"perhaps a {kind}, which may not be listed,"
                break
            foreign = [item for item in items_of(listed) if not _comes_with(kind, item, desired)]
            if foreign:
                found[namespace] = f"{kind} {section(foreign[0], 'metadata').get('name', '')}"
                break
    return found


def _comes_with(kind: str, item: dict[str, Any], desired: Desired) -> bool:
    """Whether an object is ours, or one that the cluster makes in each namespace and for each service account."""
    meta = meta_of(item)
    name = str(section(item, "metadata").get("name"))
    if desired.owns(meta) or (kind, name) in {("ConfigMap", "kube-root-ca.crt"), ("ServiceAccount", "default")}:
        return True
    account = meta.annotations.get(SERVICE_ACCOUNT_ANNOTATION)
    return item.get("type") == TOKEN_SECRET_TYPE and account in {"default", desired.service_account}


async def _all(
    api: KubeApi,
    kind: Kind,
    listing: Callable[..., Awaitable[Any]],
    reading: Callable[..., Awaitable[Any]],
    name: str,
) -> list[LabelledObject]:
    try:
        items = items_of(await api.call(f"GET {kind} of ours", listing, label_selector=OURS))
    except Forbidden:
        try:
            items = [await api.call(f"GET {kind} {name}", reading, name)]
        except NotFound:
            items = []
    return _labelled(kind, items)


def _labelled(kind: Kind, items: list[dict[str, Any]]) -> list[LabelledObject]:
    found = [(section(item, "metadata"), meta_of(item)) for item in items]
    return [
        LabelledObject(kind, str(metadata.get("name", "")), str(metadata.get("namespace") or ""), meta)
        for metadata, meta in found
        if metadata.get("deletionTimestamp") is None
    ]

"""Read the five objects that give access to a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from palette_sync.core.model import MANAGED_BY
from palette_sync.core.objects import MANAGED_BY_LABEL, Kind, Observed, ObservedSecret
from palette_sync.kube.errors import Forbidden, NotFound
from palette_sync.kube.objects import binding_of, items_of, namespace_of, role_of, secret_of, service_account_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from palette_sync.core.objects import Desired
    from palette_sync.kube.transport import KubeApi

OURS = f"{MANAGED_BY_LABEL}={MANAGED_BY}"


class _Reader:
    """Reads single objects. An absent one is None. If `lenient`, kinds that may not be read are collected."""

    def __init__(self, api: KubeApi, *, lenient: bool) -> None:
        self._api = api
        self._lenient = lenient
        self.unreadable: set[Kind] = set()

    async def read(
        self, kind: Kind, name: str, operation: Callable[..., Awaitable[Any]], *args: str, **kwargs: str
    ) -> Any:
        try:
            return await self._api.call(f"GET {kind} {name}", operation, *args, **kwargs)
        except NotFound:
            return None
        except Forbidden:
            if not self._lenient:
                raise
            self.unreadable.add(kind)
            return None


async def observe(api: KubeApi, desired: Desired, *, lenient: bool = False, also: Iterable[str] = ()) -> Observed:
    """Read the five objects, one after another. `lenient`: kinds that may not be read become `unreadable`.

    `also` names Secrets to look at besides ours and the first one.
    If the namespace is absent, nothing in it is requested. Raises KubeError.
    """
    reader = _Reader(api, lenient=lenient)
    found = await reader.read(Kind.NAMESPACE, desired.namespace, api.core.read_namespace, desired.namespace)
    namespace = namespace_of(found) if found is not None else None
    account = None
    secrets: tuple[ObservedSecret, ...] = ()
    if namespace is not None or Kind.NAMESPACE in reader.unreadable:
        account = await reader.read(
            Kind.SERVICE_ACCOUNT,
            desired.service_account,
            api.core.read_namespaced_service_account,
            desired.service_account,
            desired.namespace,
        )
        secrets = await _read_secrets(api, reader, desired, also)
    role = await reader.read(Kind.CLUSTER_ROLE, desired.cluster_role, api.rbac.read_cluster_role, desired.cluster_role)
    name = desired.cluster_role_binding
    binding = await reader.read(Kind.CLUSTER_ROLE_BINDING, name, api.rbac.read_cluster_role_binding, name)
    return Observed(
        namespace=namespace,
        service_account=service_account_of(account) if account is not None else None,
        secrets=secrets,
        cluster_role=role_of(role) if role is not None else None,
        cluster_role_binding=binding_of(binding) if binding is not None else None,
        unreadable=frozenset(reader.unreadable),
        now=api.server_time,
    )


async def _read_secrets(
    api: KubeApi, reader: _Reader, desired: Desired, also: Iterable[str]
) -> tuple[ObservedSecret, ...]:
    """Read our Secrets by label, and the first one by name too, because it may belong to another tool."""
    listed = await reader.read(
        Kind.SECRET, "of ours", api.core.list_namespaced_secret, desired.namespace, label_selector=OURS
    )
    secrets = [secret_of(item) for item in items_of(listed or {})]
    names = {desired.secret, *also} - {secret.name for secret in secrets}
    for name in () if Kind.SECRET in reader.unreadable else sorted(names):
        named = await reader.read(Kind.SECRET, name, api.core.read_namespaced_secret, name, desired.namespace)
        if named is not None:
            secrets.append(secret_of(named))
    return tuple(secrets)

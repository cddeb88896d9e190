"""Bring a cluster's five objects in line: observe, plan (pure), apply, and again if somebody else wrote meanwhile.

Creating is a POST, updating a merge patch that carries the resourceVersion, deleting carries uid and resourceVersion;
server-side apply without them would take over other people's objects silently.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from palette_sync.core.model import MANAGED_BY
from palette_sync.core.plan import MANAGED_BY_LABEL, Action, Kind, Observed, ObservedSecret, Plan, TokenNeed, plan
from palette_sync.core.reasons import Reason
from palette_sync.kube.errors import Blocked, Conflict, Forbidden, NamespaceTerminating, NotFound
from palette_sync.kube.objects import (
    binding_of,
    body_of,
    items_of,
    namespace_of,
    patch_of,
    preconditions_of,
    role_of,
    secret_of,
    service_account_of,
)
from palette_sync.kube.transport import MERGE_PATCH

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from datetime import datetime, timedelta

    from palette_sync.core.model import ClusterMemory
    from palette_sync.core.plan import Desired
    from palette_sync.kube.transport import KubeApi

ROUNDS = 4
OURS = f"{MANAGED_BY_LABEL}={MANAGED_BY}"


@dataclass(frozen=True, slots=True)
class Ensured:
    """What `ensure` did: the plan that held at last, and every action that was performed."""

    plan: Plan
    actions: tuple[Action, ...]


class _Reader:
    """Reads single objects; absence is None, and a refusal is remembered per kind when `lenient`."""

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
    Without the namespace nothing that lives in it is asked for. Raises KubeError.
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
    )


async def _read_secrets(
    api: KubeApi, reader: _Reader, desired: Desired, also: Iterable[str]
) -> tuple[ObservedSecret, ...]:
    """Ours by label; the first one by name too, for it may be another tool's."""
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


async def ensure(
    api: KubeApi,
    desired: Desired,
    *,
    need: TokenNeed,
    memory: ClusterMemory,
    now: datetime,
    overlap: timedelta,
    dry_run: bool = False,
) -> Ensured:
    """Observe, plan, apply; when another writer was faster, look again, at most `ROUNDS` times.

    The `issue` action of a plan is left to the caller. Raises Blocked where the plan forbids writing, Conflict where
    others kept writing, and what the API server answers.
    """
    done: list[Action] = []
    taken: set[str] = set()
    for attempt in range(ROUNDS):
        observed = await observe(api, desired, also=taken)
        decided = plan(desired, observed, need=need, memory=memory, now=now, overlap=overlap)
        if decided.blocked is not None:
            raise Blocked(decided.blocked)
        if dry_run:
            return Ensured(decided, decided.actions)
        try:
            for action in decided.actions:
                if action.kind is not Kind.TOKEN:
                    await apply(api, desired, action)
                    done.append(action)
        except (Conflict, NotFound, NamespaceTerminating):
            if attempt == ROUNDS - 1:
                raise
            if action.kind is Kind.SECRET and action.verb == "create":
                taken.add(action.name)  # perhaps by a Secret without our label, which no listing shows
            if decided.issue and not need.issue:
                # What killed the token may be repaired already, so that the next plan could not see it any more.
                need = TokenNeed(issue=True, reason=Reason.TOKEN_DEAD)
            continue
        return Ensured(decided, tuple(done))
    raise AssertionError("unreachable")


async def apply(api: KubeApi, desired: Desired, action: Action) -> None:
    """Perform one action. Raises Conflict where the object changed since it was observed."""
    what = f"{action.verb} {action.kind} {action.name}"
    if action.verb in ("replace", "delete"):
        await api.call(what, *_deletion(api, desired, action), body=preconditions_of(action))
    if action.verb in ("replace", "create"):
        await api.call(what, *_creation(api, desired, action))
    if action.verb == "update":
        operation, *where = _patching(api, desired, action)
        await api.call(what, operation, *where, patch_of(desired, action), _content_type=MERGE_PATCH)


def _creation(api: KubeApi, desired: Desired, action: Action) -> tuple[Any, ...]:
    body = body_of(desired, action)
    match action.kind:
        case Kind.NAMESPACE:
            return api.core.create_namespace, body
        case Kind.SERVICE_ACCOUNT:
            return api.core.create_namespaced_service_account, desired.namespace, body
        case Kind.SECRET:
            return api.core.create_namespaced_secret, desired.namespace, body
        case Kind.CLUSTER_ROLE:
            return api.rbac.create_cluster_role, body
        case Kind.CLUSTER_ROLE_BINDING:
            return api.rbac.create_cluster_role_binding, body
    raise AssertionError(action.kind)


def _patching(api: KubeApi, desired: Desired, action: Action) -> tuple[Any, ...]:
    match action.kind:
        case Kind.SERVICE_ACCOUNT:
            return api.core.patch_namespaced_service_account, action.name, desired.namespace
        case Kind.SECRET:
            return api.core.patch_namespaced_secret, action.name, desired.namespace
        case Kind.CLUSTER_ROLE:
            return api.rbac.patch_cluster_role, action.name
        case Kind.CLUSTER_ROLE_BINDING:
            return api.rbac.patch_cluster_role_binding, action.name
    raise AssertionError(action.kind)


def _deletion(api: KubeApi, desired: Desired, action: Action) -> tuple[Any, ...]:
    match action.kind:
        case Kind.SECRET:
            return api.core.delete_namespaced_secret, action.name, desired.namespace
        case Kind.CLUSTER_ROLE_BINDING:
            return api.rbac.delete_cluster_role_binding, action.name
    raise AssertionError(action.kind)

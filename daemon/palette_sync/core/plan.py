"""Compare what stands in a cluster with what should, and say what to do and why. Pure: nothing here acts.

| object        | missing | ours, equal | ours, drifted         | not ours, same meaning    | not ours, differs        |
|---------------|---------|-------------|-----------------------|---------------------------|--------------------------|
| Namespace     | create  | -           | -                     | used, never labelled      | -                        |
| ServiceAccount| create  | -           | -                     | label (adopt)             | -                        |
| Secret        | create  | -           | next generation       | label; legacy stays apart | Conflict                 |
| ClusterRole   | create  | -           | update (RoleDrifted)  | label (adopt)             | Conflict                 |
| Binding       | create  | -           | update, or replace    | label (adopt)             | Conflict                 |

"Not ours" is judged by the label `app.kubernetes.io/managed-by`. `adopt = "never"` makes every namesake but the
namespace a Conflict, `"always"` takes over and repairs. One Conflict blocks the whole cluster: nothing is written then.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Literal

from palette_sync.core.model import MANAGED_BY, ClusterMemory, RetiredSecret
from palette_sync.core.rbac import PolicyRule, normalise
from palette_sync.core.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime, timedelta

MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
GENERATION_LABEL = "palette-sync/generation"
LEGACY_LABEL = "palette-sync/legacy"
SERVICE_ACCOUNT_ANNOTATION = "kubernetes.io/service-account.name"
TOKEN_SECRET_TYPE = "kubernetes.io/service-account-token"
OPAQUE = "Opaque"

Adopt = Literal["never", "matching", "always"]
TokenSource = Literal["request", "secret"]
Verb = Literal["create", "update", "replace", "delete", "issue"]


class Kind(StrEnum):
    NAMESPACE = "Namespace"
    SERVICE_ACCOUNT = "ServiceAccount"
    SECRET = "Secret"
    CLUSTER_ROLE = "ClusterRole"
    CLUSTER_ROLE_BINDING = "ClusterRoleBinding"
    TOKEN = "Token"


@dataclass(frozen=True, slots=True)
class Desired:
    """What the configuration wants to stand in every cluster of an instance."""

    namespace: str
    service_account: str
    secret: str
    cluster_role: str
    cluster_role_binding: str
    rules: tuple[PolicyRule, ...]
    adopt: Adopt = "matching"
    token_source: TokenSource = "request"

    @property
    def secret_type(self) -> str:
        return OPAQUE if self.token_source == "request" else TOKEN_SECRET_TYPE


@dataclass(frozen=True, slots=True)
class Meta:
    """The part of an object's metadata that decisions and preconditions need."""

    uid: str
    resource_version: str
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def manager(self) -> str | None:
        return self.labels.get(MANAGED_BY_LABEL)

    @property
    def ours(self) -> bool:
        return self.manager == MANAGED_BY


@dataclass(frozen=True, slots=True)
class ObservedNamespace:
    meta: Meta
    terminating: bool = False


@dataclass(frozen=True, slots=True)
class ObservedServiceAccount:
    meta: Meta


@dataclass(frozen=True, slots=True)
class ObservedSecret:
    """A Secret without its data: `has_token` and `empty` say what matters of it."""

    name: str
    meta: Meta
    type: str
    service_account: str | None = None
    has_token: bool = False
    empty: bool = True

    @property
    def legacy(self) -> bool:
        return LEGACY_LABEL in self.meta.labels

    @property
    def generation(self) -> int:
        number = self.meta.labels.get(GENERATION_LABEL, "")
        return int(number) if re.fullmatch("[0-9]{1,9}", number) else 1


@dataclass(frozen=True, slots=True)
class ObservedRole:
    meta: Meta
    rules: tuple[PolicyRule, ...]


@dataclass(frozen=True, slots=True)
class ObservedBinding:
    """`role` is (kind, name) of the roleRef; `subjects` are (kind, namespace, name)."""

    meta: Meta
    role: tuple[str, str]
    subjects: frozenset[tuple[str, str, str]]


@dataclass(frozen=True, slots=True)
class Observed:
    """What stands in the cluster. `unreadable`: kinds that the credential in use may not read; they are not judged."""

    namespace: ObservedNamespace | None = None
    service_account: ObservedServiceAccount | None = None
    secrets: tuple[ObservedSecret, ...] = ()
    cluster_role: ObservedRole | None = None
    cluster_role_binding: ObservedBinding | None = None
    unreadable: frozenset[Kind] = frozenset()


@dataclass(frozen=True, slots=True)
class TokenNeed:
    """Whether a new token is wanted, and why."""

    issue: bool
    reason: Reason


@dataclass(frozen=True, slots=True)
class Action:
    """One write. `meta` holds the preconditions of update, replace and delete."""

    verb: Verb
    kind: Kind
    name: str
    reason: Reason
    message: str = ""
    meta: Meta | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Blocked:
    """Why nothing is written to a cluster."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do, in this order. `secret`: the generation that holds or binds the token; `issue`: get a new token.

    `retired`: replaced generations to remember, with the time of their end. `legacy`: a never-expiring token Secret
    of another tool stands in the cluster.
    """

    actions: tuple[Action, ...] = ()
    blocked: Blocked | None = None
    secret: str = ""
    issue: bool = False
    retired: tuple[RetiredSecret, ...] = ()
    legacy: bool = False


class _Conflict(Exception):  # never leaves this module
    pass


def plan(
    desired: Desired, observed: Observed, *, need: TokenNeed, memory: ClusterMemory, now: datetime, overlap: timedelta
) -> Plan:
    """Decide for one cluster. `work` tells which generation is published and which were retired."""
    if observed.namespace is not None and observed.namespace.terminating:
        return Plan(
            blocked=Blocked(
                Reason.NAMESPACE_TERMINATING, f"namespace {desired.namespace} is being deleted; waiting for its end"
            )
        )
    try:
        actions = [*_namespace(desired, observed), *_service_account(desired, observed)]
        lost = any(action.verb == "create" for action in actions)
        secrets = _secrets(desired, observed, need=need, memory=memory, lost=lost, now=now, overlap=overlap)
        actions += [*secrets.actions, *_cluster_role(desired, observed), *_binding(desired, observed)]
    except _Conflict as conflict:
        return Plan(blocked=Blocked(Reason.CONFLICT, str(conflict)), legacy=_legacy(desired, observed))
    issue = need.issue or lost or secrets.issue
    if issue:
        reason = need.reason if need.issue else Reason.TOKEN_DEAD
        actions.append(Action("issue", Kind.TOKEN, desired.service_account, reason))
    return Plan(
        actions=tuple(actions),
        secret=secrets.secret,
        issue=issue,
        retired=secrets.retired,
        legacy=_legacy(desired, observed),
    )


def plan_replace_legacy(desired: Desired, observed: Observed) -> tuple[Action, ...]:
    """Delete every legacy token Secret, adopted or not: only those of our service account count as such."""
    return tuple(
        Action("delete", Kind.SECRET, secret.name, Reason.LEGACY_TOKEN, "holds a token that never expires", secret.meta)
        for secret in observed.secrets
        if _is_legacy(desired, secret) and (secret.meta.ours or secret.meta.manager is None)
    )


def _stance(desired: Desired, kind: Kind, name: str, meta: Meta, *, same: bool, differs: str) -> bool:
    """Return whether an object that is not ours is to be labelled; False if it is ours. Raises _Conflict."""
    if meta.ours:
        return False
    if desired.adopt == "always":
        return True
    if meta.manager is not None:
        raise _Conflict(f"{kind} {name} is managed by {meta.manager[:63]}; rename ours, or set adopt = always")
    if desired.adopt == "never":
        raise _Conflict(f"{kind} {name} exists and is not ours; rename ours, or set adopt = matching")
    if not same:
        raise _Conflict(f"{kind} {name} exists, is not ours and {differs}; rename ours, or set adopt = always")
    return True


def _namespace(desired: Desired, observed: Observed) -> list[Action]:
    if observed.namespace is not None or Kind.NAMESPACE in observed.unreadable:
        return []
    return [Action("create", Kind.NAMESPACE, desired.namespace, Reason.MISSING)]


def _service_account(desired: Desired, observed: Observed) -> list[Action]:
    kind, name, found = Kind.SERVICE_ACCOUNT, desired.service_account, observed.service_account
    if kind in observed.unreadable:
        return []
    if found is None:
        return [Action("create", kind, name, Reason.MISSING)]
    if _stance(desired, kind, name, found.meta, same=True, differs=""):
        return [Action("update", kind, name, Reason.ADOPTED, "label it as ours", found.meta)]
    return []


def _cluster_role(desired: Desired, observed: Observed) -> list[Action]:
    kind, name, found = Kind.CLUSTER_ROLE, desired.cluster_role, observed.cluster_role
    if kind in observed.unreadable:
        return []
    if found is None:
        return [Action("create", kind, name, Reason.MISSING)]
    same = normalise(found.rules) == normalise(desired.rules)
    adopts = _stance(desired, kind, name, found.meta, same=same, differs="has other rules")
    if not same:
        return [
            Action("update", kind, name, Reason.ROLE_DRIFTED, "its rules differ from the configured ones", found.meta)
        ]
    return [Action("update", kind, name, Reason.ADOPTED, "label it as ours", found.meta)] if adopts else []


def _binding(desired: Desired, observed: Observed) -> list[Action]:
    kind, name, found = Kind.CLUSTER_ROLE_BINDING, desired.cluster_role_binding, observed.cluster_role_binding
    if kind in observed.unreadable:
        return []
    if found is None:
        return [Action("create", kind, name, Reason.MISSING)]
    same_role = found.role == (Kind.CLUSTER_ROLE.value, desired.cluster_role)
    same_subjects = found.subjects == {(Kind.SERVICE_ACCOUNT.value, desired.namespace, desired.service_account)}
    adopts = _stance(
        desired, kind, name, found.meta, same=same_role and same_subjects, differs="binds another role or subject"
    )
    if not same_role:
        # roleRef is immutable: only delete and create can change it.
        message = f"binds {found.role[0][:63]} {found.role[1][:63]}"
        return [Action("replace", kind, name, Reason.ROLE_REF_CHANGED, message, found.meta)]
    if not same_subjects:
        return [Action("update", kind, name, Reason.SUBJECTS_DRIFTED, "its subjects differ", found.meta)]
    return [Action("update", kind, name, Reason.ADOPTED, "label it as ours", found.meta)] if adopts else []


def _legacy(desired: Desired, observed: Observed) -> bool:
    return any(_is_legacy(desired, secret) for secret in observed.secrets)


def _is_legacy(desired: Desired, secret: ObservedSecret) -> bool:
    """A token Secret of our service account that another tool made: labelled by us as legacy, or not yet labelled."""
    mine = secret.type == TOKEN_SECRET_TYPE and secret.service_account == desired.service_account
    return mine and (secret.legacy or not secret.meta.ours)


def _secrets(
    desired: Desired,
    observed: Observed,
    *,
    need: TokenNeed,
    memory: ClusterMemory,
    lost: bool,
    now: datetime,
    overlap: timedelta,
) -> Plan:
    """Choose the generation behind the token; adopt, create, retire and delete Secrets around it."""
    if Kind.SECRET in observed.unreadable:
        return Plan(secret=memory.generation or desired.secret, retired=memory.retired)
    actions = _adopt_secret(desired, observed)
    taken_over = {action.name for action in actions}
    usable = sorted(
        (secret for secret in observed.secrets if _usable(desired, secret, adopted=secret.name in taken_over)),
        key=lambda secret: secret.generation,
    )
    # With the service account its token Secrets are gone too; an Opaque one still binds new tokens.
    dead = lost and desired.token_source == "secret"
    chosen = None if dead else _choose(desired, usable, need=need, memory=memory)
    # A forgotten generation (None) is no reason to issue: whether the token lives was or will be seen by using it.
    issue = chosen is None or memory.generation not in {None, chosen.name}
    if chosen is None:
        name, generation = _next_generation(desired, observed)
        reason = need.reason if need.issue and usable else Reason.SECRET_MISSING
        labels = {GENERATION_LABEL: str(generation)}
        actions.append(Action("create", Kind.SECRET, name, reason, labels=labels))
    else:
        name = chosen.name
    retired, deletions = _retire(observed, keep=name, memory=memory, now=now, overlap=overlap)
    return Plan(actions=(*actions, *deletions), secret=name, issue=issue, retired=retired)


def _adopt_secret(desired: Desired, observed: Observed) -> list[Action]:
    """Judge the unlabelled namesake of our first Secret."""
    named = next((secret for secret in observed.secrets if secret.name == desired.secret), None)
    if named is None or named.meta.ours:
        return []
    legacy = _is_legacy(desired, named)
    same = legacy or (named.type == OPAQUE and named.empty and desired.token_source == "request")
    differs = "is not a token Secret of our service account"
    _stance(desired, Kind.SECRET, named.name, named.meta, same=same, differs=differs)
    if not legacy and named.type != desired.secret_type:
        return []  # adopt = always, but a type is immutable: it is of no use and stays as it is
    if legacy:
        message = "holds a token that never expires; kept for the tool that made it"
        return [
            Action("update", Kind.SECRET, named.name, Reason.LEGACY_TOKEN, message, named.meta, {LEGACY_LABEL: "true"})
        ]
    labels = {GENERATION_LABEL: "1"}
    return [Action("update", Kind.SECRET, named.name, Reason.ADOPTED, "label it as ours", named.meta, labels)]


def _usable(desired: Desired, secret: ObservedSecret, *, adopted: bool) -> bool:
    """Whether a Secret can hold (secret mode) or bind (request mode) our token; a type is immutable."""
    if _is_legacy(desired, secret) or not (secret.meta.ours or adopted):
        return False
    if secret.type != desired.secret_type:
        return False
    return desired.token_source == "request" or secret.service_account == desired.service_account


def _choose(
    desired: Desired, usable: list[ObservedSecret], *, need: TokenNeed, memory: ClusterMemory
) -> ObservedSecret | None:
    """The generation to use; None = a new one is to be made."""
    current = next((secret for secret in usable if secret.name == memory.generation), None)
    if desired.token_source == "request" or not need.issue:
        return current or (usable[-1] if usable else None)
    if current is None:
        return usable[-1] if usable else None
    # A newer generation that was made but never published (a crash in between) is used, not a third one made.
    return next((secret for secret in usable if secret.generation > current.generation), None)


def _next_generation(desired: Desired, observed: Observed) -> tuple[str, int]:
    names = {secret.name for secret in observed.secrets}
    generation = max((secret.generation for secret in observed.secrets if secret.meta.ours), default=0) + 1
    while (name := _generation_name(desired.secret, generation)) in names:
        generation += 1
    return name, generation


def _generation_name(secret: str, generation: int) -> str:
    return secret if generation == 1 else f"{secret}-{generation}"


def _retire(
    observed: Observed, *, keep: str, memory: ClusterMemory, now: datetime, overlap: timedelta
) -> tuple[tuple[RetiredSecret, ...], list[Action]]:
    """Our generations other than `keep` end after the overlap; those whose time has come are deleted."""
    known = {(secret.name, secret.uid): secret.delete_at for secret in memory.retired}
    retired: list[RetiredSecret] = []
    deletions: list[Action] = []
    for secret in observed.secrets:
        made_here = secret.meta.ours and GENERATION_LABEL in secret.meta.labels
        if not made_here or secret.legacy or secret.name == keep:
            continue
        delete_at = known.get((secret.name, secret.meta.uid), now + overlap)
        if delete_at <= now:
            deletions.append(
                Action(
                    "delete", Kind.SECRET, secret.name, Reason.OVERLAP_OVER, "its successor is published", secret.meta
                )
            )
        else:
            retired.append(RetiredSecret(secret.name, secret.meta.uid, delete_at))
    return tuple(retired), deletions

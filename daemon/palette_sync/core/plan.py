"""Compare a cluster's objects with the wanted ones, and decide what to write and why. Pure.

| object        | missing | ours, equal | ours, differs           | not ours, same meaning   | not ours, differs       |
|---------------|---------|-------------|-------------------------|--------------------------|-------------------------|
| Namespace     | create  | -           | update (metadata)       | used, never labelled     | -                       |
| ServiceAccount| create  | -           | update                  | label (adopt)            | -                       |
| Secret        | create  | -           | update, next generation | label; legacy kept apart | Conflict                |
| ClusterRole   | create  | -           | update                  | label (adopt)            | Conflict                |
| Binding       | create  | -           | update, or replace      | label (adopt)            | Conflict                |

What each object should look like, and what counts as a difference, is in `core.objects`. "Not ours" is judged by the
label `app.kubernetes.io/managed-by`. `adopt = "never"` makes every object of the same name except the
namespace a Conflict, `"always"` takes over and repairs. One Conflict blocks the whole cluster: nothing is written then
(invariant 5, docs/architecture.md).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from palette_sync.core.model import ClusterMemory, RetiredSecret
from palette_sync.core.objects import (
    GENERATION_LABEL,
    OPAQUE,
    TOKEN_SECRET_TYPE,
    Desired,
    Kind,
    Meta,
    Observed,
    ObservedObject,
    ObservedSecret,
    Wanted,
    drift,
    meaning_drift,
    metadata_drift,
    wanted_cluster_role,
    wanted_cluster_role_binding,
    wanted_legacy_secret,
    wanted_namespace,
    wanted_secret,
    wanted_service_account,
)
from palette_sync.core.reasons import Reason

if TYPE_CHECKING:
    from datetime import datetime, timedelta

Verb = Literal["create", "update", "replace", "delete", "issue"]


@dataclass(frozen=True, slots=True)
class TokenNeed:
    """Whether a new token is needed, and why."""

    issue: bool
    reason: Reason


@dataclass(frozen=True, slots=True)
class Action:
    """One write. `meta` holds the preconditions of update, replace and delete.

    `wanted` is the object to create, update or replace; None for a deletion and for issuing a token.
    """

    verb: Verb
    kind: Kind
    name: str
    reason: Reason
    message: str = ""
    meta: Meta | None = None
    wanted: Wanted | None = None


@dataclass(frozen=True, slots=True)
class Blocked:
    """Why nothing may be written to a cluster."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The writes, in order. `secret`: the generation that holds or binds the token; `issue`: a new token is needed.

    `retired`: replaced generations and when to delete them. `legacy`: the cluster holds a token Secret of another tool
    that never expires.
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
    """Decide for one cluster. `memory` holds the published generation and the retired ones."""
    if observed.namespace is not None and observed.namespace.terminating:
        return Plan(
            blocked=Blocked(
                Reason.NAMESPACE_TERMINATING,
                f"namespace {desired.namespace} is being deleted; it is created again later",
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
    """Delete every legacy token Secret, labelled or not; only those of our service account are legacy."""
    return tuple(
        Action("delete", Kind.SECRET, secret.name, Reason.LEGACY_TOKEN, "holds a token that never expires", secret.meta)
        for secret in observed.secrets
        if _is_legacy(desired, secret) and (secret.meta.ours or secret.meta.manager is None)
    )


def _stance(desired: Desired, kind: Kind, name: str, meta: Meta, *, same: bool, differs: str) -> bool:
    """Return whether an object of somebody else is to be adopted; False if it is ours. Raises _Conflict."""
    if meta.ours:
        return False
    if desired.adopt == "always":
        return True
    if meta.manager is not None:
        raise _Conflict(
            f"{kind} {name} is managed by {meta.manager[:63]}; rename ours in [rbac], or set adopt = always"
        )
    if desired.adopt == "never":
        raise _Conflict(f"{kind} {name} exists and is not ours; rename ours in [rbac], or set adopt = matching")
    if not same:
        raise _Conflict(
            f"{kind} {name} exists, is not ours and {differs}; rename ours in [rbac], or set adopt = always"
        )
    return True


def _namespace(desired: Desired, observed: Observed) -> list[Action]:
    wanted, found = wanted_namespace(desired), observed.namespace
    if wanted.kind in observed.unreadable:
        return []
    if found is None:
        return [_creation(wanted)]
    if not found.meta.ours:
        return []  # it is used but never labelled
    differs = metadata_drift(wanted, found.meta)
    return [_update(wanted, found.meta, differs.reason, differs.message)] if differs else []


def _service_account(desired: Desired, observed: Observed) -> list[Action]:
    return _single(desired, observed, wanted_service_account(desired), observed.service_account)


def _cluster_role(desired: Desired, observed: Observed) -> list[Action]:
    return _single(desired, observed, wanted_cluster_role(desired), observed.cluster_role, "has other rules")


def _binding(desired: Desired, observed: Observed) -> list[Action]:
    wanted = wanted_cluster_role_binding(desired)
    return _single(desired, observed, wanted, observed.cluster_role_binding, "binds another role or subject")


def _single(
    desired: Desired, observed: Observed, wanted: Wanted, found: ObservedObject | None, conflict: str = ""
) -> list[Action]:
    """Decide for an object that exists once. `conflict`: how somebody else's differs; empty = any may be adopted."""
    if wanted.kind in observed.unreadable:
        return []
    if found is None:
        return [_creation(wanted)]
    same = not conflict or meaning_drift(wanted, found) is None
    adopts = _stance(desired, wanted.kind, wanted.name, found.meta, same=same, differs=conflict)
    differs = drift(wanted, found)
    if differs is None:
        return []
    if differs.reason is Reason.ROLE_REF_CHANGED:  # a roleRef is immutable: only delete and create can change it
        action = Action("replace", wanted.kind, wanted.name, differs.reason, differs.message, found.meta, wanted)
        return [action]
    if adopts and differs.reason is Reason.METADATA_DRIFTED:
        return [_update(wanted, found.meta, Reason.ADOPTED, "label it as ours")]
    return [_update(wanted, found.meta, differs.reason, differs.message)]


def _creation(wanted: Wanted, reason: Reason = Reason.MISSING) -> Action:
    return Action("create", wanted.kind, wanted.name, reason, wanted=wanted)


def _update(wanted: Wanted, meta: Meta, reason: Reason, message: str) -> Action:
    return Action("update", wanted.kind, wanted.name, reason, message, meta, wanted)


def _legacy(desired: Desired, observed: Observed) -> bool:
    return any(_is_legacy(desired, secret) for secret in observed.secrets)


def _is_legacy(desired: Desired, secret: ObservedSecret) -> bool:
    """Whether another tool made this token Secret of our service account: labelled as legacy, or not labelled yet."""
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
    # Token Secrets are deleted with their service account; an Opaque Secret still binds new tokens.
    dead = lost and desired.token_source == "secret"
    chosen = None if dead else _choose(desired, usable, need=need, memory=memory)
    # An unknown generation (None) is no reason to issue: verification shows whether the token lives.
    issue = chosen is None or memory.generation not in {None, chosen.name}
    if chosen is None:
        name, generation = _next_generation(desired, observed)
        reason = need.reason if need.issue and usable else Reason.SECRET_MISSING
        actions.append(_creation(wanted_secret(desired, name, generation), reason))
    else:
        name = chosen.name
        wanted = wanted_secret(desired, name, chosen.generation)
        if name not in taken_over and (differs := metadata_drift(wanted, chosen.meta)):
            actions.append(_update(wanted, chosen.meta, differs.reason, differs.message))
    retired, deletions = _retire(observed, keep=name, memory=memory, now=now, overlap=overlap)
    return Plan(actions=(*actions, *deletions), secret=name, issue=issue, retired=retired)


def _adopt_secret(desired: Desired, observed: Observed) -> list[Action]:
    """Decide what to do with an unlabelled Secret that has the name of our first one."""
    named = next((secret for secret in observed.secrets if secret.name == desired.secret), None)
    if named is None or named.meta.ours:
        return []
    legacy = _is_legacy(desired, named)
    same = legacy or (named.type == OPAQUE and named.empty and desired.token_source == "request")
    differs = "is not a token Secret of our service account"
    _stance(desired, Kind.SECRET, named.name, named.meta, same=same, differs=differs)
    if not legacy and named.type != desired.secret_type:
        return []  # adopt = always, but a Secret's type is immutable: it cannot be used and stays as it is
    if legacy:
        message = "holds a token that never expires; kept for the tool that made it"
        return [_update(wanted_legacy_secret(desired, named.name), named.meta, Reason.LEGACY_TOKEN, message)]
    return [_update(wanted_secret(desired, named.name, 1), named.meta, Reason.ADOPTED, "label it as ours")]


def _usable(desired: Desired, secret: ObservedSecret, *, adopted: bool) -> bool:
    """Whether a Secret can hold (secret mode) or bind (request mode) our token; a type is immutable."""
    if _is_legacy(desired, secret) or not (adopted or _is_generation(desired, secret)):
        return False
    if secret.type != desired.secret_type:
        return False
    return desired.token_source == "request" or secret.service_account == desired.service_account


def _is_generation(desired: Desired, secret: ObservedSecret) -> bool:
    """Whether a Secret of ours was made for the token; the installation may have others in the same namespace."""
    named = re.fullmatch(rf"{re.escape(desired.secret)}(-[0-9]+)?", secret.name) is not None
    return secret.meta.ours and (named or GENERATION_LABEL in secret.meta.labels)


def _choose(
    desired: Desired, usable: list[ObservedSecret], *, need: TokenNeed, memory: ClusterMemory
) -> ObservedSecret | None:
    """The generation to use; None = create a new one."""
    current = next((secret for secret in usable if secret.name == memory.generation), None)
    if desired.token_source == "request" or not need.issue:
        return current or (usable[-1] if usable else None)
    if current is None:
        return usable[-1] if usable else None
    # Use a newer generation that was created but never published (a crash in between); do not create a third one.
    return next((secret for secret in usable if secret.generation > current.generation), None)


def _next_generation(desired: Desired, observed: Observed) -> tuple[str, int]:
    names = {secret.name for secret in observed.secrets}
    ours = [secret for secret in observed.secrets if _is_generation(desired, secret)]
    generation = max((secret.generation for secret in ours), default=0) + 1
    while (name := _generation_name(desired.secret, generation)) in names:
        generation += 1
    return name, generation


def _generation_name(secret: str, generation: int) -> str:
    return secret if generation == 1 else f"{secret}-{generation}"


def _retire(
    observed: Observed, *, keep: str, memory: ClusterMemory, now: datetime, overlap: timedelta
) -> tuple[tuple[RetiredSecret, ...], list[Action]]:
    """Retire our generations other than `keep` for the overlap, and delete those whose time is over."""
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

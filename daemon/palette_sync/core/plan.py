"""Compare a cluster's objects with the wanted ones, and decide what to write and why. Pure.

| object        | missing | ours, equal | ours, differs           | not ours, same meaning   | not ours, differs       |
|---------------|---------|-------------|-------------------------|--------------------------|-------------------------|
| Namespace     | create  | -           | update (metadata)       | used, never labelled     | -                       |
| ServiceAccount| create  | -           | update                  | label (adopt)            | -                       |
| Secret        | create  | -           | update, next generation | label; legacy kept apart | Conflict                |
| ClusterRole   | create  | -           | update                  | label (adopt)            | Conflict                |
| Binding       | create  | -           | update, or replace      | label (adopt)            | Conflict                |

What each object should look like, and what counts as a difference, is in `core.objects`. "Not ours" is judged by the
label `app.kubernetes.io/managed-by`, and "ours" by the label `palette-sync.io/owner` too. `adopt = "never"` makes every
object of the same name except the namespace a Conflict, `"always"` takes over and repairs. `core.ownership` decides
whose an object is, `core.generations` which Secret is used. One Conflict blocks the whole cluster: nothing is written
then (invariant 5, docs/architecture.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from palette_sync.core.actions import Action, Bound, TokenNeed, creation, update
from palette_sync.core.generations import generations, holds_legacy, is_legacy, plan_secrets
from palette_sync.core.objects import (
    Desired,
    Kind,
    Observed,
    ObservedObject,
    Wanted,
    adopted,
    drift,
    meaning_drift,
    metadata_drift,
    wanted_cluster_role,
    wanted_cluster_role_binding,
    wanted_namespace,
    wanted_service_account,
)
from palette_sync.core.ownership import Claim, OwnershipConflict, adopts
from palette_sync.core.reasons import Reason

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from palette_sync.core.model import ClusterMemory, RetiredSecret

__all__ = ["Action", "Blocked", "Bound", "Plan", "TokenNeed", "plan", "plan_replace_legacy", "plan_revocation"]


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
    claim = Claim.of(memory, need)
    try:
        role = _cluster_role(desired, observed, claim)
        home = [*_namespace(desired, observed), *_service_account(desired, observed, claim)]
        lost = any(action.verb == "create" for action in home)
        secrets = plan_secrets(desired, observed, claim, need=need, memory=memory, lost=lost, now=now, overlap=overlap)
        binding = _binding(desired, observed, claim)
    except OwnershipConflict as conflict:
        return Plan(blocked=Blocked(Reason.CONFLICT, str(conflict)), legacy=holds_legacy(desired, observed))
    # The role comes first. It is what RBAC refuses most often, and then nothing else is left behind.
    actions = [*role, *home, *secrets.actions, *binding]
    issue = need.issue or lost or secrets.issue or _another_account(observed, need.bound)
    if issue:
        reason = need.reason if need.issue else Reason.TOKEN_DEAD
        actions.append(Action("issue", Kind.TOKEN, desired.service_account, reason))
    return Plan(
        actions=tuple(actions),
        secret=secrets.name,
        issue=issue,
        retired=secrets.retired,
        legacy=holds_legacy(desired, observed),
    )


def plan_replace_legacy(desired: Desired, observed: Observed) -> tuple[Action, ...]:
    """Delete every legacy token Secret, labelled or not; only those of our service account are legacy."""
    return tuple(
        Action("delete", Kind.SECRET, secret.name, Reason.LEGACY_TOKEN, "holds a token that never expires", secret.meta)
        for secret in observed.secrets
        if is_legacy(desired, secret) and (desired.owns(secret.meta) or secret.meta.manager is None)
    )


def plan_revocation(desired: Desired, observed: Observed, memory: ClusterMemory) -> tuple[Action, ...]:
    """Delete every Secret of ours behind a token: the cluster is left, and no token may live on in it."""
    return tuple(
        Action("delete", Kind.SECRET, secret.name, Reason.LEFT, "nobody uses its token any more", secret.meta)
        for secret in generations(desired, observed, memory)
    )


def _another_account(observed: Observed, bound: Bound | None) -> bool:
    """Whether the service account is not the one to which the published token is bound."""
    account = observed.service_account
    if account is None or bound is None or bound.account_uid is None:
        return False
    return account.meta.uid != bound.account_uid


def _namespace(desired: Desired, observed: Observed) -> list[Action]:
    wanted, found = wanted_namespace(desired), observed.namespace
    if wanted.kind in observed.unreadable:
        return []
    if found is None:
        return [creation(wanted)]
    if not desired.owns(found.meta):
        return []  # it is used but never labelled
    differs = metadata_drift(wanted, found.meta)
    return [update(wanted, found.meta, differs.reason, differs.message)] if differs else []


def _service_account(desired: Desired, observed: Observed, claim: Claim) -> list[Action]:
    return _single(desired, observed, claim, wanted_service_account(desired), observed.service_account)


def _cluster_role(desired: Desired, observed: Observed, claim: Claim) -> list[Action]:
    return _single(desired, observed, claim, wanted_cluster_role(desired), observed.cluster_role, "has other rules")


def _binding(desired: Desired, observed: Observed, claim: Claim) -> list[Action]:
    wanted, found = wanted_cluster_role_binding(desired), observed.cluster_role_binding
    return _single(desired, observed, claim, wanted, found, "binds another role or subject")


def _single(
    desired: Desired,
    observed: Observed,
    claim: Claim,
    wanted: Wanted,
    found: ObservedObject | None,
    conflict: str = "",
) -> list[Action]:
    """Decide for an object that exists once. `conflict`: how somebody else's differs; empty = any may be adopted."""
    if wanted.kind in observed.unreadable:
        return []
    if found is None:
        return [creation(wanted)]
    same = not conflict or meaning_drift(wanted, found) is None
    adopting = adopts(desired, wanted.kind, wanted.name, found.meta, claim, same=same, differs=conflict)
    differs = drift(wanted, found)
    if differs is None:
        return []
    if differs.reason is Reason.ROLE_REF_CHANGED:  # a roleRef is immutable: only delete and create can change it
        action = Action("replace", wanted.kind, wanted.name, differs.reason, differs.message, found.meta, wanted)
        return [action]
    if adopting:
        wanted = adopted(wanted)
        if differs.reason is Reason.METADATA_DRIFTED:
            return [update(wanted, found.meta, Reason.ADOPTED, "label it as ours")]
    return [update(wanted, found.meta, differs.reason, differs.message)]

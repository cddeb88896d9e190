"""The Secrets behind the token: which generation is used, made, retired and deleted. Pure.

In request mode one Opaque Secret binds all tokens. In secret mode each generation is a Secret that holds a token for
ever, so a new token means a new generation. Generations are made at most once per overlap, because each replaced one
is kept that long. Their age follows from the cluster's own times: the daemon's clock may be wrong.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from palette_sync.core.actions import Action, creation, update
from palette_sync.core.model import RetiredSecret
from palette_sync.core.objects import (
    GENERATION_LABEL,
    OPAQUE,
    TOKEN_SECRET_TYPE,
    Kind,
    adopted,
    metadata_drift,
    wanted_legacy_secret,
    wanted_secret,
)
from palette_sync.core.ownership import adopts
from palette_sync.core.reasons import Reason

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from palette_sync.core.actions import TokenNeed
    from palette_sync.core.model import ClusterMemory
    from palette_sync.core.objects import Desired, Observed, ObservedSecret
    from palette_sync.core.ownership import Claim


@dataclass(frozen=True, slots=True)
class SecretPlan:
    """The writes to Secrets. `name`: the generation that holds or binds the token; `issue`: it needs a new token.

    `retired`: replaced generations and when to delete them.
    """

    actions: tuple[Action, ...]
    name: str
    issue: bool
    retired: tuple[RetiredSecret, ...]


def holds_legacy(desired: Desired, observed: Observed) -> bool:
    return any(is_legacy(desired, secret) for secret in observed.secrets)


def is_legacy(desired: Desired, secret: ObservedSecret) -> bool:
    """Whether another tool made this token Secret of our service account: labelled as legacy, or not labelled yet."""
    mine = secret.type == TOKEN_SECRET_TYPE and secret.service_account == desired.service_account
    return mine and (secret.legacy or not secret.meta.ours)


def plan_secrets(
    desired: Desired,
    observed: Observed,
    claim: Claim,
    *,
    need: TokenNeed,
    memory: ClusterMemory,
    lost: bool,
    now: datetime,
    overlap: timedelta,
) -> SecretPlan:
    """Choose the generation behind the token; adopt, create, retire and delete Secrets around it.

    `lost`: the service account or its namespace is missing. Raises OwnershipConflict.
    """
    if Kind.SECRET in observed.unreadable:
        return SecretPlan((), memory.generation or desired.secret, issue=False, retired=memory.retired)
    actions = _adopt(desired, observed, claim)
    taken_over = {action.name for action in actions}
    usable = sorted(
        (secret for secret in observed.secrets if _usable(desired, secret, memory, adopted=secret.name in taken_over)),
        key=lambda secret: secret.generation,
    )
    # Token Secrets are deleted with their service account; an Opaque Secret still binds new tokens.
    dead = lost and desired.token_in_secret
    chosen = None if dead else _choose(desired, observed, usable, need=need, memory=memory, overlap=overlap)
    # An unknown generation (None) is no reason to issue: verification shows whether the token lives.
    issue = chosen is None or memory.generation not in {None, chosen.name} or _unbound(observed, need)
    if chosen is None:
        name, generation = _next(desired, observed, memory)
        reason = need.reason if need.issue and usable else Reason.SECRET_MISSING
        actions.append(creation(wanted_secret(desired, name, generation), reason))
    else:
        name = chosen.name
        wanted = wanted_secret(desired, name, chosen.generation)
        if name not in taken_over and (differs := metadata_drift(wanted, chosen.meta)):
            actions.append(update(wanted, chosen.meta, differs.reason, differs.message))
    retired, deletions = _retire(desired, observed, need, keep=name, memory=memory, now=now, overlap=overlap)
    return SecretPlan((*actions, *deletions), name, issue, retired)


def generations(desired: Desired, observed: Observed, memory: ClusterMemory) -> tuple[ObservedSecret, ...]:
    """The Secrets of ours behind tokens, published or replaced; deleting them revokes the tokens."""
    return tuple(secret for secret in observed.secrets if _is_generation(desired, secret, memory) and not secret.legacy)


def _adopt(desired: Desired, observed: Observed, claim: Claim) -> list[Action]:
    """Decide what to do with somebody else's Secret that has the name of our first one."""
    named = next((secret for secret in observed.secrets if secret.name == desired.secret), None)
    if named is None or (desired.owns(named.meta) and not desired.unowned(named.meta)):
        return []
    legacy = is_legacy(desired, named)
    same = legacy or _equal(desired, named)
    differs = "is not a token Secret of our service account"
    if not adopts(desired, Kind.SECRET, named.name, named.meta, claim, same=same, differs=differs):
        return []
    if not legacy and named.type != desired.secret_type:
        return []  # adopt = always, but a Secret's type is immutable: it cannot be used and stays as it is
    if legacy:
        message = "holds a token that never expires; kept for the tool that made it"
        return [update(wanted_legacy_secret(desired, named.name), named.meta, Reason.LEGACY_TOKEN, message)]
    wanted = adopted(wanted_secret(desired, named.name, 1))
    return [update(wanted, named.meta, Reason.ADOPTED, "label it as ours")]


def _equal(desired: Desired, secret: ObservedSecret) -> bool:
    """Whether a Secret of somebody else is like ours: empty, or a token Secret of a palette-sync for our account."""
    if secret.meta.ours:
        return secret.type == OPAQUE or secret.service_account == desired.service_account
    return secret.type == OPAQUE and secret.empty and not desired.token_in_secret


def _usable(desired: Desired, secret: ObservedSecret, memory: ClusterMemory, *, adopted: bool) -> bool:
    """Whether a Secret can hold (secret mode) or bind (request mode) our token; a type is immutable."""
    if is_legacy(desired, secret) or not (adopted or _is_generation(desired, secret, memory)):
        return False
    if secret.type != desired.secret_type:
        return False
    return not desired.token_in_secret or secret.service_account == desired.service_account


def _is_generation(desired: Desired, secret: ObservedSecret, memory: ClusterMemory) -> bool:
    """Whether a Secret of ours was made for the token; the installation may have others in the same namespace.

    One without an owner may be another installation's, unless its name is ours.
    """
    if not desired.owns(secret.meta):
        return False
    if re.fullmatch(rf"{re.escape(desired.secret)}(-[0-9]+)?", secret.name) is not None:
        return True
    known = secret.name == memory.generation or any(secret.meta.uid == one.uid for one in memory.retired)
    return GENERATION_LABEL in secret.meta.labels and (known or not desired.unowned(secret.meta))


def _choose(
    desired: Desired,
    observed: Observed,
    usable: list[ObservedSecret],
    *,
    need: TokenNeed,
    memory: ClusterMemory,
    overlap: timedelta,
) -> ObservedSecret | None:
    """The generation to use; None = create a new one."""
    current = next((secret for secret in usable if secret.name == memory.generation), None)
    if need.fresh:
        bound = need.bound.secret_uid if need.bound is not None else None
        newest = usable[-1] if usable else None
        used = newest is None or newest is current or newest.meta.uid == bound or newest.name in need.rejected
        return None if used else newest
    if not desired.token_in_secret or not need.issue:
        return current or (usable[-1] if usable else None)
    if not usable:
        return None
    newest = usable[-1]
    # Use a newer generation that was created but never published (a crash in between); do not create a third one.
    if newest is not current and newest.name not in need.rejected:
        return newest
    age = _age(observed, newest)
    return newest if age is not None and age < overlap else None


def _age(observed: Observed, secret: ObservedSecret) -> timedelta | None:
    """The age by the cluster's clock; None where it is unknown."""
    if observed.now is None or secret.created_at is None:
        return None
    return observed.now - secret.created_at


def _unbound(observed: Observed, need: TokenNeed) -> bool:
    """Whether the Secret to which the published token is bound is gone."""
    bound = need.bound
    if bound is None or bound.secret_uid is None:
        return False
    return all(secret.meta.uid != bound.secret_uid for secret in observed.secrets)


def _next(desired: Desired, observed: Observed, memory: ClusterMemory) -> tuple[str, int]:
    names = {secret.name for secret in observed.secrets}
    ours = [secret for secret in observed.secrets if _is_generation(desired, secret, memory)]
    generation = max((secret.generation for secret in ours), default=0) + 1
    while (name := _generation_name(desired.secret, generation)) in names:
        generation += 1
    return name, generation


def _generation_name(secret: str, generation: int) -> str:
    return secret if generation == 1 else f"{secret}-{generation}"


def _retire(
    desired: Desired,
    observed: Observed,
    need: TokenNeed,
    *,
    keep: str,
    memory: ClusterMemory,
    now: datetime,
    overlap: timedelta,
) -> tuple[tuple[RetiredSecret, ...], list[Action]]:
    """Retire our generations other than `keep` for the overlap, and delete those whose time is over.

    To revoke is to retire them without an overlap: they are deleted by the next work on the cluster, which begins after
    the new token is published.
    """
    bound = need.bound.secret_uid if need.revoke and need.bound is not None else None
    known = {(secret.name, secret.uid): secret.delete_at for secret in memory.retired}
    retired: list[RetiredSecret] = []
    deletions: list[Action] = []
    for secret in generations(desired, observed, memory):
        key = (secret.name, secret.meta.uid)
        named = GENERATION_LABEL in secret.meta.labels or key in known or secret.meta.uid == bound
        if not named or secret.name == keep:
            continue
        delete_at = known.get(key, now + overlap)
        if need.revoke and (key not in known or delete_at > now):
            retired.append(RetiredSecret(*key, now))  # it may be the Secret of the published token
        elif delete_at <= now:
            message = "its successor is published"
            deletions.append(Action("delete", Kind.SECRET, secret.name, Reason.OVERLAP_OVER, message, secret.meta))
        else:
            retired.append(RetiredSecret(secret.name, secret.meta.uid, delete_at))
    return tuple(retired), deletions

"""The writes of a plan as values, and why a token is issued. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from palette_sync.core.reasons import Reason

if TYPE_CHECKING:
    from palette_sync.core.objects import Kind, Meta, Wanted

Verb = Literal["create", "update", "replace", "delete", "hand back", "issue"]


@dataclass(frozen=True, slots=True)
class Bound:
    """To which objects the published token is bound, by uid; None where the token does not say.

    An API server refuses the token once one of them is gone, even if another of the same name was made since. For about
    10 s it may still accept it, because it caches what it accepted.
    """

    account_uid: str | None = None
    secret_uid: str | None = None


@dataclass(frozen=True, slots=True)
class TokenNeed:
    """Whether a new token is needed, and why.

    `rejected` names the Secrets whose token the API server refused. `bound` belongs to the published token. `fresh`:
    the new token needs a Secret of its own. `revoke`: all other Secrets are retired without an overlap, so that they
    are deleted once the new token is published.
    """

    issue: bool
    reason: Reason
    rejected: frozenset[str] = frozenset()
    bound: Bound | None = None
    fresh: bool = False
    revoke: bool = False


@dataclass(frozen=True, slots=True)
class Action:
    """One write. `meta` holds the preconditions of update, replace, delete and hand back.

    `wanted` is the object to create, update or replace; else None. To hand back an object is to take our labels off.
    """

    verb: Verb
    kind: Kind
    name: str
    reason: Reason
    message: str = ""
    meta: Meta | None = None
    wanted: Wanted | None = None


def creation(wanted: Wanted, reason: Reason = Reason.MISSING) -> Action:
    return Action("create", wanted.kind, wanted.name, reason, wanted=wanted)


def update(wanted: Wanted, meta: Meta, reason: Reason, message: str) -> Action:
    return Action("update", wanted.kind, wanted.name, reason, message, meta, wanted)

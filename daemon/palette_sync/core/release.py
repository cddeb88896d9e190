"""Leaving a cluster without a trace: which objects are deleted, and which are handed back. Pure.

| the object                                                  | what is done              |
|-------------------------------------------------------------|---------------------------|
| was created by this installation                            | deleted                   |
| was adopted, or is a legacy Secret                          | our labels are taken off  |
| is a namespace of ours that holds objects of somebody else  | our labels are taken off  |
| has no owner id, and not one of the configured names        | left: perhaps another's   |
| belongs to anybody else                                     | left                      |

What gives rights goes first, so that an interrupted release has revoked the tokens.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from palette_sync.core.actions import Action
from palette_sync.core.objects import ADOPTED_LABEL, LEGACY_LABEL, Desired, Kind, Meta
from palette_sync.core.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_ORDER = (Kind.SECRET, Kind.CLUSTER_ROLE_BINDING, Kind.CLUSTER_ROLE, Kind.SERVICE_ACCOUNT, Kind.NAMESPACE)


@dataclass(frozen=True, slots=True)
class LabelledObject:
    """An object that carries the label of palette-sync. `namespace` is "" for what lives in none."""

    kind: Kind
    name: str
    namespace: str
    meta: Meta


@dataclass(frozen=True, slots=True)
class ReleaseStep:
    """A write of a release, and the namespace in which it happens, "" for none."""

    action: Action
    namespace: str = ""


def plan_release(
    desired: Desired, found: Iterable[LabelledObject], others: Mapping[str, str], *, keep_adopted: bool = False
) -> tuple[ReleaseStep, ...]:
    """Decide for one cluster. `others` names, by namespace, an object of somebody else that lives there.

    With `keep_adopted` nothing is handed back: adopted objects keep our labels, for another run or installation.
    """
    ours = sorted((one for one in found if _is_ours(desired, one)), key=lambda one: (_ORDER.index(one.kind), one.name))
    back = {one.namespace: f"{one.kind} {one.name}" for one in ours if _is_handed_back(one)}
    steps = []
    for one in ours:
        inhabitant = back.get(one.name) or others.get(one.name) if one.kind is Kind.NAMESPACE else None
        if keep_adopted and _is_handed_back(one):
            continue
        if inhabitant:
            action = _hand_back(one, f"{inhabitant} lives in it")
        elif _is_handed_back(one):
            action = _hand_back(one, "it was there before")
        else:
            action = Action("delete", one.kind, one.name, Reason.RELEASED, "palette-sync made it", one.meta)
        steps.append(ReleaseStep(action, one.namespace))
    return tuple(steps)


def _hand_back(one: LabelledObject, why: str) -> Action:
    return Action("hand back", one.kind, one.name, Reason.HANDED_BACK, why, one.meta)


def _is_handed_back(one: LabelledObject) -> bool:
    return ADOPTED_LABEL in one.meta.labels or LEGACY_LABEL in one.meta.labels


def _is_ours(desired: Desired, one: LabelledObject) -> bool:
    if not desired.owns(one.meta):
        return False
    if not desired.unowned(one.meta):
        return True
    names = {
        Kind.NAMESPACE: desired.namespace,
        Kind.SERVICE_ACCOUNT: desired.service_account,
        Kind.CLUSTER_ROLE: desired.cluster_role,
        Kind.CLUSTER_ROLE_BINDING: desired.cluster_role_binding,
    }
    if one.kind is Kind.SECRET:
        return re.fullmatch(rf"{re.escape(desired.secret)}(-[0-9]+)?", one.name) is not None
    return one.name == names[one.kind]

"""Whether an object that stands in a cluster may be written: whose it is, and what `adopt` allows. Pure.

| the object carries                     | adopt = never | matching                  | always                   |
|----------------------------------------|---------------|---------------------------|--------------------------|
| our label and our owner id             | ours          | ours                      | ours                     |
| our label and no owner id              | ours if equal | ours if equal             | ours                     |
| our label and another installation's id| Conflict      | Conflict                  | taken over, but not back |
| the label of another tool              | Conflict      | Conflict                  | taken over               |
| no such label                          | Conflict      | adopted if equal          | taken over               |

"Equal" means that the object does what ours would do. An object without an owner id was made before there were any. It
is ours whatever it does where this installation remembers access to the cluster.

Two installations that both have `always` must not take the same objects from each other for ever. So an object that was
taken from this installation is taken back only in a pass that follows a change of the configuration.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from palette_sync.core.reasons import Reason

if TYPE_CHECKING:
    from palette_sync.core.actions import TokenNeed
    from palette_sync.core.model import ClusterMemory
    from palette_sync.core.objects import Desired, Kind, Meta


class OwnershipConflict(Exception):
    """An object belongs to somebody else, so nothing may be written to the cluster. The text names who and a remedy."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What this installation knows of a cluster beside the objects.

    `had`: it has had access there. `changed`: the configuration changed since the last attempt.
    """

    had: bool = False
    changed: bool = False

    @classmethod
    def of(cls, memory: ClusterMemory, need: TokenNeed) -> Claim:
        return cls(had=memory.generation is not None, changed=need.reason is Reason.CONFIG_CHANGED)


def adopts(desired: Desired, kind: Kind, name: str, meta: Meta, claim: Claim, *, same: bool, differs: str) -> bool:
    """Return whether an object of somebody else is to be adopted; False if it is ours. Raises OwnershipConflict.

    `same`: the object does what ours would do; else `differs` says what it does.
    """
    if other := desired.stranger(meta):
        return _takes_over(desired, kind, name, other, claim)
    if desired.unowned(meta):
        if same or claim.had or desired.adopt == "always":
            return False
        raise OwnershipConflict(
            f"{kind} {name} {differs}, and an earlier palette-sync made it, perhaps another installation; "
            'rename ours in [rbac], or set adopt = "always"'
        )
    if meta.ours:
        return False
    if desired.adopt == "always":
        return True
    if meta.manager is not None:
        raise OwnershipConflict(
            f"{kind} {name} is managed by {meta.manager[:63]}; rename ours in [rbac], or set adopt = always"
        )
    if desired.adopt == "never":
        raise OwnershipConflict(f"{kind} {name} exists and is not ours; rename ours in [rbac], or set adopt = matching")
    if not same:
        raise OwnershipConflict(
            f"{kind} {name} exists, is not ours and {differs}; rename ours in [rbac], or set adopt = always"
        )
    return True


def _takes_over(desired: Desired, kind: Kind, name: str, other: str, claim: Claim) -> bool:
    who = f"the palette-sync installation {other[:63]}, and this one is {desired.owner}"
    if desired.adopt != "always":
        raise OwnershipConflict(
            f'{kind} {name} belongs to {who}; rename ours in [rbac], or set adopt = "always" to take it over; '
            f'if that was this installation before its Redis was lost, set [service] owner = "{other[:63]}"'
        )
    if claim.had and not claim.changed:
        raise OwnershipConflict(
            f"{kind} {name} was taken over by {who}; rename ours in [rbac], or give the cluster to one of the two"
        )
    return True

"""What was last done to each object of a cluster, as the daemon remembers it for people. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

_LASTING = ("create", "update", "replace", "issue")  # what is deleted is not there any more


@dataclass(frozen=True, slots=True)
class Done:
    """What one pass did to one or more kinds of objects, for one reason. `verb` and `reason` are words for people.

    Every kind stands in one value only: in that of what was done to it last.
    """

    verb: str
    reason: str
    at: datetime
    kinds: tuple[str, ...]


def done_after(before: tuple[Done, ...], actions: Iterable[tuple[str, str, str]], now: datetime) -> tuple[Done, ...]:
    """What is remembered after a pass that carried out the `actions`: kind, verb and reason of each, in their order."""
    last = {kind: (verb, reason) for kind, verb, reason in actions if verb in _LASTING}
    if not last:
        return before
    kept = [replace(one, kinds=tuple(kind for kind in one.kinds if kind not in last)) for one in before]
    new = [
        Done(verb, reason, now.replace(microsecond=0), tuple(kind for kind in last if last[kind] == (verb, reason)))
        for verb, reason in dict.fromkeys(last.values())
    ]
    return (*(one for one in kept if one.kinds), *new)


def last_done(done: tuple[Done, ...], kind: str) -> Done | None:
    """What was last done to the object of that kind; None if that is not known."""
    return next((one for one in done if kind in one.kinds), None)

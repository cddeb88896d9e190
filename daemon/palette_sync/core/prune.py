"""When the record of a disappeared cluster may be dropped: the guard against a wrong listing. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from palette_sync.core.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Mapping

    from palette_sync.core.select import Selection

FEW = 5
SHARE = 0.3
PASSES = 3


@dataclass(frozen=True, slots=True)
class Pruning:
    """`drop`: uids whose records are dropped now, with the reason. `held`: disappeared uids → passes without them."""

    drop: Mapping[str, Reason]
    held: Mapping[str, int]


def prune(selection: Selection, *, total: int, missed: Mapping[str, int], allow: bool = False) -> Pruning:
    """Split the missing records into those that are dropped now and those that wait.

    `total` is the number of published records; `missed` how many passes in a row already missed a uid that is held
    (from the last status). A loss of more than 5 records and more than 30 % of all waits until three passes agree, or
    until an operator allows it. What the configuration deselects or Palette deleted is dropped at once.
    """
    gone = selection.disappeared
    drop = dict(selection.dropped)
    # A pass that could not list a uid's scope does not change its count.
    held = {uid: count for uid, count in missed.items() if uid in selection.kept}
    if allow or len(gone) <= FEW or len(gone) <= SHARE * total:
        drop.update(dict.fromkeys(gone, Reason.DISAPPEARED))
        return Pruning(drop, held)
    for uid in gone:
        count = missed.get(uid, 0) + 1
        if count >= PASSES:
            drop[uid] = Reason.DISAPPEARED
        else:
            held[uid] = count
    return Pruning(drop, held)

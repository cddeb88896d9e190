"""The last 24 hours of an instance as values: bars for passes, changes and requests, and what was notable. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import accumulate
from math import log1p
from typing import TYPE_CHECKING

from palette_sync.core.activity import DAY, SLOT, SLOTS, Slot, is_of_day, slot_begin
from palette_sync.core.history import FormerVersion, Transition, VersionChange, transitions
from palette_sync.core.snapshot_codec import encode_record, record_in_history

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime

    from palette_sync.core.history import Record
    from palette_sync.core.model import InstanceState

# Of the drawing, in its own units. A slot is one wide.
LANE, GAP = 16, 5
HEIGHT = 3 * LANE + 2 * GAP
MOST_NOTABLE = 60  # slots that are listed
NAMED = 3  # requests of operators that one line names
MOST_CHANGES = 60  # changes of clusters that are listed
PASSES = ("fine", "partial", "failed")  # worst last


@dataclass(frozen=True, slots=True)
class Bars:
    """All bars of one kind, as the path of an SVG. `kind` is its class."""

    kind: str
    path: str


@dataclass(frozen=True, slots=True)
class Point:
    """A slot of which something is to be said. `x` is where it stands in the drawing."""

    x: int
    slot: Slot


@dataclass(frozen=True, slots=True)
class Timeline:
    """`total` is the whole day as one slot. `points` are the notable slots, the newest first; of many, the newest."""

    bars: tuple[Bars, ...]
    points: tuple[Point, ...]
    total: Slot
    notable: int
    width: int = SLOTS
    height: int = HEIGHT


def timeline(slots: Mapping[datetime, Slot], *, now: datetime) -> Timeline:
    """The timeline of the 24 hours before the end of the present slot."""
    first = slot_begin(now) - DAY + SLOT
    points = sorted(
        (Point((begins - first) // SLOT, slot) for begins, slot in slots.items() if is_of_day(begins, now)),
        key=lambda one: one.x,
    )
    bars = [
        Bars(kind, "".join(_bar(one.x, LANE, LANE) for one in points if pass_kind(one.slot) == kind)) for kind in PASSES
    ]
    bars.append(Bars("changed", _lane(points, 2 * LANE + GAP, lambda slot: slot.changed)))
    bars.append(Bars("palette", _lane(points, HEIGHT, lambda slot: slot.palette + slot.kube)))
    bars.append(Bars("asked", "".join(f"M{one.x} 0v{HEIGHT}h.8V0z" for one in points if one.slot.asked)))
    notable = [one for one in reversed(points) if one.slot.notable]
    return Timeline(
        bars=tuple(one for one in bars if one.path),
        points=tuple(notable[:MOST_NOTABLE]),
        total=_total(first, [one.slot for one in points]),
        notable=len(notable),
    )


def pass_kind(slot: Slot) -> str:
    """How the passes of a slot went: one of `PASSES`, or "" where there was none."""
    if not slot.passes:
        return ""
    return "failed" if slot.failed else "partial" if slot.attempts else "fine"


def changes_text(slot: Slot) -> str:
    """What happened to clusters, for people, for example "2 rotated, 1 failed"."""
    return ", ".join(f"{count} {effect}" for effect, count in sorted(slot.changes.items()) if count)


def slot_text(slot: Slot) -> str:
    """All of a slot in one line for people."""
    passes = "1 pass" if slot.passes == 1 else f"{slot.passes} passes"
    parts = [f"{passes} ({slot.listings} listed Palette{f', {slot.failed} failed' if slot.failed else ''})"]
    parts.append(changes_text(slot) or "nothing changed")
    parts.append(f"{slot.palette} requests to Palette and {slot.kube} to clusters")
    if len(slot.asked) > NAMED:
        parts.append(f"{len(slot.asked)} requests of operators")
    else:
        parts += [f"{asked.what} asked by {asked.by}" for asked in slot.asked]
    return "; ".join([*parts, *([slot.error] if slot.error else [])])


def _lane(points: Sequence[Point], base: int, value: Callable[[Slot], int]) -> str:
    """Bars whose height grows with the logarithm, so that one change shows beside a thousand."""
    most = max((value(one.slot) for one in points), default=0)
    return "".join(
        _bar(one.x, base, max(2.0, LANE * log1p(number) / log1p(most)))
        for one in points
        if (number := value(one.slot)) > 0
    )


def _bar(x: int, base: int, height: float) -> str:
    return f"M{x} {base}v-{height:.3g}h.8V{base}z"


def _total(first: datetime, slots: Iterable[Slot]) -> Slot:
    found = list(slots)
    changes: Counter[str] = Counter()
    for slot in found:
        changes.update(slot.changes)
    return Slot(
        first,
        passes=sum(one.passes for one in found),
        listings=sum(one.listings for one in found),
        failed=sum(one.failed for one in found),
        longest_ms=max((one.longest_ms for one in found), default=0),
        palette=sum(one.palette for one in found),
        kube=sum(one.kube for one in found),
        changes=changes,
        asked=tuple(asked for one in found for asked in one.asked),
    )


def latest_changes(
    state: InstanceState, entries: Sequence[FormerVersion], changes: Sequence[VersionChange]
) -> list[Transition]:
    """The newest changes of clusters, newest first. Only as many versions are walked as are needed for them."""
    newest = state.head.version if state.head else 0
    touched: dict[int, set[str]] = {}
    for entry in entries:
        touched.setdefault(entry.version, set()).update(entry.was)
    for change in changes:
        touched.setdefault(change.version, set()).update(change.put | change.drop | change.rotated)
    versions = sorted((version for version in touched if version <= newest), reverse=True)
    counts = accumulate(len(touched[version]) for version in versions)
    walked = {
        version for version, count in zip(versions, counts, strict=True) if count - len(touched[version]) < MOST_CHANGES
    }
    uids = set().union(*(touched[version] for version in walked))
    current: dict[str, Record] = {
        uid: dict(record_in_history(encode_record(state.records[uid]))) for uid in uids if uid in state.records
    }
    found = transitions(
        [one for one in entries if one.version in walked], [one for one in changes if one.version in walked], current
    )
    return found[:MOST_CHANGES]

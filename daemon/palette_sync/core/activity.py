"""What the daemon did in the last 24 hours, in slots of five minutes: passes, requests and changes. Pure.

A slot only counts, so a day has a bounded size however much happens in it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from palette_sync.core.documents import Fields, decode_object, encode_document, present
from palette_sync.core.text import one_line

if TYPE_CHECKING:
    from collections.abc import Mapping

SLOT = timedelta(minutes=5)
DAY = timedelta(hours=24)
SLOTS = DAY // SLOT
MOST_ASKED = 10  # requests of people that a slot names
LONGEST = 200  # characters of an error, and of who asked
ATTEMPTS = "failed"  # in `changes`: clusters at which work failed, which changes nothing


@dataclass(frozen=True, slots=True)
class Asked:
    """A request of an operator, and when it came. `what`: resync, reload, ...; `by`: who asked, or how."""

    at: datetime
    what: str
    by: str


@dataclass(frozen=True, slots=True)
class Slot:
    """What happened from `begins` on, for one instance.

    `listings` of the `passes` listed Palette. `failed` passes did not do all that was due, or could not list a project;
    `error` is what the last of these said. `longest_ms`: the longest pass. `palette` and `kube` are requests to Palette
    and to clusters. `changes` counts clusters by what happened to them (`reconcile.report.Effect`). Of the requests of
    operators, the first `MOST_ASKED` are in `asked`.
    """

    begins: datetime
    passes: int = 0
    listings: int = 0
    failed: int = 0
    error: str = ""
    longest_ms: int = 0
    palette: int = 0
    kube: int = 0
    changes: Mapping[str, int] = field(default_factory=dict)
    asked: tuple[Asked, ...] = ()

    @property
    def changed(self) -> int:
        """Clusters that were published, updated, rotated, repaired or dropped."""
        return sum(count for effect, count in self.changes.items() if effect != ATTEMPTS)

    @property
    def attempts(self) -> int:
        """Clusters at which work failed."""
        return self.changes.get(ATTEMPTS, 0)

    @property
    def notable(self) -> bool:
        """Whether more happened than passes that found nothing to do."""
        return bool(self.failed or self.changes or self.asked)

    def with_pass(
        self,
        *,
        listed: bool,
        failed: bool,
        error: str = "",
        duration_s: float = 0.0,
        palette: int = 0,
        kube: int = 0,
        changes: Mapping[str, int] | None = None,
    ) -> Slot:
        return replace(
            self,
            passes=self.passes + 1,
            listings=self.listings + listed,
            failed=self.failed + failed,
            error=one_line(error, LONGEST) if failed else self.error,
            longest_ms=max(self.longest_ms, round(duration_s * 1000)),
            palette=self.palette + palette,
            kube=self.kube + kube,
            changes=_sum(self.changes, changes or {}),
        )

    def with_asked(self, asked: Asked) -> Slot:
        if len(self.asked) >= MOST_ASKED:
            return self
        return replace(self, asked=(*self.asked, replace(asked, by=one_line(asked.by, LONGEST))))


def joined(one: Slot, other: Slot) -> Slot:
    """What two processes did in the same slot, one after the other. `other` is the later one."""
    return replace(
        one,
        passes=one.passes + other.passes,
        listings=one.listings + other.listings,
        failed=one.failed + other.failed,
        error=other.error or one.error,
        longest_ms=max(one.longest_ms, other.longest_ms),
        palette=one.palette + other.palette,
        kube=one.kube + other.kube,
        changes=_sum(one.changes, other.changes),
        asked=(*one.asked, *other.asked)[:MOST_ASKED],
    )


def _sum(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {effect: one.get(effect, 0) + other.get(effect, 0) for effect in dict.fromkeys((*one, *other))}


def slot_begin(moment: datetime) -> datetime:
    """When the slot of that moment begins."""
    whole = int(moment.timestamp()) // int(SLOT.total_seconds()) * int(SLOT.total_seconds())
    return datetime.fromtimestamp(whole, UTC)


def is_of_day(begins: datetime, now: datetime) -> bool:
    """Whether a slot is one of the last 24 hours, the present one included."""
    return slot_begin(now) - DAY < begins <= slot_begin(now)


def encode_slot(slot: Slot) -> bytes:
    """Raises DocumentError."""
    return encode_document(
        "activity",
        present(
            passes=slot.passes,
            listings=slot.listings,
            failed=slot.failed,
            error=slot.error or None,
            longest_ms=slot.longest_ms,
            palette=slot.palette,
            kube=slot.kube,
            changes=dict(slot.changes),
            asked=[present(at=one.at, what=one.what, by=one.by) for one in slot.asked] or None,
        ),
    )


def decode_slot(begins: datetime, raw: bytes) -> Slot:
    """Raises DocumentError."""
    fields = Fields("activity", decode_object("activity", raw))
    asked = fields.objects("asked") if "asked" in fields else []
    return Slot(
        begins,
        passes=fields.count("passes"),
        listings=fields.count("listings"),
        failed=fields.count("failed"),
        error=fields.maybe_text("error") or "",
        longest_ms=fields.count("longest_ms"),
        palette=fields.count("palette"),
        kube=fields.count("kube"),
        changes=fields.counts("changes"),
        asked=tuple(Asked(one.time("at"), one.text("what"), one.text("by")) for one in asked),
    )

"""When the record of a cluster that Palette does not list any more may be dropped: the guard against a wrong answer.

Pure. Palette answers 200 with an empty or shortened list when an API key lost its roles, and in some failures. So what
merely vanished is never dropped by one listing. A small loss is confirmed by a second scheduled listing. A large loss
is held until an operator allows it or the hold ends. The records stay published, verified and renewed until then.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from palette_sync.core.documents import DocumentError, Fields, present
from palette_sync.core.model import TENANT_SCOPE
from palette_sync.core.pause import pause_in_force
from palette_sync.core.reasons import Reason
from palette_sync.core.select import deselected, unmatched

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from palette_sync.core.model import ClusterRecord, Discovery
    from palette_sync.core.select import Filters, Selection

LARGE_PERCENT = 30
HELD = frozenset({Reason.PRUNE_HELD, Reason.ACCESS_LOST})


@dataclass(frozen=True, slots=True)
class Guard:
    """`confirm`: the least time between two scheduled listings that drop a record together. `hold`: how long a large
    loss is held, counted from the first of these listings; None = until an operator allows it.
    """

    confirm: timedelta = timedelta(minutes=10)
    hold: timedelta | None = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Absence:
    """A published cluster that Palette does not list any more, and whose record stays for the time being.

    `since`: the first listing without it. `counted_from`: the first scheduled one; None = so far, only an operator's
    resync missed it, which does not count. `until`: from then on a scheduled listing without it drops the record; None
    = never by itself, or not known yet. `reason`: `NotListed` waits for its confirmation; `PruneHeld` and `AccessLost`
    are held; `WritesPaused` stays as long as its cluster is paused.
    """

    since: datetime
    counted_from: datetime | None
    until: datetime | None
    reason: Reason
    message: str

    @property
    def held(self) -> bool:
        return self.reason in HELD


@dataclass(frozen=True, slots=True)
class Pruning:
    """`drop`: uids whose records are dropped now, with the reason. `absent`: uids whose records stay although the last
    listing of their scope did not hold them, or could not be read.
    """

    drop: Mapping[str, Reason]
    absent: Mapping[str, Absence]

    @property
    def held(self) -> frozenset[str]:
        return frozenset(uid for uid, one in self.absent.items() if one.held)


def prune(
    selection: Selection,
    records: Mapping[str, ClusterRecord],
    remembered: Mapping[str, Absence],
    *,
    now: datetime,
    guard: Guard,
    scheduled: bool,
    access_reduced: bool = False,
    allow: bool = False,
) -> Pruning:
    """Decide for each record that Palette does not list whether it is dropped now, and why it stays if not.

    What Palette deleted or the configuration deselects is dropped at once. `remembered` is what the last pass noted;
    whatever was listed since is forgotten. `scheduled`: this listing counts; one that an operator asked for does not,
    so it neither begins nor confirms an absence. Because a drop needs a scheduled listing of this very pass, a daemon
    that starts drops nothing on its predecessor's memory alone. `access_reduced`: the API key sees less than it did
    before, also where no record is concerned. `allow`: an operator allows every drop. A record stays as long as its
    cluster is paused, whatever else holds, except that `allow` drops what only a tag pauses and Palette does not list.
    """
    missing = selection.disappeared | selection.forbidden
    drop = dict(selection.dropped)
    if allow:
        drop.update(dict.fromkeys(missing, Reason.DISAPPEARED))
        missing = frozenset()
    # The listing of these could not be read, so it says nothing about them.
    absent = {uid: one for uid, one in remembered.items() if uid in selection.kept - selection.forbidden}
    suspicions = {}
    if missing:
        staying = {uid: one for uid, one in records.items() if uid not in drop}
        suspicions = _suspicions(selection, staying, missing, access_reduced=access_reduced)
    for uid in missing:
        one = _absence(remembered.get(uid), suspicions.get(uid), now=now, scheduled=scheduled)
        one = replace(one, until=None if uid in selection.forbidden else _until(one, guard))
        if scheduled and one.until is not None and now >= one.until:
            drop[uid] = Reason.DISAPPEARED
        else:
            absent[uid] = one
    for uid in [uid for uid in drop if uid in records]:
        # Nobody can take the tag off a cluster that Palette does not list, so an operator may drop its record.
        tags = () if allow or uid in selection.seen else records[uid].palette.tags
        if (pause := pause_in_force(records[uid], tags, now)) is not None:
            why = f"{drop.pop(uid)}: its record is dropped once the pause has ended ({pause.text})"
            known = remembered.get(uid)
            since = min(known.since, now) if known else now
            absent[uid] = Absence(since, known.counted_from if known else None, None, Reason.WRITES_PAUSED, why)
    return Pruning(drop, absent)


def _absence(known: Absence | None, suspicion: tuple[Reason, str] | None, *, now: datetime, scheduled: bool) -> Absence:
    """What is noted of a cluster that this listing misses; `until` is still open."""
    since = min(known.since, now) if known else now
    counted_from = known.counted_from if known else None
    if counted_from is None or counted_from > now:  # not counted yet, or by a clock that was ahead
        counted_from = now if scheduled else None
    if known is not None and known.held:  # once held, a record is held until it is listed, allowed, or the hold ends
        return Absence(since, counted_from, None, known.reason, known.message)
    if suspicion is not None:
        return Absence(since, counted_from, None, *suspicion)
    return Absence(since, counted_from, None, Reason.NOT_LISTED, "Palette's last listing does not hold it")


def _until(absence: Absence, guard: Guard) -> datetime | None:
    span = guard.hold if absence.held else guard.confirm
    if absence.counted_from is None or span is None:
        return None
    return absence.counted_from + max(span, guard.confirm)


def _suspicions(
    selection: Selection, staying: Mapping[str, ClusterRecord], missing: frozenset[str], *, access_reduced: bool
) -> dict[str, tuple[Reason, str]]:
    """Why clusters that are missing now may be there after all, by uid: the loss is too large, or access was lost.

    `staying` are the records that are neither deleted nor deselected.
    """
    gone = [staying[uid] for uid in missing]
    gone_of = Counter(scope_of(one) for one in gone)
    all_of = Counter(scope_of(one) for one in staying.values())
    lost = access_reduced or bool(selection.forbidden or selection.vanished)
    found = {}
    for record in gone:
        scope, name = scope_of(record), record.project.name if record.project else "the tenant scope"
        why = ""
        if record.uid in selection.forbidden:
            why = "the API key may not list tenant-scoped clusters any more"
        elif scope in selection.vanished:
            why = f"its project {name} is not listed any more"
        elif scope in selection.empty:
            why = f"the listing of {name} holds no cluster at all"
        elif is_large(len(gone), len(staying)):
            why = f"{len(gone)} of {len(staying)} clusters disappeared at once"
        elif is_large(gone_of[scope], all_of[scope]):
            why = f"{gone_of[scope]} of {all_of[scope]} clusters of {name} disappeared at once"
        if why and lost:
            found[record.uid] = (Reason.ACCESS_LOST, f"{why}; maybe the API key lost roles")
        elif why:
            found[record.uid] = (Reason.PRUNE_HELD, why)
    return found


def is_large(loss: int, total: int) -> bool:
    """Whether a loss is too large to be believed at once: more than one, and more than 30 % of `total`."""
    return loss > 1 and 100 * loss > LARGE_PERCENT * total


@dataclass(frozen=True, slots=True)
class FilterReview:
    """What new filters mean. `refusal`: why they are not applied unless an operator allows it, or None. `unmatched`:
    one line for each pattern that matches nothing.
    """

    refusal: str | None
    unmatched: list[str]


def review(filters: Filters, records: Mapping[str, ClusterRecord], discovery: Discovery | None) -> FilterReview:
    """Judge new filters by what is published and by the last discovery, if there is one.

    They are refused if they deselect all `records`, or more of them than the guard lets go at once.
    """
    lines = unmatched(filters, discovery) if discovery is not None else []
    gone = deselected(records, discovery, filters)
    if not gone or (len(gone) < len(records) and not is_large(len(gone), len(records))):
        return FilterReview(None, lines)
    reasons = ", ".join(sorted({str(reason) for reason in gone.values()}))
    what = f"the filters deselect {len(gone)} of {len(records)} published clusters ({reasons})"
    hint = "".join(f"; {line}" for line in lines)
    return FilterReview(f"{what}{hint}; if that is meant, run `palette-sync reload --allow-prune`", lines)


def scope_of(record: ClusterRecord) -> str:
    """The scope whose listing should hold the cluster: a project's uid, or the tenant."""
    return record.project.uid if record.project else TENANT_SCOPE


def absences_to_dict(absent: Mapping[str, Absence]) -> dict[str, object]:
    """As they stand in the status document."""
    return {
        uid: present(
            since=one.since,
            counted_from=one.counted_from,
            until=one.until,
            reason=str(one.reason),
            message=one.message,
        )
        for uid, one in absent.items()
    }


def empty_is_confirmed(empty_since: datetime | None, now: datetime, guard: Guard, *, allow: bool) -> bool:
    """Whether a store that holds nothing may be published as complete, although Palette lists no cluster.

    Readers may hold clusters from before Redis lost everything, and a key that lost its roles gets empty lists. So it
    takes the same time as dropping one record.
    """
    return allow or (empty_since is not None and now - empty_since >= guard.confirm)


def absences_of(status: Mapping[str, object]) -> dict[str, Absence]:
    """Read what the last status document remembers. Malformed entries are left out: their absence begins anew."""
    entries = status.get("held")
    found = {}
    for uid, entry in entries.items() if isinstance(entries, dict) else ():
        if isinstance(entry, dict):
            try:
                found[uid] = _read(Fields("status", entry))
            except DocumentError:
                continue
    return found


def _read(entry: Fields) -> Absence:
    reason = Reason.read(entry.text("reason"))
    return Absence(
        since=entry.time("since"),
        counted_from=entry.maybe_time("counted_from"),
        until=entry.maybe_time("until"),
        reason=reason if reason in HELD | {Reason.NOT_LISTED, Reason.WRITES_PAUSED} else Reason.PRUNE_HELD,
        message=entry.text("message"),
    )

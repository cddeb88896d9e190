"""The first page as values: problems, instances, held records, failing scopes, and one page of the clusters. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from palette_sync.core.documents import time_or_none
from palette_sync.core.model import AccessState
from palette_sync.core.problems import STANDBY, Problem, find_problems, is_wrong
from palette_sync.core.prune import HELD, absences_of
from palette_sync.core.reasons import Reason
from palette_sync.core.rows import Row, rows_of, sorted_rows
from palette_sync.page.query import PAGE_SIZE, Query, choices

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from palette_sync.core.model import InstanceState, ScopeStatus
    from palette_sync.core.prune import Absence

WORST_FIRST = (AccessState.FAILED, AccessState.DEGRADED, AccessState.PENDING, AccessState.READY)
MOST_HELD = 50  # held records that are named
MOST_TAGS = 100  # tags that the filter offers


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance. `detail` says why it is in its `state`; of a standby, who leads.

    `states` and `reasons` count its published clusters, the worst state first.
    """

    name: str
    state: str
    detail: str
    since: datetime | None
    version: int | None
    complete: bool
    succeeded_at: datetime | None
    checked_at: datetime | None
    next_listing_at: datetime | None
    first_lapse_at: datetime | None
    key_expires_at: datetime | None
    error: str
    busy: bool
    states: tuple[tuple[AccessState, int], ...]
    reasons: tuple[tuple[AccessState, str, int], ...]

    @property
    def standby(self) -> bool:
        return self.state == STANDBY


@dataclass(frozen=True, slots=True)
class Process:
    """One of the living daemons. `outdated_since`: since when its configuration has been older than another one."""

    id: str
    me: bool
    version: str
    configuration: str
    leads: tuple[str, ...]
    draining: bool
    outdated_since: datetime | None
    rejected_at: datetime | None


@dataclass(frozen=True, slots=True)
class Held:
    """Records that the prune guard holds for one instance. Of many only the first `MOST_HELD` are in `absences`."""

    instance: str
    count: int
    absences: tuple[tuple[Row, Absence], ...]
    command: str


@dataclass(frozen=True, slots=True)
class Offers:
    """What the filters offer, unsorted; of `tags` the most frequent ones."""

    projects: frozenset[str] = frozenset()
    reasons: frozenset[str] = frozenset()
    instances: frozenset[str] = frozenset()
    auths: frozenset[str] = frozenset()
    tags: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Table:
    """One page of the matching clusters. `first` and `last` are the numbers of its rows, 0 on an empty page.

    The lists are what the filters offer.
    """

    rows: tuple[Row, ...]
    total: int
    matching: int
    page: int
    pages: int
    first: int
    last: int
    projects: list[str]
    reasons: list[str]
    instances: list[str]
    auths: list[str]
    tags: list[str]


@dataclass(frozen=True, slots=True)
class Analysis:
    """What follows from the published state alone, so that requests in a row may share it."""

    rows: tuple[Row, ...]
    problems: tuple[Problem, ...]
    instances: tuple[Instance, ...]
    held: tuple[Held, ...]
    scopes: tuple[tuple[str, ScopeStatus], ...]
    offers: Offers
    processes: tuple[Process, ...] = ()


def analyse(document: Mapping[str, Any], states: Mapping[str, InstanceState], *, now: datetime) -> Analysis:
    """`document` has the shape of `/status.json`; `states` are the snapshots at hand, by instance.

    The problems of an instance for which this process stands by are shown as far as they follow from what Redis holds.
    Projects that failed only because the whole pass did are not named again.
    """
    rows = {name: rows_of(state, now) for name, state in states.items()}
    errors = {name: one.get("error") for name, one in document.get("instances", {}).items()}
    every = tuple(row for name in sorted(rows) for row in rows[name])
    return Analysis(
        rows=every,
        problems=find_problems(_as_reader(document, states), states, now=now),
        instances=tuple(
            _instance(name, one, states.get(name), rows.get(name, []))
            for name, one in sorted(document.get("instances", {}).items())
        ),
        held=tuple(one for name in sorted(states) if (one := _held(name, states[name], rows[name])) is not None),
        scopes=tuple(
            (name, scope)
            for name in sorted(states)
            for scope in sorted(states[name].scopes.values(), key=lambda one: one.name)
            if scope.error and scope.error != errors.get(name)
        ),
        offers=_offers(every),
        processes=tuple(_process(one) for one in document.get("members", ())),
    )


def verdict(problems: tuple[Problem, ...]) -> str:
    """`ok`, `notice` or `problem`."""
    return "problem" if is_wrong(problems) else "notice" if problems else "ok"


def clusters_url(problem: Problem) -> str:
    """Where the clusters that a problem concerns are shown."""
    if problem.reason in HELD:
        return "#held-heading"
    if len(problem.clusters) == 1:
        return Query(instance=problem.instance, name=problem.clusters[0]).url()
    if problem.reason in {Reason.TOKEN_LAPSED, Reason.RENEWAL_FAILING}:  # their records may have other reasons
        return Query(instance=problem.instance, sort="expiry").url()
    return Query(instance=problem.instance, reason=problem.reason.value).url()


def table(analysis: Analysis, query: Query) -> Table:
    """The page of clusters that a request asks for."""
    wanted, rows, offers = query.filter, analysis.rows, analysis.offers
    matching = (
        [row for row in rows if query.instance in ("", row.record.instance) and wanted.matches(row)]
        if query.narrows
        else rows
    )
    pages = max(1, -(-len(matching) // PAGE_SIZE))
    page = min(query.page, pages)
    start = (page - 1) * PAGE_SIZE
    shown = sorted_rows(matching, query.sort, reverse=bool(query.reverse))[start : start + PAGE_SIZE]
    return Table(
        rows=tuple(shown),
        total=len(rows),
        matching=len(matching),
        page=page,
        pages=pages,
        first=start + 1 if shown else 0,
        last=start + len(shown),
        projects=choices(offers.projects, query.project),
        reasons=choices(offers.reasons, query.reason),
        instances=choices(offers.instances, query.instance),
        auths=choices(offers.auths, query.auth),
        tags=choices(offers.tags, ""),
    )


def _offers(rows: tuple[Row, ...]) -> Offers:
    tags = Counter(tag for row in rows for tag in row.record.palette.tags)
    return Offers(
        projects=frozenset(row.project for row in rows),
        reasons=frozenset(row.reason.value for row in rows),
        instances=frozenset(row.record.instance for row in rows),
        auths=frozenset(row.auth for row in rows),
        tags=frozenset(tag for tag, _ in tags.most_common(MOST_TAGS)),
    )


def _as_reader(document: Mapping[str, Any], states: Mapping[str, InstanceState]) -> Mapping[str, Any]:
    """The document with each standby whose snapshot was read as an instance that somebody leads."""
    instances = {
        name: {**one, "state": "led"} if one.get("state") == STANDBY and name in states else one
        for name, one in document.get("instances", {}).items()
    }
    return {**document, "instances": instances}


def _instance(name: str, one: Mapping[str, Any], state: InstanceState | None, rows: list[Row]) -> Instance:
    states = Counter(row.state for row in rows)
    reasons = Counter((row.state, row.reason.value) for row in rows)
    head = state.head if state else None
    return Instance(
        name=name,
        state=str(one.get("state", "unknown")),
        detail=str(one.get("detail", "")),
        since=time_or_none(one, "state_since"),
        version=head.version if head else one.get("version"),
        complete=head.complete if head else bool(one.get("complete")),
        succeeded_at=time_or_none(one, "succeeded_at"),
        checked_at=head.checked_at if head else None,
        next_listing_at=time_or_none(one, "next_listing_at"),
        first_lapse_at=time_or_none(one, "first_lapse_at"),
        key_expires_at=time_or_none(one, "api_key_expires_at"),
        error=str(one.get("error", "")),
        busy="busy_since" in one,
        states=tuple((access, states[access]) for access in WORST_FIRST if states[access]),
        reasons=tuple(
            (access, reason, count)
            for (access, reason), count in sorted(
                reasons.items(), key=lambda entry: (WORST_FIRST.index(entry[0][0]), -entry[1])
            )
        ),
    )


def _process(one: Mapping[str, Any]) -> Process:
    return Process(
        id=str(one["id"]),
        me=one.get("me") is True,
        version=str(one.get("version", "")),
        configuration=str(one.get("configuration", "")),
        leads=tuple(str(name) for name in one.get("leads", ())),
        draining=one.get("draining") is True,
        outdated_since=time_or_none(one, "outdated_since"),
        rejected_at=time_or_none(one, "rejected_at"),
    )


def _held(name: str, state: InstanceState, rows: list[Row]) -> Held | None:
    absences = absences_of(state.status)
    held = sorted((row for row in rows if row.held), key=lambda row: row.record.name)
    if not held:
        return None
    return Held(
        instance=name,
        count=len(held),
        absences=tuple((row, absences[row.record.uid]) for row in held[:MOST_HELD]),
        command=f"palette-sync resync --allow-prune --instance {name}",
    )

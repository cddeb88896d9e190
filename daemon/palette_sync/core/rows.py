"""A published cluster as a row for people: what `clusters` and `show` display, filter and sort by. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from fnmatch import translate
from functools import lru_cache
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from palette_sync.core.documents import present
from palette_sync.core.model import AccessState, OidcAuth
from palette_sync.core.pause import pause_document, pause_of
from palette_sync.core.prune import absences_of
from palette_sync.core.reasons import Reason
from palette_sync.core.snapshot_codec import record_to_dict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from palette_sync.core.model import ClusterMemory, ClusterRecord, InstanceState, SealedCredential
    from palette_sync.core.pause import PauseInForce


@dataclass(frozen=True, slots=True)
class Row:
    """One published cluster. `memory` is None if nothing is remembered, or if it may not be read."""

    record: ClusterRecord
    credential: SealedCredential | None
    memory: ClusterMemory | None
    held: bool
    now: datetime

    @property
    def lapsed(self) -> bool:
        return self.credential is not None and not self.credential.alive(self.now)

    @property
    def state(self) -> AccessState:
        """The state now. A token may have lapsed since the record was written."""
        return AccessState.FAILED if self.lapsed and self.record.access.state in _USABLE else self.record.access.state

    @property
    def reason(self) -> Reason:
        return Reason.TOKEN_LAPSED if self.state is not self.record.access.state else self.record.access.reason

    @property
    def since(self) -> datetime:
        if self.state is not self.record.access.state and self.credential is not None and self.credential.expires_at:
            return self.credential.expires_at
        return self.record.access.since

    @property
    def pause(self) -> PauseInForce | None:
        return pause_of(self.record, self.now)

    @property
    def expires_at(self) -> datetime | None:
        return self.credential.expires_at if self.credential else None

    @property
    def next_try(self) -> datetime | None:
        return self.memory.retry_at if self.memory else None

    @property
    def verified_at(self) -> datetime | None:
        return self.memory.verified_at if self.memory else None

    @property
    def project(self) -> str:
        return self.record.project.name if self.record.project else self.record.scope.value

    @property
    def auth(self) -> str:
        auth = self.record.auth
        return "oidc" if isinstance(auth, OidcAuth) else "token" if auth else "-"

    @property
    def usable(self) -> bool:
        """Whether a reader can use the cluster, or it has merely not been given access yet."""
        return self.state is not AccessState.FAILED


_USABLE = {AccessState.READY, AccessState.DEGRADED}


def rows_of(state: InstanceState, now: datetime) -> list[Row]:
    uids = {uid for uid, absence in absences_of(state.status).items() if absence.held}
    return [
        Row(record, state.credentials.get(uid), state.memory.get(uid), uid in uids, now)
        for uid, record in state.records.items()
    ]


def row_document(row: Row) -> dict[str, object]:
    """The published record, with what is known beside it under `now`; never a token."""
    credential, memory, pause = row.credential, row.memory, row.pause
    beside = present(
        state=row.state.value,
        reason=row.reason.value,
        since=row.since,
        token=credential
        and present(
            issued_at=credential.issued_at,
            renew_at=credential.renew_at,
            expires_at=credential.expires_at,
            lapsed=row.lapsed,
        ),
        verified_at=row.verified_at,
        next_try=row.next_try,
        failures=memory.failures if memory else None,
        held=row.held or None,
        paused=pause and pause_document(pause),
    )
    return {**record_to_dict(row.record), "now": beside}


@dataclass(frozen=True, slots=True)
class Filter:
    """Which rows to show; an empty tuple matches everything, and several patterns mean any of them.

    They are patterns with `*` and `?`, without regard to case. `names` also match title and uid.
    `paused`: only paused clusters.
    """

    names: tuple[str, ...] = ()
    projects: tuple[str, ...] = ()
    states: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    auths: tuple[str, ...] = ()
    paused: bool = field(default=False, kw_only=True)

    def matches(self, row: Row) -> bool:
        record = row.record
        return (
            (not self.names or _any(self.names, (record.name, record.title, record.uid)))
            and (not self.projects or _any(self.projects, (row.project, record.project.uid if record.project else "")))
            and (not self.states or _any(self.states, (row.state.value,)))
            and (not self.reasons or _any(self.reasons, (row.reason.value, record.access.reason.value)))
            and (not self.tags or _any(self.tags, record.palette.tags))
            and (not self.auths or _any(self.auths, (row.auth,)))
            and (not self.paused or row.pause is not None)
        )


def _any(patterns: tuple[str, ...], texts: Iterable[str]) -> bool:
    return any(map(_matcher(patterns), map(str.casefold, texts)))


@lru_cache(maxsize=64)
def _matcher(patterns: tuple[str, ...]) -> Callable[[str], object]:
    """One expression for all patterns: a filter looks at ten thousand rows."""
    return re.compile("|".join(translate(one.casefold()) for one in patterns)).match


_WORST = {state: at for at, state in enumerate(("failed", "degraded", "pending", "ready"))}
# What each order compares, None where a row has no such thing. Times are compared as seconds.
_KEYS: dict[str, Callable[[Row], Any]] = {
    "name": lambda row: row.record.name,
    "project": lambda row: row.project,
    "state": lambda row: _WORST[row.state.value],
    "auth": lambda row: row.auth if row.record.auth else None,
    "version": lambda row: _numbers(row.record.kubernetes_version),
    "expiry": lambda row: row.expires_at and row.expires_at.timestamp(),
    "reason": lambda row: row.reason.value,
    "since": lambda row: -row.since.timestamp(),
    "next-try": lambda row: row.next_try and row.next_try.timestamp(),
}
SORTS = tuple(_KEYS)


def sorted_rows(rows: Iterable[Row], by: str, *, reverse: bool = False) -> list[Row]:
    """Sort by one of `SORTS`, then by name. Rows without a value come last in both directions.

    By state the worst comes first, by `since` the newest.
    """
    key = _KEYS[by]
    by_name = sorted(rows, key=_KEYS["name"], reverse=reverse and by == "name")
    if by == "name":
        return by_name
    keyed = [(key(row), row) for row in by_name]
    known = sorted((one for one in keyed if one[0] is not None), key=itemgetter(0), reverse=reverse)
    return [row for _, row in known] + [row for value, row in keyed if value is None]


def _numbers(version: str | None) -> tuple[int, ...] | None:
    """The numbers in a version such as v1.31.2, so that 1.9 comes before 1.10."""
    found = tuple(int(number) for number in _NUMBER.findall(version or ""))
    return found or None


_NUMBER = re.compile("[0-9]{1,9}")

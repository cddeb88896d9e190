"""A published cluster as a row for people: what `clusters` and `show` display, filter and sort by. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from palette_sync.core.documents import present
from palette_sync.core.model import AccessState, OidcAuth
from palette_sync.core.pause import pause_document, pause_of
from palette_sync.core.prune import absences_of
from palette_sync.core.reasons import Reason
from palette_sync.core.snapshot_codec import record_to_dict

if TYPE_CHECKING:
    from collections.abc import Iterable
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

    `names` and `projects` are patterns with `*` and `?`, without regard to case. `names` also match title and uid.
    `paused`: only paused clusters.
    """

    names: tuple[str, ...] = ()
    projects: tuple[str, ...] = ()
    states: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    paused: bool = field(default=False, kw_only=True)

    def matches(self, row: Row) -> bool:
        record = row.record
        return (
            _any(self.names, (record.name, record.title, record.uid))
            and _any(self.projects, (row.project, record.project.uid if record.project else ""))
            and _any(self.states, (row.state.value,))
            and _any(self.reasons, (row.reason.value, record.access.reason.value))
            and _any(self.tags, record.palette.tags)
            and (not self.paused or row.pause is not None)
        )


def _any(patterns: tuple[str, ...], texts: Iterable[str]) -> bool:
    lowered = [text.casefold() for text in texts]
    return not patterns or any(fnmatchcase(text, one.casefold()) for one in patterns for text in lowered)


SORTS = ("name", "project", "state", "reason", "since", "expiry", "next-try")


def sorted_rows(rows: Iterable[Row], by: str) -> list[Row]:
    """Sort by one of `SORTS`, then by name. By state, the worst comes first; times that do not exist come last."""
    worst = [AccessState.FAILED, AccessState.DEGRADED, AccessState.PENDING, AccessState.READY]
    far = float("inf")

    def moment(at: datetime | None) -> float:
        return far if at is None else at.timestamp()

    def key(row: Row) -> tuple[object, str]:
        match by:
            case "project":
                return row.project, row.record.name
            case "state":
                return worst.index(row.state), row.record.name
            case "reason":
                return row.reason.value, row.record.name
            case "since":
                return -row.since.timestamp(), row.record.name
            case "expiry":
                return moment(row.expires_at), row.record.name
            case "next-try":
                return moment(row.next_try), row.record.name
            case _:
                return row.record.name, row.record.name

    return sorted(rows, key=key)

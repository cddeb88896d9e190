"""The page of one cluster as values: facts, token, objects, what happens next, and its history. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from palette_sync.core.done import last_done
from palette_sync.core.history import FormerVersion, Transition, VersionChange, transitions
from palette_sync.core.model import OidcAuth, ServiceAccountAuth
from palette_sync.core.objects import Kind
from palette_sync.core.prune import absences_of
from palette_sync.core.rows import Row, rows_of
from palette_sync.core.snapshot_codec import encode_record, record_in_history

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from palette_sync.core.done import Done
    from palette_sync.core.history import Record
    from palette_sync.core.model import InstanceState
    from palette_sync.core.objects import Desired
    from palette_sync.core.prune import Absence


@dataclass(frozen=True, slots=True)
class TokenLife:
    """Where a token stands in its life, in percent of it."""

    spent: int
    renewal: int

    @property
    def lapsed(self) -> bool:
        return self.spent >= 100  # noqa: PLR2004 - percent


@dataclass(frozen=True, slots=True)
class Object:
    """An object in the cluster. `done` is what was last done to it, if that is known; `note` is what else is."""

    kind: str
    name: str
    note: str = ""
    done: Done | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """Something that will happen to the cluster by itself."""

    at: datetime
    text: str


@dataclass(frozen=True, slots=True)
class ClusterView:
    row: Row
    facts: tuple[tuple[str, str], ...]
    objects: tuple[Object, ...]
    events: tuple[Event, ...]
    absence: Absence | None
    history: tuple[Transition, ...]


def token_life(row: Row) -> TokenLife | None:
    """None for a cluster without a token, or with one that never ends."""
    credential = row.credential
    if credential is None or credential.expires_at is None or credential.expires_at <= credential.issued_at:
        return None
    life = credential.expires_at - credential.issued_at

    def percent(moment: datetime) -> int:
        return max(0, min(100, int(100 * ((moment - credential.issued_at) / life))))

    return TokenLife(spent=percent(row.now), renewal=percent(credential.renew_at))


def find(state: InstanceState, uid: str, *, now: datetime) -> Row | None:
    """The cluster with that uid, or None."""
    return next((row for row in rows_of(state, now) if row.record.uid == uid), None)


def view(
    row: Row,
    state: InstanceState,
    history: tuple[Sequence[FormerVersion], Sequence[VersionChange]],
    desired: Desired | None,
) -> ClusterView:
    """`history` are the versions that are known, `desired` what the configuration wants in clusters of the instance."""
    return ClusterView(
        row=row,
        facts=tuple((name, value) for name, value in _facts(row) if value),
        objects=_objects(row, desired),
        events=_events(row),
        absence=absences_of(state.status).get(row.record.uid),
        history=_history(row, state, *history),
    )


def _facts(row: Row) -> list[tuple[str, str]]:
    record, palette, auth = row.record, row.record.palette, row.record.auth
    location = palette.location
    return [
        ("title", record.title),
        ("instance", record.instance),
        ("uid", record.uid),
        ("project", row.project),
        ("state in Palette", ", ".join(filter(None, (palette.state, palette.health)))),
        ("cloud", palette.cloud_type),
        ("location", ", ".join(filter(None, (location.region_name, location.country_name)))),
        ("tags", ", ".join(palette.tags)),
        ("API server", record.server.url if record.server else ""),
        ("Kubernetes", record.kubernetes_version or ""),
        ("access by", f"OIDC, {auth.issuer_url}" if isinstance(auth, OidcAuth) else "token" if auth else ""),
    ]


def _objects(row: Row, desired: Desired | None) -> tuple[Object, ...]:
    """The objects of service-account access. For OIDC nothing is created."""
    if desired is None or not isinstance(row.record.auth, ServiceAccountAuth):
        return ()
    memory = row.memory
    secret = memory.generation if memory and memory.generation else desired.secret
    done = memory.done if memory else ()
    bound = "the published token is bound to it; deleting it revokes the token"
    found = [
        Object(kind, name, bound if kind is Kind.SECRET else "", last_done(done, kind))
        for kind, name in (
            (Kind.NAMESPACE, desired.namespace),
            (Kind.SERVICE_ACCOUNT, desired.service_account),
            (Kind.SECRET, secret),
            (Kind.CLUSTER_ROLE, desired.cluster_role),
            (Kind.CLUSTER_ROLE_BINDING, desired.cluster_role_binding),
        )
    ]
    if issued := last_done(done, Kind.TOKEN):
        found.append(Object(Kind.TOKEN, desired.service_account, "", issued))
    if memory:
        found += [
            Object(Kind.SECRET, one.name, f"replaced; deleted after {one.delete_at:%Y-%m-%d %H:%M} UTC")
            for one in memory.retired
        ]
    if memory and memory.legacy:
        note = "of the in-process plugin, with a token that never expires; see palette-sync replace-legacy"
        found.append(Object(Kind.SECRET, desired.secret, note))
    return tuple(found)


def _events(row: Row) -> tuple[Event, ...]:
    credential, memory, found = row.credential, row.memory, []
    if memory is not None:
        if memory.retry_at and memory.failures:
            found.append(Event(memory.retry_at, f"next try, after {memory.failures} failed in a row"))
        if memory.recheck_at:
            found.append(Event(memory.recheck_at, "access is verified again"))
        found += [Event(one.delete_at, f"the Secret {one.name} is deleted") for one in memory.retired]
    if credential is not None:
        found.append(Event(credential.renew_at, "the token is renewed"))
        if credential.expires_at is not None:
            found.append(Event(credential.expires_at, "the token lapses if it was not renewed"))
    return tuple(sorted((one for one in found if one.at > row.now), key=lambda one: one.at))


def _history(
    row: Row, state: InstanceState, entries: Sequence[FormerVersion], changes: Sequence[VersionChange]
) -> tuple[Transition, ...]:
    """The transitions of this cluster alone, so that a version that touched thousands costs nothing."""
    uid, newest = row.record.uid, state.head.version if state.head else 0
    record: Record = dict(record_in_history(encode_record(row.record)))  # times as text, as the history has them
    own_entries = [
        FormerVersion(one.version, one.at, {uid: one.was[uid]})
        for one in entries
        if uid in one.was and one.version <= newest
    ]
    own_changes = [
        VersionChange(one.version, one.at, one.put & {uid}, one.drop & {uid}, one.rotated & {uid})
        for one in changes
        if one.version <= newest and uid in one.put | one.drop | one.rotated
    ]
    return tuple(transitions(own_entries, own_changes, {uid: record}))

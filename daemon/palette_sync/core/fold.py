"""Fold the result of work on a cluster into the record that is published and the memory that is kept. Pure.

Stale data beats partial data (invariant 1, docs/architecture.md): a failure never removes the last good server,
credential or version. It only changes `access`. The exception is a login that the configuration does not allow.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from palette_sync.core.done import done_after
from palette_sync.core.model import (
    RUNNING,
    SERVED,
    Access,
    AccessState,
    Auth,
    Cluster,
    ClusterKey,
    ClusterMemory,
    ClusterRecord,
    OidcAuth,
    PaletteFacts,
    RetiredSecret,
    Scope,
    Server,
    ServiceAccountAuth,
)
from palette_sync.core.pause import lasting, pause_in_force
from palette_sync.core.reasons import Reason
from palette_sync.core.rotation import backoff, rests
from palette_sync.core.text import one_line

if TYPE_CHECKING:
    from datetime import datetime

    from palette_sync.core.actions import Action
    from palette_sync.core.ways import Way

LEGACY_MESSAGE = (
    "this cluster holds a token Secret that never expires; once nothing uses it, remove it with "
    "`palette-sync replace-legacy`"
)
LONGEST_MESSAGE = 2048  # characters
MOST_RETIRED = 32
SHORTEST_BACKOFF = timedelta(seconds=2)
# API servers accept a token for 10 s after its Secret was deleted (kubernetes, `pkg/kubeapiserver/authenticator`), and
# the clocks may differ a little.
TOKEN_CACHE = timedelta(seconds=12)


@dataclass(frozen=True, slots=True)
class AccessGained:
    """Access was proven in this pass. `legacy`: the cluster holds a token Secret of another tool that never expires.

    `validity`: the life that was requested for the published token. `recheck`: the proof may have come from the API
    server's token cache, so the token is verified again once that has passed.
    `way`: how the server was reached, if another way is tried first.
    """

    server: Server
    auth: Auth
    kubernetes_version: str | None
    desired: str
    generation: str | None = None
    retired: tuple[RetiredSecret, ...] = ()
    legacy: bool = False
    way: Way | None = None
    validity: timedelta | None = None
    recheck: bool = False


@dataclass(frozen=True, slots=True)
class AccessFailed:
    """Access could not be proven. `pending`: nothing is wrong, something is not available yet.

    `withheld`: readers cannot use the cluster, whether its token lives or not. `withdrawn`: the published server and
    login must not be used any more.
    """

    reason: Reason
    message: str
    pending: bool = False
    withdrawn: bool = False
    withheld: bool = False


def without_token(failure: AccessFailed) -> AccessFailed:
    """The failure to replace a token that the API server refuses, with both facts in its message."""
    message = f"the API server refuses the published token, and it could not be replaced: {failure.message}"
    return replace(failure, message=message)


Verdict = AccessGained | AccessFailed


@dataclass(frozen=True, slots=True)
class Presentation:
    """How readers show an instance's clusters: title, console for links, metrics flag."""

    title: str
    console_url: str
    skip_metrics_lookup: bool = True


def fold_record(
    cluster: Cluster,
    *,
    key: ClusterKey,
    name: str,
    previous: ClusterRecord | None,
    verdict: Verdict | None,
    credential_alive: bool,
    presentation: Presentation,
    now: datetime,
) -> ClusterRecord:
    """Return the record to publish. `verdict` is None if nothing was due.

    `credential_alive`: the credential that will be published beside the record (the new one, if any) has not expired.
    """
    server = previous.server if previous else None
    auth = previous.auth if previous else None
    version = previous.kubernetes_version if previous else None
    if isinstance(verdict, AccessGained):
        server, auth, version = verdict.server, verdict.auth, verdict.kubernetes_version or version
    elif isinstance(verdict, AccessFailed) and verdict.withdrawn:
        server = auth = None
    usable = server is not None and (isinstance(auth, OidcAuth) or credential_alive)
    state, reason, message = _access(cluster, previous, verdict, auth, usable=usable, now=now)
    same = previous is not None and (previous.access.state, previous.access.reason) == (state, reason)
    return ClusterRecord(
        uid=cluster.uid,
        name=name,
        title=_title(cluster, presentation.title),
        instance=key.instance,
        scope=cluster.scope,
        project=cluster.project if cluster.scope is Scope.PROJECT else None,
        server=server,
        auth=auth,
        palette=PaletteFacts(
            state=cluster.state,
            health=cluster.health,
            cloud_type=cluster.cloud_type,
            # Whole seconds, as published: a record must equal what is read back.
            created_at=cluster.created_at.replace(microsecond=0) if cluster.created_at else None,
            tags=cluster.tags,
            location=cluster.location,
            paused=cluster.paused,
        ),
        access=Access(
            state, reason, one_line(message, LONGEST_MESSAGE), previous.access.since if same and previous else now
        ),
        kubernetes_version=version,
        skip_metrics_lookup=presentation.skip_metrics_lookup,
        dashboard_url=_dashboard_url(cluster, presentation.console_url),
        pause=lasting(previous.pause if previous else None, now),
    )


def fold_memory(
    memory: ClusterMemory,
    verdict: Verdict,
    *,
    key: ClusterKey,
    desired: str,
    now: datetime,
    expires_at: datetime | None = None,
    hung: bool = False,
    actions: tuple[Action, ...] = (),
) -> ClusterMemory:
    """Return the new memory: success clears the failures, a failure starts a longer backoff.

    A failure within the backoff, after an operator's resync or a verification, does not count and changes no backoff.
    `desired` is the fingerprint that was tried: a changed configuration is tried once and then waits for the backoff.
    `expires_at` is the expiry of the published token: the backoff leaves time for several more attempts before it.
    `hung`: the API server was silent. `actions` were carried out in the cluster.
    """
    done = done_after(memory.done, ((one.kind.value, one.verb, one.reason.value) for one in actions), now)
    if isinstance(verdict, AccessGained):
        return ClusterMemory(
            verified_at=now,
            generation=verdict.generation,
            desired=verdict.desired,
            # Those that are left out are found in the cluster again.
            retired=verdict.retired[:MOST_RETIRED],
            legacy=verdict.legacy,
            way=verdict.way,
            validity=verdict.validity,
            recheck_at=now + TOKEN_CACHE if verdict.recheck else None,
            done=done,
        )
    if rests(memory, now, verdict.reason):
        return replace(memory, desired=desired, tried_at=now, hung=hung, done=done)
    failures = memory.failures + 1
    pause = backoff(failures, key, verdict.reason)
    if expires_at is not None and expires_at > now:
        pause = max(min(pause, (expires_at - now) / 4), SHORTEST_BACKOFF)
    retry_at = (now + pause).replace(microsecond=0)
    return replace(memory, failures=failures, retry_at=retry_at, desired=desired, tried_at=now, hung=hung, done=done)


def without_legacy(record: ClusterRecord, memory: ClusterMemory, now: datetime) -> tuple[ClusterRecord, ClusterMemory]:
    """A cluster whose legacy token Secret was just deleted. Its access was proven with the published token before."""
    if record.access.reason is Reason.LEGACY_TOKEN:
        record = replace(record, access=Access(record.access.state, Reason.VERIFIED, "", now))
    return record, replace(memory, legacy=False)


def _access(
    cluster: Cluster,
    previous: ClusterRecord | None,
    verdict: Verdict | None,
    auth: Auth | None,
    *,
    usable: bool,
    now: datetime,
) -> tuple[AccessState, Reason, str]:
    """State, reason and message. The first that applies counts: this pass's verdict, paused in Palette, an expired
    token, what was published before, imported, not Running, an operator's pause, Waiting. Paused in Palette is a
    failure because nobody can use the cluster; imported and not Running are only pending, because nothing failed.
    """
    if isinstance(verdict, AccessGained):
        if verdict.legacy:
            return AccessState.READY, Reason.LEGACY_TOKEN, LEGACY_MESSAGE
        return AccessState.READY, Reason.VERIFIED, ""
    if isinstance(verdict, AccessFailed):
        if usable and not verdict.withheld:
            return AccessState.DEGRADED, verdict.reason, verdict.message
        state = AccessState.PENDING if verdict.pending else AccessState.FAILED
        return state, verdict.reason, verdict.message
    if cluster.paused:
        return AccessState.FAILED, Reason.PAUSED, "the virtual cluster is paused in Palette"
    if previous is not None and previous.server is not None:
        if isinstance(auth, ServiceAccountAuth) and not usable and previous.access.state in SERVED:
            return AccessState.FAILED, Reason.TOKEN_LAPSED, "the token expired before it could be renewed"
        return previous.access.state, previous.access.reason, previous.access.message
    return _without_access(cluster, previous, now)


def _without_access(cluster: Cluster, previous: ClusterRecord | None, now: datetime) -> tuple[AccessState, Reason, str]:
    """The same of a cluster to which access was never gained."""
    if cluster.imported or cluster.state != RUNNING:
        return (AccessState.PENDING, *_not_available(cluster))
    pause = pause_in_force(previous, cluster.tags, now)
    if pause is not None and (previous is None or previous.access.state is AccessState.PENDING):
        return AccessState.PENDING, Reason.WRITES_PAUSED, f"first access is not tried: {pause.text}"
    if previous is not None and previous.access.reason is not Reason.WRITES_PAUSED:
        return previous.access.state, previous.access.reason, previous.access.message
    return AccessState.PENDING, Reason.WAITING, "first access has not been tried yet"


def _not_available(cluster: Cluster) -> tuple[Reason, str]:
    """Why a cluster without access cannot get it now, although nothing failed."""
    if cluster.imported:
        return Reason.IMPORTED, "it was imported into Palette, which offers no kubeconfig of imported clusters"
    state = cluster.state or "no state"
    return Reason.NOT_RUNNING, f"Palette reports {state}; access is given once it reports Running"


def _title(cluster: Cluster, instance_title: str) -> str:
    place = cluster.project.name if cluster.project else "tenant"
    return f"{cluster.name} ({instance_title}: {place})" if instance_title else f"{cluster.name} ({place})"


def _dashboard_url(cluster: Cluster, console_url: str) -> str | None:
    if not console_url:
        return None
    base = console_url.rstrip("/")
    scope = f"projects/{cluster.project.uid}" if cluster.project else "admin"
    return f"{base}/{scope}/clusters/{cluster.uid}/overview"


def cluster_of(record: ClusterRecord) -> Cluster:
    """Rebuild a listing's row from a record, to work on a cluster whose scope could not be listed."""
    facts = record.palette
    return Cluster(
        uid=record.uid,
        name=record.name,
        scope=record.scope,
        project=record.project,
        state=facts.state,
        health=facts.health,
        cloud_type=facts.cloud_type,
        created_at=facts.created_at,
        tags=facts.tags,
        location=facts.location,
        paused=facts.paused,
        imported=record.access.reason is Reason.IMPORTED,
    )

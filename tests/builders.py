"""Builders for the values of the core, for tests of every level: a test names only the fields that it is about.

All times are relative to `NOW`. Golden files and random records (`contract/`) are the exception: they spell out every
field, because a changed default here must not change them.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from palette_sync.core.documents import format_time
from palette_sync.core.due import Candidate
from palette_sync.core.model import (
    SCHEMA,
    TENANT_SCOPE,
    Access,
    AccessState,
    AuthMode,
    Cluster,
    ClusterKey,
    ClusterMemory,
    ClusterRecord,
    Credential,
    Discovery,
    Head,
    InstanceState,
    Listing,
    OidcAuth,
    PaletteFacts,
    Project,
    Scope,
    SealedCredential,
    Secret,
    Server,
    ServiceAccountAuth,
)
from palette_sync.core.reasons import Reason
from palette_sync.core.snapshot_codec import SealedFor, digest, encode_unconfirmed, sealed_for

if TYPE_CHECKING:
    from palette_sync.store.seal import Sealer

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)

TEAM_A = Project("p-a", "team-a")
TEAM_B = Project("p-b", "team-b")
INSTANCE = "alpha"
KEY = ClusterKey(INSTANCE, "c1")
CA = "Q0EgUEVN"  # base64 of "CA PEM"
SERVER = Server("https://10.0.0.1:6443", ca_data=CA)
SERVICE_ACCOUNT = ServiceAccountAuth()
OIDC = OidcAuth("spectrocloud", "https://issuer.example", "backstage")


def cluster(uid: str = "c1", name: str = "web", **changes: Any) -> Cluster:
    """A running cluster of team A."""
    facts: dict[str, Any] = {"scope": Scope.PROJECT, "project": TEAM_A, "state": "Running", "health": "Healthy"}
    return Cluster(uid=uid, name=name, **(facts | changes))


def tenant_cluster(uid: str = "c1", name: str = "shared", **changes: Any) -> Cluster:
    return cluster(uid, name, **({"scope": Scope.TENANT, "project": None} | changes))


def access(state: AccessState = AccessState.READY, reason: Reason = Reason.VERIFIED, message: str = "") -> Access:
    return Access(state, reason, message, since=NOW - 5 * HOUR)


def record(uid: str = "c1", name: str = "alpha-web", **changes: Any) -> ClusterRecord:
    """A ready service-account cluster of team A, as `cluster()` would be published."""
    facts: dict[str, Any] = {
        "title": "web (team-a)",
        "instance": INSTANCE,
        "scope": Scope.PROJECT,
        "project": TEAM_A,
        "server": SERVER,
        "auth": SERVICE_ACCOUNT,
        "palette": PaletteFacts(state="Running", health="Healthy"),
        "access": access(),
        "kubernetes_version": "v1.33.1",
    }
    return ClusterRecord(uid=uid, name=name, **(facts | changes))


def tenant_record(uid: str = "c1", **changes: Any) -> ClusterRecord:
    return record(uid, **({"scope": Scope.TENANT, "project": None} | changes))


def by_uid(*some: ClusterRecord) -> dict[str, ClusterRecord]:
    return {one.uid: one for one in some}


def records(count: int, *, start: int = 0, **changes: Any) -> dict[str, ClusterRecord]:
    """So many records by uid: `u00000`, `u00001`, ... Each has every fact that Palette lists."""
    palette = PaletteFacts("Running", "Healthy", cloud_type="aws", created_at=NOW, tags=("env:prod",))
    return by_uid(
        *(
            record(f"u{number:05}", f"alpha-{number:05}", **({"palette": palette} | changes))
            for number in range(start, start + count)
        )
    )


# A token in the middle of its life: not due for renewal.
TIMES: dict[str, Any] = {"issued_at": NOW - HOUR, "renew_at": NOW + 10 * HOUR, "expires_at": NOW + 23 * HOUR}


def credential(token: str = "canary-token", **changes: Any) -> Credential:
    """A token as a cluster issued it, in the middle of its life."""
    return Credential(Secret(token), **(TIMES | changes))


def sealed_credential(**changes: Any) -> SealedCredential:
    """The same token as Redis holds it."""
    return SealedCredential(**(TIMES | {"sealed": "sealed"} | changes))


def candidate(**changes: Any) -> Candidate:
    """A healthy, published service-account cluster on which nothing is due."""
    facts: dict[str, Any] = {
        "key": KEY,
        "cluster": cluster(),
        "record": record(),
        "credential": sealed_credential(),
        "memory": ClusterMemory(verified_at=NOW, desired="as-configured"),
        "mode": AuthMode.SERVICE_ACCOUNT,
        "desired": "as-configured",
    }
    return Candidate(**(facts | changes))


def listing(project: Project, *clusters: Cluster, error: str | None = None) -> Listing:
    return Listing(project.uid, project.name, clusters=clusters, error=error)


def tenant_listing(*clusters: Cluster, error: str | None = None, not_permitted: bool = False) -> Listing:
    return Listing(TENANT_SCOPE, TENANT_SCOPE, clusters=clusters, error=error, not_permitted=not_permitted)


def discovery(*listings: Listing, projects: tuple[Project, ...] | None = (TEAM_A, TEAM_B)) -> Discovery:
    return Discovery("tenant-uid", "acme", projects=projects, listings=listings)


def target(uid: str = "c1", *, prefix: str = "p", **changes: Any) -> SealedFor:
    """What the token `credential()` of `record(uid)` belongs to."""
    return replace(sealed_for(prefix, record(uid), credential()), **changes)


def token_in(state: InstanceState, uid: str, *, sealer: Sealer, prefix: str) -> Secret:
    """The published token of a cluster. Raises SealError."""
    credential = state.credentials[uid]
    return sealer.open(sealed_for(prefix, state.records[uid], credential), credential.sealed)


def head(**changes: Any) -> Head:
    """The head of a snapshot without clusters, unsigned."""
    facts: dict[str, Any] = {
        "schema": SCHEMA,
        "epoch": 7,
        "version": 1,
        "digest": digest({}),
        "credentials_digest": digest({}),
        "mac": "",
        "clusters": 0,
        "complete": True,
        "changed_at": NOW,
        "checked_at": NOW,
        "checked_mac": "",
        "writer": "host:1",
    }
    return Head(**(facts | changes))


def head_fields(head: Head) -> dict[str, str]:
    """The head as the fields of its Redis hash, as the publishing script writes them."""
    return {
        "schema": str(head.schema),
        "epoch": str(head.epoch),
        "version": str(head.version),
        "digest": head.digest,
        "credentials_digest": head.credentials_digest,
        "mac": head.mac,
        "clusters": str(head.clusters),
        "complete": "1" if head.complete else "0",
        "changed_at": format_time(head.changed_at),
        "checked_at": format_time(head.checked_at) if head.checked_at else "",
        "checked_mac": head.checked_mac,
        "unconfirmed": encode_unconfirmed(head.unconfirmed),
        "writer": head.writer,
    }

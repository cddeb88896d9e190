"""Small builders, so that a test names only what it is about."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from palette_sync.core.due import Candidate
from palette_sync.core.model import (
    Access,
    AccessState,
    AuthMode,
    Cluster,
    ClusterKey,
    ClusterRecord,
    Discovery,
    Listing,
    PaletteFacts,
    Project,
    Scope,
    SealedCredential,
    Server,
    ServiceAccountAuth,
    Work,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SHOP = Project("p1", "shop")
BANK = Project("p2", "bank")
SERVER = Server("https://api.example:6443", "Y2E=")


def cluster(uid: str = "c1", **given: Any) -> Cluster:
    values: dict[str, Any] = {
        "name": uid,
        "scope": Scope.PROJECT,
        "project": SHOP,
        "state": "Running",
        "health": "Healthy",
    }
    return Cluster(uid=uid, **(values | given))


def tenant_cluster(uid: str = "t1", **given: Any) -> Cluster:
    return cluster(uid, scope=Scope.TENANT, project=None, **given)


def record(uid: str = "c1", **given: Any) -> ClusterRecord:
    values: dict[str, Any] = {
        "name": f"prod-{uid}",
        "title": uid,
        "instance": "prod",
        "scope": Scope.PROJECT,
        "project": SHOP,
        "server": SERVER,
        "auth": ServiceAccountAuth(),
        "palette": PaletteFacts("Running", "Healthy"),
        "access": Access(AccessState.READY, "Verified", "", NOW),
    }
    return ClusterRecord(uid=uid, **(values | given))


def credential(**given: Any) -> SealedCredential:
    values: dict[str, Any] = {
        "issued_at": NOW - timedelta(hours=1),
        "renew_at": NOW + timedelta(hours=8),
        "expires_at": NOW + timedelta(hours=23),
        "sealed": "x",
    }
    return SealedCredential(**(values | given))


def work(**given: Any) -> Work:
    return Work(**({"verified_at": NOW, "generation": "s", "desired": "d"} | given))


def candidate(**given: Any) -> Candidate:
    values: dict[str, Any] = {
        "key": ClusterKey("prod", "c1"),
        "cluster": cluster(),
        "record": record(),
        "credential": credential(),
        "work": work(),
        "mode": AuthMode.SERVICE_ACCOUNT,
        "desired": "d",
    }
    return Candidate(**(values | given))


def listing(project: Project, *clusters: Cluster, **given: Any) -> Listing:
    return Listing(project.uid, project.name, clusters, **given)


def discovery(*listings: Listing, projects: tuple[Project, ...] | None = (SHOP, BANK), **given: Any) -> Discovery:
    return Discovery("tenant", "org", projects, listings, **given)

"""Hypothesis strategies for the values that are stored in Redis, whatever a foreign system put into them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from palette_sync.core.done import Done
from palette_sync.core.model import (
    UID,
    Access,
    AccessState,
    ClusterMemory,
    ClusterRecord,
    Head,
    IssuerMetadata,
    Location,
    OidcAuth,
    PaletteFacts,
    Pause,
    Project,
    RetiredSecret,
    Scope,
    ScopeStatus,
    SealedCredential,
    Server,
    ServiceAccountAuth,
)
from palette_sync.core.reasons import Reason
from palette_sync.core.ways import Way

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
uids = st.from_regex(UID, fullmatch=True)
lines = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"), min_size=1, max_size=12)
numbers = st.integers(0, 10**15 - 1)
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
times = st.datetimes(
    min_value=datetime(1000, 1, 2),  # noqa: DTZ001 - hypothesis takes naive limits
    max_value=datetime(8999, 12, 30),  # noqa: DTZ001
    timezones=st.just(UTC),
).map(lambda moment: moment.replace(microsecond=0))
many = st.lists(texts, max_size=4).map(tuple)
records = st.builds(
    ClusterRecord,
    uid=uids,
    name=names,
    title=texts,
    instance=names,
    scope=st.sampled_from(Scope),
    project=st.none() | st.builds(Project, uid=uids, name=texts),
    server=st.none() | st.builds(Server, url=lines, ca_data=st.none() | lines, tls_server_name=st.none() | lines),
    auth=st.none()
    | st.builds(ServiceAccountAuth)
    | st.builds(OidcAuth, oidc_token_provider=texts, issuer_url=texts, client_id=texts),
    palette=st.builds(
        PaletteFacts,
        state=texts,
        health=texts,
        cloud_type=texts,
        created_at=st.none() | times,
        tags=many,
        location=st.builds(Location, texts, texts, texts, texts),
        paused=st.booleans(),
    ),
    access=st.builds(
        Access, state=st.sampled_from(AccessState), reason=st.sampled_from(Reason), message=texts, since=times
    ),
    kubernetes_version=st.none() | texts,
    skip_metrics_lookup=st.booleans(),
    dashboard_url=st.none() | texts,
    pause=st.none() | st.builds(Pause, reason=texts, by=texts, since=times, until=st.none() | times),
)
credentials = st.builds(SealedCredential, issued_at=times, renew_at=times, expires_at=st.none() | times, sealed=names)
memories = st.builds(
    ClusterMemory,
    verified_at=st.none() | times,
    failures=st.integers(0, 2**40),
    retry_at=st.none() | times,
    generation=st.none() | texts,
    desired=st.none() | texts,
    retired=st.lists(st.builds(RetiredSecret, name=names, uid=names, delete_at=times), max_size=3).map(tuple),
    legacy=st.booleans(),
    way=st.none() | st.sampled_from(Way),
    validity=st.none() | st.integers(0, 2**32).map(lambda seconds: timedelta(seconds=seconds)),
    recheck_at=st.none() | times,
    tried_at=st.none() | times,
    hung=st.booleans(),
    done=st.lists(
        st.builds(Done, verb=texts, reason=texts, at=times, kinds=st.lists(texts, max_size=3).map(tuple)), max_size=3
    ).map(tuple),
)
scopes = st.builds(
    ScopeStatus, name=texts, listed_at=st.none() | times, error=st.none() | texts, since=st.none() | times
)
issuers = st.builds(
    IssuerMetadata,
    issuer=names,
    authorization_endpoint=texts,
    token_endpoint=texts,
    jwks_uri=texts,
    key_ids=many,
    algorithms=many,
    fetched_at=st.none() | times,
    valid_until=st.none() | times,
    error=st.none() | texts,
)
heads = st.builds(
    Head,
    schema=st.just(1),
    epoch=numbers,
    version=numbers,
    digest=lines,
    credentials_digest=lines,
    mac=texts,
    clusters=st.integers(0, 10**6),
    complete=st.booleans(),
    changed_at=times,
    checked_at=st.none() | times,
    checked_mac=texts,
    writer=texts,
    unconfirmed=st.sets(uids, max_size=3).map(lambda some: tuple(sorted(some))),
)


def full_record() -> dict[str, Any]:
    """The JSON document of a record in which no field is absent."""
    return {
        "uid": "u1",
        "name": "alpha-web",
        "title": "web",
        "instance": "alpha",
        "scope": "project",
        "project": {"uid": "p1", "name": "Shop"},
        "server": {"url": "https://10.0.0.1:6443", "ca_data": "Q0E=", "tls_server_name": "api.web"},
        "auth": {"provider": "oidc", "oidc_token_provider": "sp", "issuer_url": "https://i", "client_id": "c"},
        "palette": {
            "state": "Running",
            "health": "Healthy",
            "cloud_type": "aws",
            "created_at": "2026-01-31T09:30:00Z",
            "tags": ["env:prod"],
            "location": {"country_code": "DE"},
        },
        "access": {"state": "ready", "reason": "Verified", "message": "", "since": "2026-01-31T09:30:00Z"},
        "kubernetes_version": "v1.31.2",
        "skip_metrics_lookup": True,
        "dashboard_url": "https://console/x",
        "pause": {
            "reason": "it moves",
            "by": "anna@host:1",
            "since": "2026-01-31T09:30:00Z",
            "until": "2026-01-31T11:30:00Z",
        },
    }

"""A kubeconfig for one cluster with its published token, as `kubectl` reads it. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from palette_sync.core.durations import time_for_people
from palette_sync.core.model import SERVED, OidcAuth
from palette_sync.core.text import visible

if TYPE_CHECKING:
    from datetime import datetime

    from palette_sync.core.model import ClusterRecord, SealedCredential, Secret


def kubeconfig_problem(record: ClusterRecord, credential: SealedCredential | None, now: datetime) -> str:
    """Why there is no kubeconfig for a cluster, or ""."""
    if isinstance(record.auth, OidcAuth):
        return f"users log in to it with their own OIDC token of {record.auth.issuer_url}; no token is published"
    if credential is not None and credential.expires_at is not None and not credential.alive(now):
        return f"its token lapsed at {time_for_people(credential.expires_at)}"
    if record.server is None or credential is None or record.access.state not in SERVED:
        return f"there is no access to it: {record.access.reason}: {record.access.message}".rstrip(": ")
    return ""


def kubeconfig_document(record: ClusterRecord, token: Secret) -> dict[str, object]:
    """The kubeconfig of a cluster that has none of these problems. It holds the bare token."""
    assert record.server is not None
    server = record.server
    cluster: dict[str, object] = {"server": server.url}
    if server.ca_data is not None:
        cluster["certificate-authority-data"] = server.ca_data
    if server.tls_server_name is not None:
        cluster["tls-server-name"] = server.tls_server_name
    name, user = visible(record.name), f"{visible(record.name)}-read-only"
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": user, "user": {"token": token.reveal()}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": user}}],
        "current-context": name,
    }

"""Downloads for one cluster: kubeconfig files and the OIDC configuration.

Requests for a cluster in a project carry the project's header; requests for a tenant-scoped cluster do not. Nothing is
cached.
"""

from __future__ import annotations

import base64
import binascii
import re
from http import HTTPStatus
from typing import TYPE_CHECKING

from palette_sync.core.model import Scope, Secret
from palette_sync.palette.errors import NotFound, Rejected
from palette_sync.palette.rows import OidcSpec, read_oidc

if TYPE_CHECKING:
    from collections.abc import Mapping

    from palette_sync.core.model import Cluster
    from palette_sync.palette.client import PaletteClient

ADMIN_KUBECONFIG = "/v1/spectroclusters/{uid}/assets/adminKubeconfig"
KUBECONFIG = "/v1/spectroclusters/{uid}/assets/kubeconfig"
KUBECONFIG_CLIENT = "/v1/spectroclusters/{uid}/assets/kubeconfigclient"
OIDC = "/v1/spectroclusters/{uid}/oidc"

_WITHOUT_PATH = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.GONE})
_MAPPING = re.compile(r'^(?:[A-Za-z"\'][\w"\' -]*:(?:\s|$)|\{)', re.MULTILINE)


async def admin_kubeconfig(client: PaletteClient, cluster: Cluster) -> Secret:
    """Download the cluster-admin kubeconfig. Raises NotFound (not ready), NotPermitted, and other PaletteErrors."""
    return await _file(client, ADMIN_KUBECONFIG, cluster)


async def kubeconfig(client: PaletteClient, cluster: Cluster, *, frp: bool) -> Secret:
    """Download the kubeconfig for users. With `frp` it names the reverse proxy's address if the cluster has one.

    A Palette without that path has `kubeconfigclient`, which knows no `frp`: the vendor's SDK deprecates the former in
    favour of the latter. Raises NotFound (not ready, or no OIDC configured), NotPermitted, and other PaletteErrors.
    """
    try:
        return await _file(client, KUBECONFIG, cluster, {"frp": "true" if frp else "false"})
    except (NotFound, Rejected) as error:
        if error.status not in _WITHOUT_PATH or error.code == "ResourceNotFound":
            raise
    return await _file(client, KUBECONFIG_CLIENT, cluster)


async def oidc_spec(client: PaletteClient, cluster: Cluster) -> OidcSpec | None:
    """Read the OIDC configuration without its secret; None if the cluster has no OIDC.

    Palette's answer for a cluster without OIDC is not documented, so an empty object and a 404 both count as that.
    Raises NotPermitted and other PaletteErrors.
    """
    try:
        document = await client.get_json(OIDC, uid=cluster.uid, project=_project_of(cluster))
    except NotFound:
        return None
    return read_oidc(document)


async def _file(client: PaletteClient, api: str, cluster: Cluster, params: Mapping[str, str] | None = None) -> Secret:
    body = await client.get_file(api, uid=cluster.uid, project=_project_of(cluster), params=params)
    if not body.strip():
        raise NotFound(f"GET {api.format(uid=cluster.uid)}: the file is empty")
    text = decode_file(body)
    # Palette did answer. What is no kubeconfig is handed on, so that its reader says what is wrong with it.
    return Secret(body.decode(errors="replace") if text is None else text)


def decode_file(body: bytes) -> str | None:
    """Decode a kubeconfig sent as plain text or as base64; None if the body is neither.

    It counts as base64 only if the whole body decodes, and the result looks like a YAML mapping.
    """
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    if _MAPPING.search(text):
        return text
    try:
        inner = base64.b64decode("".join(text.split()), validate=True).decode("utf-8-sig")
    except (binascii.Error, ValueError):
        return None
    return inner if _MAPPING.search(inner) else None


def _project_of(cluster: Cluster) -> str | None:
    if cluster.scope is Scope.TENANT or cluster.project is None:
        return None
    return cluster.project.uid

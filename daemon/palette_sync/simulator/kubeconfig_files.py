"""The kubeconfig files that Palette offers for download, as text."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from palette_sync.simulator.exchange import OCTETS, Answer

if TYPE_CHECKING:
    from palette_sync.simulator.cluster import SimCluster

_CLUSTER = """apiVersion: v1
kind: Config
preferences: {{}}
clusters:
- name: {name}
  cluster:
    {trust}
    server: {server}
contexts:
- name: {user}@{name}
  context:
    cluster: {name}
    user: {user}
current-context: {user}@{name}
users:
- name: {user}
  user:
"""
_CERTIFICATE = """    client-certificate-data: {certificate}
    client-key-data: {key}
"""
_KUBELOGIN = """    exec:
      apiVersion: client.authentication.k8s.io/v1beta1
      command: kubectl
      args:
      - oidc-login
      - get-token
      - --oidc-issuer-url={issuer}
      - --oidc-client-id={client_id}
      - --oidc-client-secret={client_secret}
      - --oidc-extra-scope=openid
      - --oidc-extra-scope=profile
      - --oidc-extra-scope=email
      interactiveMode: IfAvailable
      provideClusterInfo: false
"""


def _b64(content: str | bytes) -> str:
    return base64.b64encode(content if isinstance(content, bytes) else content.encode()).decode()


def _trust(cluster: SimCluster) -> str:
    if cluster.skips_verification:
        return "insecure-skip-tls-verify: true"
    return f"certificate-authority-data: {_b64(cluster.ca_pem)}"


def admin_kubeconfig(cluster: SimCluster) -> str:
    """Build the administrator's kubeconfig, with the names that kubeadm uses."""
    head = _CLUSTER.format(name="kubernetes", user="kubernetes-admin", trust=_trust(cluster), server=cluster.url)
    return head + _CERTIFICATE.format(certificate=_b64(cluster.admin_certificate), key=_b64(cluster.admin_key))


def oidc_kubeconfig(cluster: SimCluster, *, proxied: bool) -> str:
    """Build the users' kubeconfig of an OIDC cluster. `proxied`: with a second server name, as with Spectro Proxy."""
    server = cluster.url.replace("127.0.0.1", "localhost") if proxied else cluster.url
    head = _CLUSTER.format(name=cluster.name, user="oidc", trust=_trust(cluster), server=server)
    instance = cluster.instance
    return head + _KUBELOGIN.format(
        issuer=instance.issuer_url, client_id=cluster.oidc_client_id, client_secret=instance.oidc_client_secret
    )


def download(cluster: SimCluster, text: str) -> Answer:
    """Answer with a file. For half of the clusters (by uid) the body is base64."""
    body = _b64(text) if encoded(cluster) else text
    disposition = f'attachment; filename="{cluster.name}.kubeconfig"'
    return Answer(200, body.encode(), OCTETS, {"Content-Disposition": disposition})


def encoded(cluster: SimCluster) -> bool:
    """Return whether this cluster's files are sent as base64."""
    return int(cluster.uid[-1], 16) % 2 == 1

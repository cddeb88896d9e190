"""The kubeconfig files that Palette offers for download, as text."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING
from urllib.parse import quote

from palette_sync.simulator.exchange import OCTETS, Answer

if TYPE_CHECKING:
    from palette_sync.simulator.cluster import AdminFile, SimCluster

GKE_PROJECT, GKE_LOCATION = "simulated-project", "europe-west3"
_CLUSTER = """apiVersion: v1
kind: Config
preferences: {{}}
clusters:
- name: {name}
  cluster:
    {trust}
    server: {server}
contexts:
- name: {context}
  context:
    cluster: {name}
    user: {user}
current-context: {context}
users:
- name: {user}
  user:
"""
_CERTIFICATE = """    client-certificate-data: {certificate}
    client-key-data: {key}
"""
_BEARER = """    token: {token}
"""
_EXEC = """    exec:
      apiVersion: client.authentication.k8s.io/v1beta1
      command: {command}
      args: [{args}]
      interactiveMode: IfAvailable
      provideClusterInfo: false
"""
# Command and arguments of the programs that the clouds' own tools put into a kubeconfig.
_PROGRAMS: dict[AdminFile, tuple[str, tuple[str, ...]]] = {
    "eks-authenticator": ("aws-iam-authenticator", ("token", "-i", "{name}")),
    "eks-cli": ("aws", ("--region", "eu-central-1", "eks", "get-token", "--cluster-name", "{name}")),
    "gke-plugin": ("gke-gcloud-auth-plugin", ()),
    "aks-kubelogin": (
        "kubelogin",
        ("get-token", "--environment", "AzurePublicCloud", "--server-id", "6dae42f8-4368-4678-94ff-3960e28e3630"),
    ),
}
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


def _trust(cluster: SimCluster, ca_pem: str | None = None) -> str:
    if cluster.skips_verification:
        return "insecure-skip-tls-verify: true"
    return f"certificate-authority-data: {_b64(ca_pem or cluster.ca_pem)}"


def admin_kubeconfig(cluster: SimCluster) -> str | None:
    """Build the administrator's kubeconfig, with the names that the cluster's tools use; None = no such file."""
    if cluster.admin_file == "none":
        return None
    return _head(cluster, cluster.server) + _admin_user(cluster)


def user_kubeconfig(cluster: SimCluster, *, frp: bool) -> str | None:
    """Build the kubeconfig for users; None where Palette offers none. `frp`: through Spectro Proxy if there is one.

    A cluster without OIDC has such a file only through Spectro Proxy, with a credential in it.
    """
    proxied = frp and cluster.proxied
    if cluster.oidc:
        return oidc_kubeconfig(cluster, proxied=proxied)
    if not proxied:
        return None
    if cluster.managed:
        head = _head(cluster, cluster.proxy_server, cluster.instance.proxy_authority.pem)
        return head + _BEARER.format(token=cluster.proxy_token)
    return _head(cluster, cluster.proxy_server) + _admin_user(cluster)


def oidc_kubeconfig(cluster: SimCluster, *, proxied: bool) -> str:
    """Build the users' kubeconfig of an OIDC cluster. `proxied`: with a second server name, as with Spectro Proxy."""
    server = cluster.proxy_server if proxied else cluster.server
    # A name may hold anything; JSON's quotes are YAML's too.
    name, context = json.dumps(cluster.name), json.dumps(f"oidc@{cluster.name}")
    head = _CLUSTER.format(name=name, context=context, user="oidc", trust=_trust(cluster), server=server)
    instance = cluster.instance
    return head + _KUBELOGIN.format(
        issuer=instance.issuer_url, client_id=cluster.oidc_client_id, client_secret=instance.oidc_client_secret
    )


def _head(cluster: SimCluster, server: str, ca_pem: str | None = None) -> str:
    """`name` and `user` are quoted: a name may hold anything, and JSON's quotes are YAML's too."""
    name, user = _names(cluster)
    return _CLUSTER.format(
        name=json.dumps(name),
        context=json.dumps(f"{user}@{name}"),
        user=json.dumps(user),
        trust=_trust(cluster, ca_pem),
        server=server,
    )


def _names(cluster: SimCluster) -> tuple[str, str]:
    """The names of the entries for cluster and user."""
    if cluster.admin_file == "kubeadm":
        return "kubernetes", "kubernetes-admin"
    if cluster.admin_file == "gke-plugin":
        name = f"gke_{GKE_PROJECT}_{GKE_LOCATION}_{cluster.name}"
        return name, name
    return cluster.name, f"{cluster.name}-admin"


def _admin_user(cluster: SimCluster) -> str:
    program = _PROGRAMS.get(cluster.admin_file)
    if program is not None:
        command, args = program
        return _EXEC.format(command=command, args=", ".join(json.dumps(one.format(name=cluster.name)) for one in args))
    if cluster.admin_file in {"eks-token", "aks-token"}:
        return _BEARER.format(token=cluster.admin_token)
    return _CERTIFICATE.format(certificate=_b64(cluster.admin_certificate), key=_b64(cluster.admin_key))


def download(cluster: SimCluster, text: str) -> Answer:
    """Answer with a file. For half of the clusters (by uid) the body is base64."""
    body = _b64(text) if encoded(cluster) else text
    disposition = f"attachment; filename*=UTF-8''{quote(cluster.name, safe='')}.kubeconfig"  # RFC 6266, 4.3
    return Answer(200, body.encode(), OCTETS, {"Content-Disposition": disposition})


def encoded(cluster: SimCluster) -> bool:
    """Return whether this cluster's files are sent as base64."""
    return int(cluster.uid[-1], 16) % 2 == 1

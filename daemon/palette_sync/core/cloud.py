"""Clusters whose kubeconfig asks to run a program for a token of a cloud: which cluster it is, who gets a token for it,
and where that token may be sent.

Everything in a kubeconfig is untrusted (invariant 10, docs/architecture.md). The file says which cluster is meant. The
configuration decides who asks for the token, and this module to which servers it is sent. Pure.

Sources: the kubeconfigs that `aws eks update-kubeconfig`, `gcloud container clusters get-credentials` and
`az aks get-credentials` write, and the options of aws-iam-authenticator and of Azure's kubelogin.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from palette_sync.core.documents import encode_document
from palette_sync.core.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from palette_sync.core.model import Cluster, Server
    from palette_sync.core.select import ClusterGlobs


class Cloud(StrEnum):
    AWS = "aws"
    GOOGLE = "google"
    AZURE = "azure"


TITLES = {Cloud.AWS: "AWS", Cloud.GOOGLE: "Google Cloud", Cloud.AZURE: "Entra ID"}
NEEDS = {
    Cloud.AWS: Reason.NEEDS_AWS_CREDENTIALS,
    Cloud.GOOGLE: Reason.NEEDS_GOOGLE_CREDENTIALS,
    Cloud.AZURE: Reason.NEEDS_AZURE_CREDENTIALS,
}
# What a change of the cloud configuration may cure.
CLOUD_REASONS = frozenset(
    {
        *NEEDS.values(),
        Reason.CLOUD_CREDENTIALS_UNAVAILABLE,
        Reason.CLOUD_SERVER_REFUSED,
        Reason.CLOUD_IDENTITY_REFUSED,
        Reason.ADMIN_CREDENTIAL_REFUSED,
    }
)


@dataclass(frozen=True, slots=True)
class CloudCluster:
    """A cluster as its cloud knows it. Empty where the kubeconfig does not say: `name` (EKS, GKE), and for GKE the
    `project` and `location` as well. AKS needs none of them.
    """

    cloud: Cloud
    name: str = ""
    project: str = ""
    location: str = ""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks the cloud for tokens: what the credential chain finds, and on AWS the role that it then assumes.

    `projects`: the Google Cloud projects whose clusters may get a token.
    """

    role_arn: str | None = None
    external_id: str | None = None
    projects: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CloudRule:
    """The identity for the clusters that match."""

    identity: Identity
    where: ClusterGlobs


@dataclass(frozen=True, slots=True)
class CloudPolicy:
    """For which clusters palette-sync gets tokens by itself: ordered rules for each cloud."""

    aws: tuple[CloudRule, ...] = ()
    google: tuple[CloudRule, ...] = ()
    azure: tuple[CloudRule, ...] = ()

    def identity_of(self, cloud: Cloud, cluster: Cluster) -> Identity | None:
        """The identity of the first rule that matches; None = no token is asked for."""
        rules = {Cloud.AWS: self.aws, Cloud.GOOGLE: self.google, Cloud.AZURE: self.azure}[cloud]
        return next((rule.identity for rule in rules if rule.where.matches(cluster)), None)

    def fingerprint(self, cluster: Cluster) -> str:
        """Identify what is configured for a cluster, so that a change of it makes the cluster due."""
        found = {cloud.value: self.identity_of(cloud, cluster) for cloud in Cloud}
        shape = {
            cloud: [one.role_arn or "", one.external_id or "", *one.projects] for cloud, one in found.items() if one
        }
        return hashlib.sha256(encode_document("cloud", shape)).hexdigest()[:8] if shape else ""


_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,99}")
_EKS_ARN = re.compile(r"arn:aws[a-z-]*:eks:[a-z0-9-]+:\d{12}:cluster/([0-9A-Za-z][0-9A-Za-z_-]{0,99})")
_GKE_ENTRY = re.compile(r"gke_([a-z][a-z0-9.:-]{4,60})_([a-z0-9-]{1,40})_([a-z0-9-]{1,63})")
_AWS_NAMES = ("--cluster-name", "--cluster-id", "-i")


def recognise(command: str, args: Sequence[str], entry: str) -> CloudCluster | None:
    """The cluster for which an exec authenticator would get a token; None for a program that is not known.

    `command` and `args` are those of the kubeconfig's `exec`; `entry` is the name of the cluster's entry in the file.
    The program `kubelogin` is Azure's only without options of OIDC, because another program has the same name.
    """
    program = command.replace("\\", "/").rpartition("/")[2].lower().removesuffix(".exe")
    words = set(args)
    if program in {"aws-iam-authenticator", "heptio-authenticator-aws"} and "token" in words:
        return CloudCluster(Cloud.AWS, _eks_name(_option(args, _AWS_NAMES)))
    if program == "aws" and {"eks", "get-token"} <= words:
        return CloudCluster(Cloud.AWS, _eks_name(_option(args, _AWS_NAMES)))
    if program == "gke-gcloud-auth-plugin" or (program == "gcloud" and "config-helper" in words):
        return _gke(entry)
    if program == "kubelogin" and "get-token" in words and not any(one.startswith("--oidc-") for one in args):
        return CloudCluster(Cloud.AZURE)
    return None


def cluster_at(server: Server, entry: str) -> CloudCluster | None:
    """The cluster behind an address of EKS or AKS, for a kubeconfig whose token has expired; None for other addresses.

    An address of GKE has no form of its own; there the name of the `entry` counts.
    """
    if eks_region(server) is not None:
        return CloudCluster(Cloud.AWS, _eks_name(entry))
    if _is_aks(server):
        return CloudCluster(Cloud.AZURE)
    found = _gke(entry)
    return found if found.name else None


def _option(args: Sequence[str], names: Sequence[str]) -> str:
    """The value of the first of these options, as `--name value` or `--name=value`."""
    for position, word in enumerate(args):
        name, equals, value = word.partition("=")
        if name in names:
            return value if equals else next(iter(args[position + 1 : position + 2]), "")
    return ""


def _eks_name(text: str) -> str:
    if found := _EKS_ARN.fullmatch(text):
        return found.group(1)
    return text if _NAME.fullmatch(text) else ""


def _gke(entry: str) -> CloudCluster:
    found = _GKE_ENTRY.fullmatch(entry)
    if found is None:
        return CloudCluster(Cloud.GOOGLE)
    project, location, name = found.groups()
    return CloudCluster(Cloud.GOOGLE, name, project, location)


# The whole address must match: a port at most, no path, and only characters on which no two parsers differ.
_EKS_SERVER = re.compile(
    r"https://(?:[a-z0-9-]{1,63}\.){1,5}([a-z]{2}(?:-[a-z]+)+-[0-9]{1,2})\.eks\.amazonaws\.com(\.cn)?(?::[0-9]{1,5})?"
)
_AKS_SERVER = re.compile(r"https://(?:[a-z0-9-]{1,63}\.){1,6}azmk8s\.io(?::[0-9]{1,5})?")


def eks_region(server: Server) -> str | None:
    """The region of an API server of EKS, by its host name; None for any other server."""
    found = _EKS_SERVER.fullmatch(server.url.lower())
    if found is None or server.tls_server_name is not None:
        return None
    region, china = found.groups()
    return region if region.startswith("cn-") == (china is not None) else None


def _is_aks(server: Server) -> bool:
    return server.tls_server_name is None and _AKS_SERVER.fullmatch(server.url.lower()) is not None


def refusal(cluster: CloudCluster, server: Server) -> str | None:
    """Why no token may ever be sent to this server; None if it belongs to the cloud.

    A server of GKE has no name of its own: Google's API has to name it afterwards.
    """
    if cluster.cloud is Cloud.AWS:
        if eks_region(server) is None:
            return "its server is not an address of EKS (*.eks.amazonaws.com), so it gets no token"
        return None if cluster.name else "its kubeconfig does not name the EKS cluster"
    if cluster.cloud is Cloud.AZURE:
        return None if _is_aks(server) else "its server is not an address of AKS (*.azmk8s.io), so it gets no token"
    return None if cluster.name else "its kubeconfig does not name the GKE cluster (gke_PROJECT_LOCATION_NAME)"

"""Clusters of EKS, GKE and AKS in `palette-sync check`: whether their kubeconfig asks for a token that nobody gets.

One kubeconfig of each type is looked at, so an instance costs at most three downloads. Where a cloud is enabled, a
token is asked for and dropped. No cluster is contacted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from palette_sync.cli.finding import OK, PROBLEM, WARNING, Finding
from palette_sync.core.cloud import TITLES
from palette_sync.core.model import RUNNING, AuthMode

if TYPE_CHECKING:
    from collections.abc import Iterable

    from palette_sync.cloud import CloudTokens
    from palette_sync.core.model import Cluster
    from palette_sync.core.policy import InstancePolicy
    from palette_sync.palette import PaletteClient

CLOUD_TYPES = ("aks", "eks", "gke")  # Palette's words for managed clusters


async def cloud_findings(
    policy: InstancePolicy, client: PaletteClient, clusters: Iterable[Cluster], cloud: CloudTokens
) -> list[Finding]:
    """What a pass would find in the first admin kubeconfig of each type of managed cluster. Raises PaletteError."""
    of_type: dict[str, list[Cluster]] = {}
    for cluster in sorted(clusters, key=lambda one: one.name):
        if cluster.cloud_type in CLOUD_TYPES and _may_need_a_file(policy, cluster):
            of_type.setdefault(cluster.cloud_type, []).append(cluster)
    findings = [await _finding(policy, client, some, cloud) for _, some in sorted(of_type.items())]
    return [one for one in findings if one is not None]


def _may_need_a_file(policy: InstancePolicy, cluster: Cluster) -> bool:
    if policy.mode_of(cluster) is AuthMode.OIDC or cluster.state != RUNNING or cluster.imported:
        return False
    return policy.filters.deselects(cluster) is None


async def _finding(
    policy: InstancePolicy, client: PaletteClient, clusters: list[Cluster], cloud: CloudTokens
) -> Finding | None:
    from palette_sync import kube, palette
    from palette_sync.cloud import CloudError

    first = clusters[0]
    of_it = f"{first.name} ({first.cloud_type})"
    if len(clusters) > 1:
        of_it = f"{first.name}, one of {len(clusters)} clusters of {first.cloud_type}"
    try:
        kube.parse(await palette.admin_kubeconfig(client, first), ca_pem=policy.ca_of(first))
    except kube.CloudTokenNeeded as needed:
        identity = policy.cloud.identity_of(needed.cluster.cloud, first)
        if identity is None:
            return Finding(WARNING, policy.instance, f"{of_it}: {needed.reason}: {needed}", needed.reason.remedy)
        try:
            await cloud.token(needed.cluster, needed.server, identity)
        except CloudError as error:
            return Finding(PROBLEM, policy.instance, f"{of_it}: {error.reason}: {error}", error.reason.remedy)
        return Finding(OK, policy.instance, f"{of_it}: {TITLES[needed.cluster.cloud]} gives a token for it")
    except kube.KubeconfigError as error:
        return Finding(WARNING, policy.instance, f"{of_it}: {error.reason}: {error}", error.reason.remedy)
    except (palette.NotFound, palette.NotPermitted):
        return None  # the permission is checked for all clusters, and a file may come later
    return None

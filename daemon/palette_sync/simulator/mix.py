"""Clusters of every kind that Palette can have, for `simulate --mix`, the demo and tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from palette_sync.simulator.cluster import AdminFile, SimCluster
    from palette_sync.simulator.world import World

_TWO_HOURS = 7200.0


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of cluster. `cloud_address`: its server has a host name of its cloud. `reachable`: at its own address.

    `expired`: the token in its kubeconfig has expired.
    """

    name: str
    admin_file: AdminFile = "kubeadm"
    cloud_address: bool = False
    proxied: bool = False
    reachable: bool = True
    expired: bool = False
    oidc: bool = False
    imported: bool = False


MIX = (
    Kind("plain"),
    Kind("oidc", oidc=True),
    Kind("proxied", proxied=True, reachable=False),
    Kind("eks-authenticator", "eks-authenticator", cloud_address=True),
    Kind("eks-cli", "eks-cli", cloud_address=True),
    Kind("eks-proxied", "eks-authenticator", cloud_address=True, proxied=True),
    Kind("eks-token", "eks-token"),
    Kind("gke-plugin", "gke-plugin"),
    Kind("aks-kubelogin", "aks-kubelogin", cloud_address=True),
    Kind("aks-token", "aks-token"),
    Kind("aks-expired", "aks-token", expired=True),
    Kind("no-file", "none"),
    Kind("imported", imported=True),
)


async def make(world: World, cluster: SimCluster, kind: Kind) -> None:
    """Turn a cluster that was just added into one of this kind."""
    if kind.admin_file != "kubeadm":
        world.set_admin_file(cluster.uid, kind.admin_file, cloud_address=kind.cloud_address)
    if kind.imported:
        world.set_imported(cluster.uid, imported=True)
    if kind.proxied:
        await world.put_proxy_before(cluster.uid)
    if not kind.reachable:
        world.shut_api_server(cluster.uid)
    cluster.admin_token_age = _TWO_HOURS if kind.expired else 0.0


async def add_mix(world: World, instance: str, project_uid: str) -> dict[str, SimCluster]:
    """Add one cluster of each kind, named after it. Returns them by the name of their kind."""
    made: dict[str, SimCluster] = {}
    for kind in MIX:
        made[kind.name] = await world.add_cluster(instance, project_uid, f"mix-{kind.name}", oidc=kind.oidc)
        await make(world, made[kind.name], kind)
    return made

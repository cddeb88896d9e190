"""Values of the simulated Palette: projects, places, rights of an API key."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

KeyPermission = Literal["tenant", "project"]
# The rights of the key's user, as far as the simulated requests need them.
ALL_RIGHTS = frozenset(
    {
        "project.list",
        "project.get",
        "cluster.list",
        "cluster.get",
        "cluster.adminKubeconfigDownload",
        "virtualCluster.list",
        "virtualCluster.get",
    }
)
EPOCH = datetime(2026, 1, 15, 8, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Place:
    """The location of a cluster, as Palette reports it."""

    country_code: str
    country_name: str
    region_code: str
    region_name: str
    coordinates: tuple[float, float]


@dataclass(slots=True)
class SimProject:
    uid: str
    name: str
    created_at: datetime


CLOUDS = ("eks", "aks", "vsphere", "maas", "edge-native", "aws")
PLACES = (
    Place("DE", "Germany", "eu-central-1", "Europe (Frankfurt)", (50.11, 8.68)),
    Place("US", "United States", "us-east-1", "US East (N. Virginia)", (38.95, -77.45)),
    Place("SG", "Singapore", "ap-southeast-1", "Asia Pacific (Singapore)", (1.35, 103.82)),
    Place("", "", "", "", (0.0, 0.0)),
)

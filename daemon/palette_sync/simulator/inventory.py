"""Palette's side of the simulated world as values: instances, projects, places."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal

from palette_sync.simulator.palette_behaviour import Behaviour

if TYPE_CHECKING:
    from palette_sync.simulator.certificates import Authority
    from palette_sync.simulator.cluster import SimCluster
    from palette_sync.simulator.listener import Listener
    from palette_sync.simulator.rate_limit import RateLimiter

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


@dataclass(slots=True, kw_only=True)
class SimInstance:
    """One Palette. With `key_permission` `tenant` its API key sees everything; `project` requires the project header.

    `key_projects` limits a `project` key to some projects (None = all), and `key_rights` is what the key's user may do.
    `behaviour` is how it answers where versions of Palette differ, or answer wrongly. `proxy_authority` is the CA of
    its Spectro Proxy.
    """

    name: str
    api_key: str = field(repr=False)
    api_key_name: str
    tenant_uid: str
    user_uid: str
    org_name: str
    authority: Authority = field(repr=False)
    proxy_authority: Authority = field(repr=False)
    limiter: RateLimiter = field(repr=False)
    oidc_client_secret: str = field(repr=False)
    projects: dict[str, SimProject] = field(default_factory=dict)
    clusters: dict[str, SimCluster] = field(default_factory=dict)
    key_permission: KeyPermission = "tenant"
    key_projects: frozenset[str] | None = None
    key_rights: frozenset[str] = ALL_RIGHTS
    key_expires_at: datetime = EPOCH + timedelta(days=3650)
    key_active: bool = True
    rate_limits: bool = True
    behaviour: Behaviour = field(default_factory=Behaviour)
    listener: Listener | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """The URL of this Palette. Raises RuntimeError before it listens."""
        if self.listener is None:
            raise RuntimeError(f"the Palette instance {self.name} is not listening")
        return self.listener.url

    @property
    def ca_pem(self) -> str:
        return self.authority.pem

    @property
    def issuer_url(self) -> str:
        return f"{self.url}/v1/oidc/tenant/{self.tenant_uid}"

    def sees(self, project_uid: str) -> bool:
        """Return whether the API key has access to a project."""
        return self.key_permission == "tenant" or self.key_projects is None or project_uid in self.key_projects


CLOUDS = ("eks", "aks", "vsphere", "maas", "edge-native", "aws")
PLACES = (
    Place("DE", "Germany", "eu-central-1", "Europe (Frankfurt)", (50.11, 8.68)),
    Place("US", "United States", "us-east-1", "US East (N. Virginia)", (38.95, -77.45)),
    Place("SG", "Singapore", "ap-southeast-1", "Asia Pacific (Singapore)", (1.35, 103.82)),
    Place("", "", "", "", (0.0, 0.0)),
)

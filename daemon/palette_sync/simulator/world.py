"""The simulated world: Palette instances with their projects and clusters, and all changes to them.

Changes take effect with the next answer. Only adding a cluster is asynchronous, because its API server needs a port.
"""

from __future__ import annotations

import hashlib
import random
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from palette_sync.simulator import kube_seed
from palette_sync.simulator.certificates import Authority, SharedKeys, key_pem
from palette_sync.simulator.kube_api import KubeApi
from palette_sync.simulator.kube_store import KubeStore
from palette_sync.simulator.kube_tokens import TokenAuthority
from palette_sync.simulator.palette_behaviour import Behaviour

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from palette_sync.simulator.exchange import Answer, Call
    from palette_sync.simulator.faults import Target
    from palette_sync.simulator.listener import Listener
    from palette_sync.simulator.rate_limit import RateLimiter
    from palette_sync.simulator.request_log import CredentialKind

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
ADMIN_USER = "kubernetes-admin"
ADMIN_GROUP = "system:masters"
WITHOUT_KUBECONFIG = frozenset({"Pending", "Provisioning", "Importing", "Deleted"})
OIDC_TAG = "auth:oidc"
EPOCH = datetime(2026, 1, 15, 8, tzinfo=UTC)
_VERSIONS = ("v1.31.9", "v1.32.6", "v1.33.4", "v1.34.1")


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


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Keys and clock, which all clusters of a simulator share."""

    keys: SharedKeys
    clock: Callable[[], float]


class SimCluster:
    """One cluster: its row in Palette, and its API server (`kube`, `tokens`, `ca_pem`), created on first use."""

    def __init__(
        self,
        surroundings: Surroundings,
        instance: SimInstance,
        uid: str,
        name: str,
        project_uid: str | None,
        *,
        created_at: datetime,
        cloud_type: str,
        place: Place,
    ) -> None:
        self.uid = uid
        self.name: str = name
        self.instance = instance
        self.project_uid: str | None = project_uid
        self.created_at: datetime = created_at
        self.modified_at: datetime = created_at
        self.cloud_type: str = cloud_type
        self.place = place
        self.state: str = "Running"
        self.health: str = "Healthy"
        self.tags: list[str] = []
        self.oidc = False
        self.oidc_client_id = f"palette-{uid[:8]}"
        self.virtual = False
        self.imported = False
        self.import_mode: Literal["", "read-only"] = ""
        self.paused = False
        self.proxied = False
        self.admin_download = True
        self.admin_group = ADMIN_GROUP
        self.skips_verification = False
        self.token_cap: float | None = None
        self.version = _VERSIONS[int(uid[:4], 16) % len(_VERSIONS)]
        self.listener: Listener | None = None
        self.trust_generation = 0
        self._surroundings = surroundings

    @property
    def url(self) -> str:
        """The URL of the API server. Raises RuntimeError before it listens."""
        if self.listener is None:
            raise RuntimeError(f"the API server of {self.name} is not listening")
        return self.listener.url

    @property
    def scope(self) -> str:
        return "project" if self.project_uid is not None else "tenant"

    @property
    def has_kubeconfig(self) -> bool:
        return self.state not in WITHOUT_KUBECONFIG and not self.imported

    @cached_property
    def authority(self) -> Authority:
        return Authority(f"kubernetes-{self.uid[:8]}")

    @property
    def ca_pem(self) -> str:
        return self.authority.pem

    @cached_property
    def admin_certificate(self) -> bytes:
        return self.authority.client_certificate(self._surroundings.keys.client, ADMIN_USER, self.admin_group)

    @property
    def admin_key(self) -> bytes:
        return key_pem(self._surroundings.keys.client)

    def renew_authority(self) -> None:
        """Replace the cluster's CA. Clients with older kubeconfigs do not trust the server, nor the server them."""
        self.trust_generation += 1
        for cached in ("authority", "admin_certificate"):
            self.__dict__.pop(cached, None)

    def use_intermediate_authority(self, *, presents_root: bool) -> Authority:
        """Let an intermediate CA sign the server's certificate, put only that CA into kubeconfigs; return the root."""
        self.renew_authority()
        root = Authority(f"root-{self.uid[:8]}")
        name = f"kubernetes-{self.uid[:8]}"
        self.__dict__["authority"] = Authority(name, issuer=root, presents_root=presents_root)
        return root

    @cached_property
    def tokens(self) -> TokenAuthority:
        return TokenAuthority(self._surroundings.clock)

    @cached_property
    def kube(self) -> KubeStore:
        return KubeStore(
            seed=lambda resource: kube_seed.seed(self.uid, resource),
            clock=self._surroundings.clock,
            generator=random.Random(self.uid),
            ca_pem=lambda: self.ca_pem,
            make_token=self.tokens.for_secret,
        )

    @cached_property
    def _api(self) -> KubeApi:
        return KubeApi(self.kube, self.tokens, version=self.version, token_cap=lambda: self.token_cap)

    # The site of a listener.

    @property
    def instance_name(self) -> str:
        return self.instance.name

    @property
    def cluster_uid(self) -> str | None:
        return self.uid

    def target_of(self, path: str) -> Target:  # noqa: ARG002 - part of the protocol
        return "kube"

    def credential_of(self, call: Call) -> CredentialKind:
        if call.client_subject is not None:
            return "client-certificate"
        return "bearer" if call.headers.get("Authorization") else "anonymous"

    def answer(self, call: Call) -> Answer:
        answer = self._api.answer(call)
        return replace(answer, headers={"Date": formatdate(self._surroundings.clock(), usegmt=True), **answer.headers})


@dataclass(slots=True, kw_only=True)
class SimInstance:
    """One Palette. With `key_permission` `tenant` its API key sees everything; `project` requires the project header.

    `key_projects` limits a `project` key to some projects (None = all), and `key_rights` is what the key's user may do.
    `behaviour` is how it answers where versions of Palette differ, or answer wrongly.
    """

    name: str
    api_key: str = field(repr=False)
    api_key_name: str
    tenant_uid: str
    user_uid: str
    org_name: str
    authority: Authority = field(repr=False)
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


class World:
    """All instances, and all changes to them. Clusters and projects are identified by uid.

    Clusters that are added before `built` is set are as old as their number; later ones are new.
    """

    def __init__(
        self, *, seed: int, token_cap: float | None, start_listener: Callable[[SimCluster], Awaitable[None]]
    ) -> None:
        self.instances: dict[str, SimInstance] = {}
        self.token_cap = token_cap
        self.random = random.Random(seed)
        self._start_listener = start_listener
        self.built = False
        self._skew = 0.0
        self._surroundings = Surroundings(SharedKeys.new(), self.now)

    # Reading.

    def now(self) -> float:
        """Return the time of the API servers, in Unix seconds."""
        return time.time() + self._skew

    def advance(self, seconds: float) -> None:
        """Advance the clock of the API servers, for example until tokens expire."""
        self._skew += seconds

    @property
    def clusters(self) -> dict[str, SimCluster]:
        return {uid: cluster for instance in self.instances.values() for uid, cluster in instance.clusters.items()}

    def cluster(self, uid: str) -> SimCluster:
        """Find by uid. Raises KeyError."""
        for instance in self.instances.values():
            if uid in instance.clusters:
                return instance.clusters[uid]
        raise KeyError(f"cluster {uid}")

    def project(self, uid: str) -> SimProject:
        """Find by uid. Raises KeyError."""
        return self._home(uid).projects[uid]

    def _home(self, project_uid: str) -> SimInstance:
        for instance in self.instances.values():
            if project_uid in instance.projects:
                return instance
        raise KeyError(f"project {project_uid}")

    def _instance(self, instance: str | SimInstance) -> SimInstance:
        return self.instances[instance] if isinstance(instance, str) else instance

    # Projects.

    def add_project(self, instance: str | SimInstance, name: str) -> SimProject:
        home = self._instance(instance)
        project = SimProject(self.new_uid(), name, EPOCH + timedelta(hours=len(home.projects)))
        home.projects[project.uid] = project
        return project

    def rename_project(self, uid: str, name: str) -> None:
        self.project(uid).name = name

    def remove_project(self, uid: str) -> None:
        """Remove a project and its clusters."""
        home = self._home(uid)
        for cluster in [c for c in home.clusters.values() if c.project_uid == uid]:
            self.remove_cluster(cluster.uid)
        del home.projects[uid]

    # Clusters.

    async def add_cluster(
        self,
        instance: str | SimInstance,
        project_uid: str | None,
        name: str | None = None,
        *,
        oidc: bool = False,
        state: str = "Running",
        health: str = "Healthy",
        tags: Iterable[str] = (),
        virtual: bool = False,
    ) -> SimCluster:
        """Add a cluster and start its API server. Without `project_uid` it is tenant-scoped.

        An OIDC cluster also gets the tag `auth:oidc`. Raises KeyError for an unknown project.
        """
        home = self._instance(instance)
        if project_uid is not None and project_uid not in home.projects:
            raise KeyError(f"project {project_uid} in {home.name}")
        uid = self.new_uid()
        number = len(home.clusters) + 1
        cluster = SimCluster(
            self._surroundings,
            home,
            uid,
            name or f"cluster-{number:03}",
            project_uid,
            created_at=datetime.fromtimestamp(self.now(), UTC)
            if self.built
            else EPOCH + timedelta(minutes=10 * number, milliseconds=int(uid[:2], 16)),
            cloud_type="nested" if virtual else _CLOUDS[int(uid[4:8], 16) % len(_CLOUDS)],
            place=_PLACES[int(uid[8:12], 16) % len(_PLACES)],
        )
        cluster.oidc = oidc
        cluster.virtual = virtual
        cluster.state = state
        cluster.health = health
        cluster.tags = sorted({*tags, *([OIDC_TAG] if oidc else [])})
        cluster.token_cap = self.token_cap
        await self._start_listener(cluster)
        home.clusters[uid] = cluster
        return cluster

    def remove_cluster(self, uid: str) -> None:
        """Remove a cluster from Palette and stop its API server."""
        cluster = self.cluster(uid)
        del cluster.instance.clusters[uid]
        if cluster.listener is not None:
            cluster.listener.close()

    def shut_api_server(self, uid: str) -> None:
        """Stop a cluster's API server permanently. Palette still lists the cluster."""
        listener = self.cluster(uid).listener
        if listener is not None:
            listener.close()

    def renew_authority(self, uid: str) -> None:
        """Give a cluster a new CA, like a rebuilt control plane. Open connections stay open."""
        self.cluster(uid).renew_authority()

    def move_cluster(self, uid: str, project_uid: str | None) -> None:
        """Move a cluster to another project of its instance, or to the tenant (None). Raises KeyError."""
        cluster = self.cluster(uid)
        if project_uid is not None and project_uid not in cluster.instance.projects:
            raise KeyError(f"project {project_uid} in {cluster.instance.name}")
        cluster.project_uid = project_uid
        self._touch(cluster)

    def rename_cluster(self, uid: str, name: str) -> None:
        cluster = self.cluster(uid)
        cluster.name = name
        self._touch(cluster)

    def set_state(self, uid: str, state: str) -> None:
        cluster = self.cluster(uid)
        cluster.state = state
        self._touch(cluster)

    def set_health(self, uid: str, health: str) -> None:
        cluster = self.cluster(uid)
        cluster.health = health
        self._touch(cluster)

    def set_tags(self, uid: str, tags: Iterable[str]) -> None:
        cluster = self.cluster(uid)
        cluster.tags = sorted(set(tags))
        self._touch(cluster)

    def set_oidc(self, uid: str, *, oidc: bool) -> None:
        """Add or remove a cluster's OIDC configuration, without changing its tags."""
        cluster = self.cluster(uid)
        cluster.oidc = oidc
        self._touch(cluster)

    def set_paused(self, uid: str, *, paused: bool) -> None:
        """Set a virtual cluster's lifecycle status. Its API server keeps running."""
        cluster = self.cluster(uid)
        cluster.paused = paused
        self._touch(cluster)

    def set_admin_download(self, uid: str, *, allowed: bool) -> None:
        """Set whether the API key may download this cluster's admin kubeconfig."""
        self.cluster(uid).admin_download = allowed

    def set_imported(self, uid: str, *, imported: bool, read_only: bool = False) -> None:
        """Set whether Palette imported the cluster; then it has no kubeconfig to offer, read-only or not."""
        cluster = self.cluster(uid)
        cluster.imported, cluster.import_mode = imported, "read-only" if imported and read_only else ""
        self._touch(cluster)

    def set_token_cap(self, uid: str, seconds: float | None) -> None:
        """Limit the life of new tokens of this cluster (None = no limit)."""
        self.cluster(uid).token_cap = seconds

    # The API key of an instance.

    def set_key_permission(
        self, instance: str | SimInstance, permission: KeyPermission, projects: Iterable[str] | None = None
    ) -> None:
        home = self._instance(instance)
        home.key_permission = permission
        home.key_projects = frozenset(projects) if projects is not None else None

    def set_key_active(self, instance: str | SimInstance, *, active: bool) -> None:
        """Activate or deactivate the API key. Requests with an inactive key are answered as those with a wrong one."""
        self._instance(instance).key_active = active

    def set_key_expiry(self, instance: str | SimInstance, expires_at: datetime) -> None:
        """Set the expiry in `GET /v1/apiKeys`. The key stays valid after it."""
        self._instance(instance).key_expires_at = expires_at

    def new_uid(self) -> str:
        """Return a uid like Palette's: 24 hexadecimal characters."""
        return f"{self.random.getrandbits(96):024x}"

    def _touch(self, cluster: SimCluster) -> None:
        cluster.modified_at = datetime.fromtimestamp(self.now(), UTC)


def stable_fraction(word: str) -> float:
    """Return a number in [0, 1) that depends only on `word`."""
    return int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "big") / 2**32


_CLOUDS = ("eks", "aks", "vsphere", "maas", "edge-native", "aws")
_PLACES = (
    Place("DE", "Germany", "eu-central-1", "Europe (Frankfurt)", (50.11, 8.68)),
    Place("US", "United States", "us-east-1", "US East (N. Virginia)", (38.95, -77.45)),
    Place("SG", "Singapore", "ap-southeast-1", "Asia Pacific (Singapore)", (1.35, 103.82)),
    Place("", "", "", "", (0.0, 0.0)),
)

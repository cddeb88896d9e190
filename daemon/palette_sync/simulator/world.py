"""The simulated world: Palette instances with their projects and clusters, and all changes to them.

Changes take effect with the next answer. Only adding a cluster, and putting Spectro Proxy before one, is asynchronous,
because a server needs a port.
"""

from __future__ import annotations

import hashlib
import random
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from palette_sync.simulator.certificates import SharedKeys
from palette_sync.simulator.cloud_accounts import CloudAccounts
from palette_sync.simulator.cluster import SimCluster, Surroundings
from palette_sync.simulator.inventory import CLOUDS, EPOCH, PLACES, SimProject

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from palette_sync.simulator.cluster import AdminFile, SimInstance
    from palette_sync.simulator.inventory import KeyPermission

OIDC_TAG = "auth:oidc"


class World:
    """All instances, and all changes to them. Clusters and projects are identified by uid.

    Clusters that are added before `built` is set are as old as their number; later ones are new.
    """

    def __init__(
        self,
        *,
        seed: int,
        token_cap: float | None,
        start_listener: Callable[[SimCluster], Awaitable[None]],
        start_proxy: Callable[[SimCluster], Awaitable[None]],
    ) -> None:
        self.instances: dict[str, SimInstance] = {}
        self.token_cap = token_cap
        self.random = random.Random(seed)
        self._start_listener = start_listener
        self._start_proxy = start_proxy
        self.built = False
        self._skew = 0.0
        self.accounts = CloudAccounts(self.now, random.Random(seed))
        self._surroundings = Surroundings(SharedKeys.new(), self.now, self.accounts)

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
            cloud_type="nested" if virtual else CLOUDS[int(uid[4:8], 16) % len(CLOUDS)],
            place=PLACES[int(uid[8:12], 16) % len(PLACES)],
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
        for listener in (cluster.listener, cluster.proxy_listener):
            if listener is not None:
                listener.close()

    async def put_proxy_before(self, uid: str) -> None:
        """Put Spectro Proxy before a cluster, as a server of its own. It reaches the cluster even if nobody else does.

        Before a cluster that Palette deployed it only passes TLS on. Before one that a cloud manages it has a
        certificate of its own CA, and its kubeconfig has a token.
        """
        cluster = self.cluster(uid)
        cluster.proxied = True
        await self._start_proxy(cluster)

    def set_admin_file(self, uid: str, kind: AdminFile, *, cloud_address: bool = False) -> None:
        """Set what the admin kubeconfig holds, and the type of cloud that belongs to it.

        `cloud_address`: its server has a host name of the cloud, which only a resolver of a test knows.
        """
        cluster = self.cluster(uid)
        cluster.admin_file = kind
        cloud, _, _ = kind.partition("-")
        cluster.cloud_type = cloud if kind not in {"kubeadm", "none"} else cluster.cloud_type
        if cloud_address:
            cluster.use_cloud_address()
        self._touch(cluster)

    def shut_api_server(self, uid: str) -> None:
        """Stop a cluster's API server. Palette still lists the cluster."""
        listener = self.cluster(uid).listener
        if listener is not None:
            listener.close()

    async def open_api_server(self, uid: str) -> None:
        """Let an API server that was stopped listen again, on its former port. Raises OSError if that is taken."""
        cluster = self.cluster(uid)
        if cluster.listener is None or cluster.listener.closed:
            await self._start_listener(cluster)

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

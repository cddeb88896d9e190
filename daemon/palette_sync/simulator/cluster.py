"""Simulated Palette instances and their clusters. Each cluster is a row in Palette and an API server."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from email.utils import formatdate
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from palette_sync.simulator import kube_seed
from palette_sync.simulator.certificates import LOOPBACK, Authority, SharedKeys, key_pem
from palette_sync.simulator.inventory import ALL_RIGHTS, EPOCH
from palette_sync.simulator.kube_api import KubeApi
from palette_sync.simulator.kube_store import KubeStore
from palette_sync.simulator.kube_tokens import TokenAuthority
from palette_sync.simulator.palette_behaviour import Behaviour

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from palette_sync.simulator.cloud_accounts import CloudAccounts
    from palette_sync.simulator.exchange import Answer, Call
    from palette_sync.simulator.faults import Target
    from palette_sync.simulator.inventory import KeyPermission, Place, SimProject
    from palette_sync.simulator.kube_tokens import User
    from palette_sync.simulator.listener import Listener
    from palette_sync.simulator.rate_limit import RateLimiter
    from palette_sync.simulator.request_log import CredentialKind

ADMIN_USER = "kubernetes-admin"
ADMIN_GROUP = "system:masters"
WITHOUT_KUBECONFIG = frozenset({"Pending", "Provisioning", "Importing", "Deleted"})
# What Palette's admin kubeconfig holds: a client certificate (kubeadm), a program that is to be run for a token of a
# cloud, a token that expires; or there is no such file.
AdminFile = Literal[
    "kubeadm", "eks-authenticator", "eks-cli", "eks-token", "gke-plugin", "aks-kubelogin", "aks-token", "none"
]
AKS_TOKEN_SECONDS = 3600
# The server in the kubeconfig of these is an address of the cloud, which no resolver of a test knows.
_ADDRESSES = {"eks": "{}.gr7.eu-central-1.eks.amazonaws.com", "aks": "shop-{}.hcp.westeurope.azmk8s.io"}
_VERSIONS = ("v1.31.9", "v1.32.6", "v1.33.4", "v1.34.1")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Keys and clock, which all clusters of a simulator share."""

    keys: SharedKeys
    clock: Callable[[], float]
    accounts: CloudAccounts


class SimCluster:
    """One cluster: its row in Palette, and its API server (`kube`, `tokens`, `ca_pem`), created on first use.

    `admin_file` is the kind of its admin kubeconfig. `host` is the name in the kubeconfigs in place of the listener's.
    `proxied`: Spectro Proxy stands before it, at `proxy_listener` if it has a port of its own. `cloud_access`: it
    accepts the identities of its cloud. `admin_token_age`: how many seconds ago Palette got the token in its file.
    """

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
        self.proxy_listener: Listener | None = None
        self.admin_file: AdminFile = "kubeadm"
        self.host: str | None = None
        self.cloud_access = True
        self.admin_token_age = 0.0
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
        return self._listening.url

    @property
    def server(self) -> str:
        """The address in the cluster's own kubeconfigs."""
        return self.url if self.host is None else f"https://{self.host}:{self._listening.port}"

    @property
    def proxy_server(self) -> str:
        """The address in the kubeconfigs through Spectro Proxy: another name, and its own port if it has one."""
        listener = self.proxy_listener or self._listening
        return f"https://{'localhost' if listener.host == LOOPBACK else listener.host}:{listener.port}"

    @property
    def _listening(self) -> Listener:
        if self.listener is None:
            raise RuntimeError(f"the API server of {self.name} is not listening")
        return self.listener

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

    @property
    def managed(self) -> bool:
        """Whether a cloud runs the control plane. Spectro Proxy then has a certificate and a token of its own."""
        return self.admin_file != "kubeadm"

    def use_cloud_address(self) -> None:
        """Name the API server as the cluster's cloud does. GKE gives no names."""
        form = _ADDRESSES.get(self.cloud_type)
        self.host = form.format(self.uid[:8]) if form else None

    @cached_property
    def admin_token(self) -> str:
        """The token that Palette got when it made the kubeconfig. It is not renewed by itself."""
        if self.admin_file == "eks-token":
            return self._surroundings.accounts.eks_token(self.name, age=self.admin_token_age)
        expires = int(self._surroundings.clock() - self.admin_token_age) + AKS_TOKEN_SECONDS
        return self.tokens.for_user("clusterUser", [ADMIN_GROUP], {"exp": expires})

    @cached_property
    def proxy_token(self) -> str:
        """The token of a service account that Spectro Proxy puts into the kubeconfig of a managed cluster."""
        account = "system:serviceaccount:spectro-system:proxy"
        return self.tokens.for_user(account, [ADMIN_GROUP], {"exp": int(self._surroundings.clock()) + 10 * 365 * 86400})

    def renew_admin_token(self) -> None:
        """Let Palette make the kubeconfig again, as it does after a renewal of certificates."""
        self.admin_token_age = 0.0
        self.__dict__.pop("admin_token", None)

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
        return KubeApi(
            self.kube, self.tokens, version=self.version, token_cap=lambda: self.token_cap, foreign=self._cloud_user
        )

    def _cloud_user(self, token: str) -> User | None:
        if not self.cloud_access:
            return None
        return self._surroundings.accounts.user_of(self.cloud_type, self.name, token)

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

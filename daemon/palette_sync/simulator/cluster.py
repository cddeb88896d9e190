"""One simulated cluster: its row in Palette, and its API server."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from palette_sync.simulator import kube_seed
from palette_sync.simulator.certificates import Authority, SharedKeys, key_pem
from palette_sync.simulator.kube_api import KubeApi
from palette_sync.simulator.kube_store import KubeStore
from palette_sync.simulator.kube_tokens import TokenAuthority

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from palette_sync.simulator.exchange import Answer, Call
    from palette_sync.simulator.faults import Target
    from palette_sync.simulator.inventory import Place, SimInstance
    from palette_sync.simulator.listener import Listener
    from palette_sync.simulator.request_log import CredentialKind

ADMIN_USER = "kubernetes-admin"
ADMIN_GROUP = "system:masters"
WITHOUT_KUBECONFIG = frozenset({"Pending", "Provisioning", "Importing", "Deleted"})
_VERSIONS = ("v1.31.9", "v1.32.6", "v1.33.4", "v1.34.1")


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
        self.paused = False
        self.proxied = False
        self.admin_download = True
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
        return self.state not in WITHOUT_KUBECONFIG

    @cached_property
    def authority(self) -> Authority:
        return Authority(f"kubernetes-{self.uid[:8]}")

    @property
    def ca_pem(self) -> str:
        return self.authority.pem

    @cached_property
    def admin_certificate(self) -> bytes:
        return self.authority.client_certificate(self._surroundings.keys.client, ADMIN_USER, ADMIN_GROUP)

    @property
    def admin_key(self) -> bytes:
        return key_pem(self._surroundings.keys.client)

    def renew_authority(self) -> None:
        """Replace the cluster's CA. Clients with older kubeconfigs do not trust the server, nor the server them."""
        self.trust_generation += 1
        for cached in ("authority", "admin_certificate"):
            self.__dict__.pop(cached, None)

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
        return self._api.answer(call)

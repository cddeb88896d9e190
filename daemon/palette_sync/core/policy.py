"""What an operator wants of one instance, as plain frozen values. The command line builds it from the configuration."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from palette_sync.core.select import AuthRule, Filters, auth_mode

if TYPE_CHECKING:
    from datetime import timedelta

    from palette_sync.core.fold import Presentation
    from palette_sync.core.model import AuthMode, Cluster
    from palette_sync.core.plan import Desired


@dataclass(frozen=True, slots=True)
class OidcPolicy:
    """`provider`: the name in Backstage. `spectro_proxy`: ask for the kubeconfig through Spectro Proxy."""

    provider: str
    spectro_proxy: bool
    refresh_interval: timedelta


@dataclass(frozen=True, slots=True)
class TokenPolicy:
    """`validity` is asked for in request mode; `rotate_every` and `overlap` rule the generations of secret mode."""

    validity: timedelta
    rotate_every: timedelta
    overlap: timedelta


@dataclass(frozen=True, slots=True)
class InstancePolicy:
    """Everything that decides what a pass over one instance does. `default_mode` None means `auto`."""

    instance: str
    name_prefix: str
    filters: Filters
    default_mode: AuthMode | None
    auth_rules: tuple[AuthRule, ...]
    oidc: OidcPolicy
    desired: Desired
    token: TokenPolicy
    presentation: Presentation
    verify_interval: timedelta
    cluster_timeout: timedelta
    tenant: str | None = None

    def mode_of(self, cluster: Cluster) -> AuthMode | None:
        return auth_mode(cluster, rules=self.auth_rules, default=self.default_mode)

    def fingerprint(self, mode: AuthMode) -> str:
        """Identify the configuration that shapes access in `mode`, so that a change of it is work that is due."""
        oidc = (self.oidc.provider, self.oidc.spectro_proxy)
        shape = repr(oidc) if mode.value == "oidc" else repr(self.desired)
        return hashlib.sha256(f"{mode.value}|{shape}".encode()).hexdigest()[:16]

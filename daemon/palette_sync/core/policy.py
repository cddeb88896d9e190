"""What an operator wants for one instance, as frozen values. `assembly.policy` builds it from the configuration."""

from __future__ import annotations

import hashlib
from dataclasses import MISSING, dataclass, field, fields
from datetime import timedelta
from typing import TYPE_CHECKING

from palette_sync.core.cloud import CLOUD_REASONS, CloudPolicy
from palette_sync.core.documents import encode_document
from palette_sync.core.model import AuthMode
from palette_sync.core.prune import Guard
from palette_sync.core.select import AuthRule, CaRule, Filters, auth_mode
from palette_sync.core.ways import SpectroProxy

if TYPE_CHECKING:
    from collections.abc import Iterable

    from palette_sync.core.fold import Presentation
    from palette_sync.core.issuers import IssuerPolicy
    from palette_sync.core.model import Cluster, ClusterRecord
    from palette_sync.core.objects import Desired
    from palette_sync.core.rbac import PolicyRule


@dataclass(frozen=True, slots=True)
class OidcPolicy:
    """`provider`: the name in Backstage. `issuers`: those that a cluster may name."""

    provider: str
    refresh_interval: timedelta
    issuers: IssuerPolicy


@dataclass(frozen=True, slots=True)
class TokenPolicy:
    """`validity` is requested in request mode, and a token granted for less than `shortest` is refused. `rotate_every`
    and `overlap` control the generations of secret mode.
    """

    validity: timedelta
    rotate_every: timedelta
    overlap: timedelta
    shortest: timedelta = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class InstancePolicy:
    """Everything that controls a pass over one instance.

    `default_mode` None means `auto`. `release_deselected`: a cluster that leaves the selection, or turns to OIDC, loses
    every object of ours, not only its tokens.
    """

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
    ca_rules: tuple[CaRule, ...] = ()
    guard: Guard = field(default_factory=Guard)
    release_deselected: bool = False
    spectro_proxy: SpectroProxy = SpectroProxy.AUTO
    cloud: CloudPolicy = field(default_factory=CloudPolicy)

    def ca_of(self, cluster: Cluster) -> str | None:
        """The CA of the first rule that matches, as PEM; None = use the one in the kubeconfig."""
        return next((rule.pem for rule in self.ca_rules if rule.matches(cluster)), None)

    def mode_of(self, cluster: Cluster) -> AuthMode | None:
        return auth_mode(cluster, rules=self.auth_rules, default=self.default_mode)

    def fingerprint(self, mode: AuthMode, ca_pem: str | None = None, *, auto: bool = False) -> str:
        """Identify the configuration that shapes access in `mode`, so that a change of it makes clusters due.

        `ca_pem` is the CA that a rule gives to the cluster. `auto`: the mode is not configured but found out.

        It is stored in Redis beside each cluster. Fields with their default value are left out: a new option changes
        no fingerprint until somebody sets it.
        """
        if mode is AuthMode.OIDC:
            proxy = {SpectroProxy.AUTO: True, SpectroProxy.NEVER: False}.get(self.spectro_proxy, "always")
            shape: dict[str, object] = {"provider": self.oidc.provider, "spectro_proxy": proxy}
            if self.oidc.issuers.rules:
                shape["issuers"] = [[rule.issuer, *rule.clients] for rule in self.oidc.issuers.rules]
        else:
            shape = _without_defaults(self.desired)
            shape["rules"] = [_without_defaults(rule) for rule in self.desired.rules]
            if self.spectro_proxy is not SpectroProxy.AUTO:
                shape["spectro_proxy"] = self.spectro_proxy.value
        if auto:
            shape["auto"] = True
        if ca_pem is not None:
            shape["ca"] = hashlib.sha256(ca_pem.encode()).hexdigest()
        text = encode_document("fingerprint", {"mode": mode.value, "shape": shape})
        return f"{_FORM}:{hashlib.sha256(text).hexdigest()[:16]}"

    def with_cloud(self, fingerprint: str, cluster: Cluster, record: ClusterRecord | None) -> str:
        """The fingerprint of a cluster that waits for a token of a cloud: then it depends on `cloud` as well.

        All other clusters keep theirs, so that a change of `cloud` makes only those due that it may help.
        """
        plain = plain_fingerprint(fingerprint)
        if record is None or record.access.reason not in CLOUD_REASONS:
            return plain
        shape = self.cloud.fingerprint(cluster)
        return f"{plain}+{shape}" if shape else plain

    def former_fingerprint(self, mode: AuthMode) -> str | None:
        """The fingerprint of this configuration in the form before `v2`; None if that form cannot express it.

        A cluster whose memory holds it is not due; the next work on the cluster stores the present form.
        """
        desired = self.desired
        if self.spectro_proxy is not SpectroProxy.AUTO:
            return None
        if mode is AuthMode.OIDC:
            if self.oidc.issuers.rules:
                return None
            shape = f"({self.oidc.provider!r}, True)"
        elif not _without_defaults(desired).keys() <= {*_DESIRED_FIELDS, "rules", "adopt", "token_source"}:
            return None
        else:
            rules = "".join(f"PolicyRule({_assigned(rule, _RULE_FIELDS)}), " for rule in desired.rules)
            listed = f"({rules.rstrip(' ')})" if len(desired.rules) == 1 else f"({rules.removesuffix(', ')})"
            names, modes = _assigned(desired, _DESIRED_FIELDS), _assigned(desired, ("adopt", "token_source"))
            shape = f"Desired({names}, rules={listed}, {modes})"
        return hashlib.sha256(f"{mode.value}|{shape}".encode()).hexdigest()[:16]


def plain_fingerprint(fingerprint: str | None) -> str:
    """A fingerprint without what `InstancePolicy.with_cloud` adds to it."""
    return (fingerprint or "").partition("+")[0]


_FORM = "v2"
# Who owns the objects is known only once Redis was read. A verification finds objects without the right owner.
_NOT_SHAPE = frozenset({"owner", "former_owners"})
_DESIRED_FIELDS = ("namespace", "service_account", "secret", "cluster_role", "cluster_role_binding")
_RULE_FIELDS = ("api_groups", "resources", "verbs", "resource_names", "non_resource_urls")


def _without_defaults(value: Desired | PolicyRule) -> dict[str, object]:
    """The fields of a frozen value that differ from their defaults."""
    found = {}
    for one in fields(value):
        if one.name in _NOT_SHAPE:
            continue
        default = one.default_factory() if one.default_factory is not MISSING else one.default
        if (given := getattr(value, one.name)) != default:
            found[one.name] = given
    return found


def _assigned(value: object, names: Iterable[str]) -> str:
    return ", ".join(f"{name}={getattr(value, name)!r}" for name in names)

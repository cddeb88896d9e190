"""Translates an instance's settings into the plain values that a pass works with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from palette_sync.assembly.files import read_pem
from palette_sync.assembly.store import StartError
from palette_sync.cloud import missing_extra
from palette_sync.core.cloud import Cloud, CloudPolicy, CloudRule, Identity
from palette_sync.core.fold import Presentation
from palette_sync.core.issuers import IssuerPolicy, IssuerRule, own_hosts
from palette_sync.core.model import LARGEST_CA, AuthMode
from palette_sync.core.network import NetworkPolicy
from palette_sync.core.objects import Desired
from palette_sync.core.policy import InstancePolicy, OidcPolicy, TokenPolicy
from palette_sync.core.prune import Guard
from palette_sync.core.rbac import PRESETS, PolicyRule
from palette_sync.core.select import AuthRule, CaRule, ClusterGlobs, Filters
from palette_sync.core.ways import SpectroProxy
from palette_sync.tls import NotACertificate, trusting

if TYPE_CHECKING:
    from collections.abc import Iterable

    from palette_sync.config import InstanceSettings, Settings
    from palette_sync.config.cloud_settings import AwsSettings, CloudsSettings
    from palette_sync.config.sections import ClusterRule
    from palette_sync.config.settings import TrustRuleSettings

_MODES = {"service-account": AuthMode.SERVICE_ACCOUNT, "oidc": AuthMode.OIDC, "auto": None}


def policy_of(name: str, settings: InstanceSettings) -> InstancePolicy:
    """The policy of one instance. `name` is its key in the configuration.

    Raises StartError where the CA file of a rule cannot be read, or holds no certificate.
    """
    rbac, token, oidc = settings.rbac, settings.token, settings.oidc
    return InstancePolicy(
        instance=name,
        name_prefix=name if settings.name_prefix is None else settings.name_prefix,
        filters=Filters(
            include_projects=settings.include_projects,
            exclude_projects=settings.exclude_projects,
            include_tags=settings.include_tags,
            exclude_tags=settings.exclude_tags,
            exclude_tenant_scoped_clusters=settings.exclude_tenant_scoped_clusters,
            include_virtual=settings.include_virtual,
            include_imported=settings.include_imported,
        ),
        default_mode=_MODES[settings.auth.mode],
        auth_rules=tuple(
            AuthRule(_MODES[rule.mode], project=rule.project, cluster=rule.cluster, tag=rule.tag)
            for rule in settings.auth.rules
        ),
        oidc=OidcPolicy(oidc.provider, oidc.refresh_interval, _issuers_of(settings)),
        desired=Desired(
            namespace=rbac.namespace,
            service_account=rbac.service_account,
            secret=rbac.secret,
            cluster_role=rbac.cluster_role,
            cluster_role_binding=rbac.cluster_role_binding,
            rules=rules_of(settings),
            adopt=rbac.adopt,
            token_source=token.source,
            labels=rbac.labels,
            annotations=rbac.annotations,
        ),
        token=TokenPolicy(token.validity, token.rotate_every, token.overlap, token.shortest),
        presentation=Presentation(
            title=settings.title,
            console_url=settings.console_url or _console_of(settings.url),
            skip_metrics_lookup=settings.skip_metrics_lookup,
        ),
        verify_interval=settings.verify_interval,
        cluster_timeout=settings.cluster_timeout,
        tenant=settings.tenant,
        ca_rules=tuple(_ca_rule(name, number, rule) for number, rule in enumerate(settings.trust.rules)),
        guard=Guard(settings.prune_confirm, settings.prune_hold),
        release_deselected=settings.release_deselected,
        spectro_proxy=SpectroProxy(settings.spectro_proxy),
        cloud=cloud_of(name, settings.cloud),
    )


def network_of(settings: Settings) -> NetworkPolicy:
    """Where connections to clusters and issuers may go."""
    return NetworkPolicy(settings.network.allow, settings.network.deny)


def _issuers_of(settings: InstanceSettings) -> IssuerPolicy:
    rules = tuple(IssuerRule(one.issuer, one.clients) for one in settings.oidc.issuers)
    console = settings.console_url or _console_of(settings.url)
    return IssuerPolicy(own_hosts((settings.url, console)), rules)


def cloud_of(name: str, settings: CloudsSettings) -> CloudPolicy:
    """Which clusters get tokens of a cloud. Raises StartError where the extra for a cloud is not installed."""
    for cloud in Cloud:
        if getattr(settings, cloud.value).enabled and (extra := missing_extra(cloud)):
            raise StartError(
                f"instances.{name}.cloud.{cloud.value}: needs the extra `{extra}`; "
                f"install it with: pip install 'palette-sync[{extra}]'"
            )
    aws, google, azure = settings.aws, settings.google, settings.azure
    return CloudPolicy(
        aws=_aws_rules(aws) if aws.enabled else (),
        google=_cloud_rules(google.rules, Identity(projects=google.projects)) if google.enabled else (),
        azure=_cloud_rules(azure.rules, Identity()) if azure.enabled else (),
    )


def _aws_rules(settings: AwsSettings) -> tuple[CloudRule, ...]:
    own = Identity(role_arn=settings.role_arn, external_id=settings.external_id)
    rules = tuple(
        CloudRule(Identity(rule.role_arn, rule.external_id) if rule.role_arn else own, _where(rule))
        for rule in settings.rules
    )
    return rules or (CloudRule(own, ClusterGlobs()),)


def _cloud_rules(rules: Iterable[ClusterRule], identity: Identity) -> tuple[CloudRule, ...]:
    return tuple(CloudRule(identity, _where(rule)) for rule in rules) or (CloudRule(identity, ClusterGlobs()),)


def _where(rule: ClusterRule) -> ClusterGlobs:
    return ClusterGlobs(project=rule.project, cluster=rule.cluster, tag=rule.tag)


def _ca_rule(name: str, number: int, rule: TrustRuleSettings) -> CaRule:
    where = f"instances.{name}.trust.rules.{number}.ca_file"
    pem = read_pem(where, rule.ca_file)
    try:
        trusting(pem)
    except NotACertificate:
        raise StartError(f"{where}: {rule.ca_file} holds no certificate in PEM form") from None
    if len(pem) > LARGEST_CA:
        raise StartError(f"{where}: {rule.ca_file} is larger than {LARGEST_CA} bytes; keep only what clusters need")
    return CaRule(pem, project=rule.project, cluster=rule.cluster, tag=rule.tag)


def grants_roles(settings: InstanceSettings) -> bool:
    """Whether a cluster of the instance may get a role: not where each of them uses OIDC."""
    return any(mode != "oidc" for mode in (settings.auth.mode, *(rule.mode for rule in settings.auth.rules)))


def rules_of(settings: InstanceSettings) -> tuple[PolicyRule, ...]:
    """The configured rules, or those of the preset. The word `core` stands for the empty API group."""
    if not settings.rbac.rules:
        return PRESETS[settings.rbac.preset]
    return tuple(
        PolicyRule(
            api_groups=tuple("" if group == "core" else group for group in rule.api_groups),
            resources=rule.resources,
            verbs=rule.verbs,
        )
        for rule in settings.rbac.rules
    )


def _console_of(url: str) -> str:
    """Palette's SaaS serves its API and its console on two hosts; a self-hosted Palette serves both on one."""
    return url.replace("https://api.", "https://console.", 1) if url.startswith("https://api.spectrocloud.") else url

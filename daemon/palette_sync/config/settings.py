"""Every key of the configuration: its type, its default and what is refused. `config.example.toml` documents them.

Durations are text with units ("90s", "10m", "1h30m", "30d") or a number of seconds. No error contains a value. pydantic
prints values by default; `hide_input_in_errors` turns it off for `str(error)`, and callers of `error.errors()` pass
`include_input=False`.
"""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    PrivateAttr,
    SecretStr,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict

from palette_sync.config.cloud_settings import CloudsSettings
from palette_sync.config.layers import PREFIX
from palette_sync.config.partial_settings import DEFAULT_LISTEN, LARGEST_HISTORY, LISTEN, REDIS_PREFIX, REDIS_SCHEMES
from palette_sync.config.sections import ClusterRule, Section
from palette_sync.config.values import (
    ApiKey,
    CollectorUrl,
    Duration,
    DurationOrNever,
    DurationOrZero,
    HttpsUrl,
    Names,
    Networks,
    ProxyUrl,
    parse_json,
)
from palette_sync.core.issuers import issuer_glob_problem
from palette_sync.core.objects import metadata_problem, owner_problem

SHORTEST_VALIDITY = timedelta(minutes=10)  # a kube-apiserver refuses TokenRequests below 600 s
NO_INSTANCE = "at least one instance is needed; add a table [instances.<name>] with url and api_key_file"
_INSTANCE_NAME = re.compile(r"[a-z][a-z0-9_]*")
Mode = Literal["service-account", "oidc", "auto"]


def instance_name_problem(name: str) -> str | None:
    """What is wrong with the name of an instance; None if nothing is."""
    if _INSTANCE_NAME.fullmatch(name):
        return None
    return (
        "is not an instance name; use [a-z][a-z0-9_]*, because it is a part of variables such as "
        f"{PREFIX}INSTANCES__<NAME>__API_KEY"
    )


class AuthRuleSettings(ClusterRule):
    mode: Mode


class AuthSettings(Section):
    mode: Mode = "service-account"
    rules: Annotated[tuple[AuthRuleSettings, ...], BeforeValidator(parse_json)] = ()


class TrustRuleSettings(ClusterRule):
    ca_file: Path


class TrustSettings(Section):
    rules: Annotated[tuple[TrustRuleSettings, ...], BeforeValidator(parse_json)] = ()


class IssuerSettings(Section):
    issuer: str
    clients: Names = ("*",)

    @field_validator("issuer")
    @classmethod
    def _is_a_glob(cls, value: str) -> str:
        if problem := issuer_glob_problem(value):
            raise ValueError(problem)
        return value


def _issuers(value: object) -> object:
    """Accept a glob in place of a table, one in place of a list, and a list as JSON text."""
    listed = (value,) if isinstance(value, str) and not value.lstrip().startswith(("[", "{")) else parse_json(value)
    if isinstance(listed, list | tuple):
        return tuple({"issuer": one} if isinstance(one, str) else one for one in listed)
    return listed


class OidcSettings(Section):
    provider: Annotated[str, Field(max_length=64)] = "spectrocloud"
    refresh_interval: Duration = timedelta(hours=1)
    issuers: Annotated[tuple[IssuerSettings, ...], BeforeValidator(_issuers)] = ()


class RbacRuleSettings(Section):
    api_groups: Names
    resources: Names
    verbs: Names

    @model_validator(mode="after")
    def _nothing_empty(self) -> RbacRuleSettings:
        if not (self.api_groups and self.resources and self.verbs):
            raise ValueError("api_groups, resources and verbs each need at least one entry")
        return self


_KUBERNETES_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_ROLE_NAME = re.compile(r"[a-zA-Z0-9]([-a-zA-Z0-9.:_]{0,251}[a-zA-Z0-9])?")


class RbacSettings(Section):
    namespace: str = "backstage-system"
    service_account: str = "backstage-sa"
    secret: str = "backstage-sa-token"  # noqa: S105 - the name of a Kubernetes object
    cluster_role: str = "backstage-read-only"
    cluster_role_binding: str = "backstage-read-only-binding"
    preset: Literal["read-only", "view"] = "read-only"
    rules: Annotated[tuple[RbacRuleSettings, ...], BeforeValidator(parse_json)] = ()
    adopt: Literal["never", "matching", "always"] = "matching"
    labels: Annotated[dict[str, str], BeforeValidator(parse_json)] = Field(default_factory=dict)
    annotations: Annotated[dict[str, str], BeforeValidator(parse_json)] = Field(default_factory=dict)

    @field_validator("labels", "annotations")
    @classmethod
    def _are_metadata(cls, value: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        for key, text in value.items():
            if problem := metadata_problem(str(info.field_name), key, text):
                raise ValueError(problem)
        return value

    @field_validator("namespace", "service_account", "secret")
    @classmethod
    def _is_a_name(cls, value: str) -> str:
        if not _KUBERNETES_NAME.fullmatch(value):
            raise ValueError("is not a Kubernetes name; use lower-case letters, digits and '-', at most 63 characters")
        return value

    @field_validator("cluster_role", "cluster_role_binding")
    @classmethod
    def _is_a_role_name(cls, value: str) -> str:
        if not _ROLE_NAME.fullmatch(value):
            raise ValueError("is not a name for a ClusterRole; use letters, digits and - . : _, at most 253 characters")
        return value


class TokenSettings(Section):
    source: Literal["request", "secret"] = "request"
    validity: Duration = timedelta(hours=24)
    shortest: Duration = timedelta(seconds=30)
    rotate_every: Duration = timedelta(days=30)
    overlap: Duration = timedelta(minutes=10)

    @field_validator("validity")
    @classmethod
    def _long_enough(cls, value: timedelta) -> timedelta:
        if value < SHORTEST_VALIDITY:
            raise ValueError('is too short: Kubernetes grants no token below 10 minutes; write at least "10m"')
        return value

    @model_validator(mode="after")
    def _overlap_fits(self) -> TokenSettings:
        if self.overlap >= self.rotate_every:
            raise ValueError("overlap must be shorter than rotate_every")
        return self


class InheritedSettings(Section):
    """The keys of an instance that have a default."""

    title: Annotated[str, Field(max_length=200)] = ""
    tenant: str | None = None
    name_prefix: Annotated[str, Field(max_length=63)] | None = None
    api_key_name: str | None = None
    include_projects: Names = ()
    exclude_projects: Names = ()
    include_tags: Names = ()
    exclude_tags: Names = ()
    exclude_tenant_scoped_clusters: bool = False
    include_virtual: bool = False
    include_imported: bool = True
    prune_confirm: Duration = timedelta(minutes=10)
    prune_hold: DurationOrNever = timedelta(hours=24)
    release_deselected: bool = False
    refresh_interval: Duration = timedelta(minutes=10)
    peek_interval: DurationOrZero = timedelta(seconds=30)
    refresh_cron: str | None = None
    verify_interval: Duration = timedelta(hours=1)
    cluster_timeout: Duration = timedelta(seconds=15)
    skip_metrics_lookup: bool = True
    ca_file: Path | None = None
    http_proxy: ProxyUrl | None = Field(default=None, repr=False)  # may contain a password
    console_url: HttpsUrl | None = None
    spectro_proxy: Literal["auto", "never", "always"] = "auto"
    auth: AuthSettings = AuthSettings()
    oidc: OidcSettings = OidcSettings()
    cloud: CloudsSettings = CloudsSettings()
    trust: TrustSettings = TrustSettings()
    rbac: RbacSettings = RbacSettings()
    token: TokenSettings = TokenSettings()

    @field_validator("refresh_cron")
    @classmethod
    def _is_cron(cls, value: str | None) -> str | None:
        if value is None:
            return None
        from palette_sync.core.cron import check_cron  # noqa: PLC0415 - only a configured cron needs the library

        try:
            check_cron(value)
        except ValueError:
            raise ValueError('is not a cron expression of five fields; write for example "*/10 * * * *"') from None
        return value


class DefaultsSettings(InheritedSettings):
    """`[defaults]`: every key of an instance, inherited by all instances that do not set it."""

    url: HttpsUrl | None = None
    api_key: ApiKey | None = None


class InstanceSettings(InheritedSettings):
    url: HttpsUrl
    api_key: ApiKey


class RedisSettings(Section):
    url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    prefix: str = "palette-sync"
    history: Annotated[int, Field(ge=0, le=LARGEST_HISTORY)] = 500
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    connect_timeout: Duration = timedelta(seconds=5)
    timeout: Duration = timedelta(seconds=10)

    @field_validator("url")
    @classmethod
    def _is_known(cls, value: SecretStr) -> SecretStr:
        if not value.get_secret_value().startswith(REDIS_SCHEMES):
            raise ValueError("must start with one of " + ", ".join(REDIS_SCHEMES))
        return value

    @field_validator("prefix")
    @classmethod
    def _has_no_braces(cls, value: str) -> str:
        if not REDIS_PREFIX.fullmatch(value):
            raise ValueError("may contain only letters, digits and . _ -")
        return value


class SealSettings(Section):
    keys: SecretStr | None = None

    @field_validator("keys", mode="before")
    @classmethod
    def _lines(cls, value: object) -> object:
        return "\n".join(map(str, value)) if isinstance(value, list | tuple) else value


def _seal_shape(value: object) -> str:
    return SEAL_SHAPES[0] if isinstance(value, str) else SEAL_SHAPES[1]


# pydantic adds these tags to the location of an error below `seal`. They are not keys, so `problems` removes them.
SEAL_SHAPES = ("<word>", "<table>")
Seal = Annotated[
    Annotated[Literal["none"], Tag(SEAL_SHAPES[0])] | Annotated[SealSettings, Tag(SEAL_SHAPES[1])],
    Discriminator(_seal_shape),
]


class ServiceSettings(Section):
    concurrency: Annotated[int, Field(ge=1, le=256)] = 32
    grace: Duration = timedelta(seconds=20)
    deadline: Duration = timedelta(seconds=30)
    lease_ttl: Duration = timedelta(seconds=15)
    step_back: Duration = timedelta(minutes=5)
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "console"] = "auto"
    palette_rate_limits: bool = True
    strict_permissions: bool = False
    owner: str | None = None

    @field_validator("owner")
    @classmethod
    def _is_a_label(cls, value: str | None) -> str | None:
        if value is not None and (problem := owner_problem(value)):
            raise ValueError(problem)
        return value

    @model_validator(mode="after")
    def _grace_before_deadline(self) -> ServiceSettings:
        if self.grace >= self.deadline:
            raise ValueError("grace must be shorter than deadline")
        return self


class NetworkSettings(Section):
    allow: Networks = ()
    deny: Networks = ()

    @model_validator(mode="after")
    def _differ(self) -> NetworkSettings:
        if set(self.allow) & set(self.deny):
            raise ValueError("allow and deny hold the same network; of two networks the smaller one decides")
        return self


class HttpSettings(Section):
    listen: str = DEFAULT_LISTEN
    hosts: Names = ()
    token: SecretStr | None = None

    @field_validator("token")
    @classmethod
    def _cannot_be_guessed(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.fullmatch(r"[\x21-\x7e]{20,512}", value.get_secret_value()):
            raise ValueError("must have 20 to 512 characters of ASCII without spaces; `openssl rand -hex 32` makes one")
        return value

    @field_validator("listen")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        if value and not LISTEN.fullmatch(value):
            raise ValueError('must be "HOST:PORT", or "" to switch the endpoint off')
        return value


class OtelSettings(Section):
    """Where traces of passes are sent, as OTLP over HTTP."""

    endpoint: CollectorUrl | None = None


class Settings(BaseSettings):
    """The whole configuration with all defaults. Built by `load` only."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        validate_default=True,
    )
    _exposed_secrets: tuple[str, ...] = PrivateAttr(default=())
    instances: dict[str, InstanceSettings]
    redis: RedisSettings = RedisSettings()
    seal: Seal = SealSettings()
    service: ServiceSettings = ServiceSettings()
    http: HttpSettings = HttpSettings()
    otel: OtelSettings = OtelSettings()
    network: NetworkSettings = NetworkSettings()
    defaults: DefaultsSettings = DefaultsSettings()

    @property
    def exposed_secrets(self) -> tuple[str, ...]:
        """Where the configuration names secret files that other users of the machine can read."""
        return self._exposed_secrets

    @field_validator("instances", mode="before")
    @classmethod
    def _names_are_valid(cls, value: object) -> object:
        if not value:
            raise ValueError(NO_INSTANCE)
        wrong = [name for name in value if instance_name_problem(str(name))] if isinstance(value, dict) else []
        if wrong:
            raise ValueError(f"{', '.join(map(repr, wrong))}: {instance_name_problem(str(wrong[0]))}")
        return value

    @field_validator("instances", mode="after")
    @classmethod
    def _instances_differ(cls, value: dict[str, InstanceSettings]) -> dict[str, InstanceSettings]:
        seen: dict[tuple[str, str], str] = {}
        for name, instance in value.items():
            twin = seen.setdefault((instance.url, instance.api_key.get_secret_value()), name)
            if twin != name:
                raise ValueError(
                    f"{twin!r} and {name!r} have the same url and API key, so each cluster would be published twice; "
                    "remove one of them"
                )
        return value

    @model_validator(mode="after")
    def _has_seal(self) -> Settings:
        if self.seal != "none" and not (self.seal.keys and self.seal.keys.get_secret_value().strip()):
            raise PydanticCustomError(
                "no_seal",
                "seal: has no key to seal tokens with; create one with `palette-sync seal-key > seal.keys` and set "
                '[seal] keys_file, or write seal = "none" to store tokens in the clear',
            )
        return self

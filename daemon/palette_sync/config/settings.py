"""The configuration as types: every key, its default, its unit and what makes a value wrong.

Units: durations are text with units ("90s", "10m", "1h30m", "30d") or seconds. No error of this module ever shows a
value: pydantic prints inputs unless told not to, in `str` by `hide_input_in_errors` and in `errors()` by
`include_input=False`.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    SecretStr,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict

from palette_sync.core.objects import metadata_problem

PREFIX = "PALETTE_SYNC_"
SHORTEST_VALIDITY = timedelta(minutes=10)  # a kube-apiserver refuses TokenRequests below 600 s
NO_INSTANCE = "needs at least one instance: add a table [instances.<name>] with url and api_key_file"
_INSTANCE_NAME = re.compile(r"[a-z][a-z0-9_]*")
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


def _duration(value: object) -> object:
    """Accept seconds (90), or text with units ("90s", "5m", "1h30m", "250ms")."""
    if isinstance(value, timedelta):
        return value
    seconds = _seconds(value)
    if seconds is not None:
        # What is infinite, no number, or longer than a timedelta holds is told below, in words that quote nothing.
        with suppress(OverflowError, ValueError):
            return timedelta(seconds=seconds)
    raise ValueError('is no duration; write for example "90s", "10m" or "1h"')


def _seconds(value: object) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    if isinstance(value, str):
        text = value.strip().replace(" ", "")
        if re.fullmatch("[0-9]+", text):
            return float(text)
        if text and _DURATION.sub("", text) == "":
            return sum(float(n) * _UNITS[unit] for n, unit in _DURATION.findall(text))
    return None


def parse_duration(text: str) -> timedelta:
    """Read a duration as the configuration does. Raises ValueError."""
    value = _duration(text)
    assert isinstance(value, timedelta)
    return value


def _positive(value: timedelta) -> timedelta:
    if value <= timedelta(0):
        raise ValueError("must be longer than nothing")
    return value


def _strings(value: object) -> object:
    """Accept one string where a list of strings is meant, and JSON where a variable carries a list."""
    if isinstance(value, str):
        return _json(value) if value.lstrip().startswith("[") else (value,)
    return value


def _json(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise ValueError("is not valid JSON") from None


def _is_https(value: str) -> str:
    if not re.fullmatch(r"https://[^\s/?#@]+/?", value):
        raise ValueError('must be "https://" and a host (and port), without path, user or query')
    return value.rstrip("/")


def _is_a_proxy(value: str) -> str:
    if not re.fullmatch(r"https?://[^\s/?#]+/?", value):
        raise ValueError('must be "http://", a host and a port, without path or query')
    return value


def _is_a_key(value: SecretStr) -> SecretStr:
    key = value.get_secret_value().strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError("is empty or holds characters that no HTTP header can carry")
    return SecretStr(key)


Duration = Annotated[timedelta, BeforeValidator(_duration), AfterValidator(_positive)]
Names = Annotated[tuple[str, ...], BeforeValidator(_strings)]
HttpsUrl = Annotated[str, AfterValidator(_is_https)]
ProxyUrl = Annotated[str, AfterValidator(_is_a_proxy)]
ApiKey = Annotated[SecretStr, AfterValidator(_is_a_key)]
Mode = Literal["service-account", "oidc", "auto"]


class Section(BaseModel):
    """A table of the file: unknown keys are errors, values are frozen and never quoted in an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, validate_default=True)


class AuthRuleSettings(Section):
    mode: Mode
    project: str | None = None
    cluster: str | None = None
    tag: str | None = None

    @model_validator(mode="after")
    def _matches_something(self) -> AuthRuleSettings:
        if self.project is None and self.cluster is None and self.tag is None:
            raise ValueError("needs at least one of project, cluster, tag; use auth.mode for all other clusters")
        return self


class AuthSettings(Section):
    mode: Mode = "service-account"
    rules: Annotated[tuple[AuthRuleSettings, ...], BeforeValidator(_json)] = ()


class OidcSettings(Section):
    provider: str = "spectrocloud"
    spectro_proxy: bool = True
    refresh_interval: Duration = timedelta(hours=1)


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
    rules: Annotated[tuple[RbacRuleSettings, ...], BeforeValidator(_json)] = ()
    adopt: Literal["never", "matching", "always"] = "matching"
    labels: Annotated[dict[str, str], BeforeValidator(_json)] = {}
    annotations: Annotated[dict[str, str], BeforeValidator(_json)] = {}

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
            raise ValueError("is no Kubernetes name: lower-case letters, digits and '-', at most 63")
        return value

    @field_validator("cluster_role", "cluster_role_binding")
    @classmethod
    def _is_a_role_name(cls, value: str) -> str:
        if not _ROLE_NAME.fullmatch(value):
            raise ValueError("is no name of a ClusterRole: letters, digits and - . : _, at most 253")
        return value


class TokenSettings(Section):
    source: Literal["request", "secret"] = "request"
    validity: Duration = timedelta(hours=24)
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
    """What every instance has and needs no word about."""

    title: str = ""
    tenant: str | None = None
    name_prefix: str | None = None
    api_key_name: str | None = None
    include_projects: Names = ()
    exclude_projects: Names = ()
    include_tags: Names = ()
    exclude_tags: Names = ()
    exclude_tenant_scoped_clusters: bool = False
    include_virtual: bool = False
    refresh_interval: Duration = timedelta(minutes=10)
    refresh_cron: str | None = None
    verify_interval: Duration = timedelta(hours=1)
    cluster_timeout: Duration = timedelta(seconds=15)
    skip_metrics_lookup: bool = True
    ca_file: Path | None = None
    http_proxy: ProxyUrl | None = Field(default=None, repr=False)  # may hold a password
    console_url: HttpsUrl | None = None
    auth: AuthSettings = AuthSettings()
    oidc: OidcSettings = OidcSettings()
    rbac: RbacSettings = RbacSettings()
    token: TokenSettings = TokenSettings()

    @field_validator("refresh_cron")
    @classmethod
    def _is_cron(cls, value: str | None) -> str | None:
        if value is None:
            return None
        from palette_sync.service.clock import cron_trigger  # noqa: PLC0415 - only a configured cron needs it

        try:
            cron_trigger(value)
        except ValueError:
            raise ValueError('is no cron expression of five fields; write for example "*/10 * * * *"') from None
        return value


class DefaultsSettings(InheritedSettings):
    """What `[defaults]` may say for every instance: all that an instance may say itself."""

    url: HttpsUrl | None = None
    api_key: ApiKey | None = None


class InstanceSettings(InheritedSettings):
    url: HttpsUrl
    api_key: ApiKey


class RedisSettings(Section):
    url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    prefix: str = "palette-sync"
    history: Annotated[int, Field(ge=0, le=100_000)] = 500
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    connect_timeout: Duration = timedelta(seconds=5)
    timeout: Duration = timedelta(seconds=10)

    @field_validator("url")
    @classmethod
    def _is_known(cls, value: SecretStr) -> SecretStr:
        schemes = ("redis://", "rediss://", "unix://", "redis+sentinel://", "rediss+sentinel://", "embedded://")
        if not value.get_secret_value().startswith(schemes):
            raise ValueError("must start with one of " + ", ".join(schemes))
        return value

    @field_validator("prefix")
    @classmethod
    def _has_no_braces(cls, value: str) -> str:
        if not re.fullmatch(r"[a-zA-Z0-9._:-]+", value):
            raise ValueError("may hold letters, digits and . _ : - only")
        return value


class SealSettings(Section):
    keys: SecretStr | None = None

    @field_validator("keys", mode="before")
    @classmethod
    def _lines(cls, value: object) -> object:
        return "\n".join(map(str, value)) if isinstance(value, list | tuple) else value


def _seal_shape(value: object) -> str:
    return SEAL_SHAPES[0] if isinstance(value, str) else SEAL_SHAPES[1]


# pydantic puts these into the location of an error below `seal`; they are no keys.
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
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "console"] = "auto"
    palette_rate_limits: bool = True

    @model_validator(mode="after")
    def _grace_before_deadline(self) -> ServiceSettings:
        if self.grace >= self.deadline:
            raise ValueError("grace must be shorter than deadline")
        return self


class HttpSettings(Section):
    listen: str = "127.0.0.1:9464"

    @field_validator("listen")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        if value and not re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[^\s:]+):\d{1,5}", value):
            raise ValueError('must be "host:port", or "" to serve nothing')
        return value


class Settings(BaseSettings):
    """The whole configuration, every default filled in. Built by `load`, never by hand."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        validate_default=True,
    )
    instances: dict[str, InstanceSettings]
    redis: RedisSettings = RedisSettings()
    seal: Seal = SealSettings()
    service: ServiceSettings = ServiceSettings()
    http: HttpSettings = HttpSettings()
    defaults: DefaultsSettings = DefaultsSettings()

    @field_validator("instances", mode="before")
    @classmethod
    def _names_are_sound(cls, value: object) -> object:
        if not value:
            raise ValueError(NO_INSTANCE)
        wrong = [name for name in value if not _INSTANCE_NAME.fullmatch(str(name))] if isinstance(value, dict) else []
        if wrong:
            raise ValueError(
                f"{', '.join(map(repr, wrong))}: an instance name is [a-z][a-z0-9_]*, because variables name it too: "
                f"{PREFIX}INSTANCES__<NAME>__..."
            )
        return value

    @field_validator("instances", mode="after")
    @classmethod
    def _instances_differ(cls, value: dict[str, InstanceSettings]) -> dict[str, InstanceSettings]:
        seen: dict[tuple[str, str], str] = {}
        for name, instance in value.items():
            twin = seen.setdefault((instance.url, instance.api_key.get_secret_value()), name)
            if twin != name:
                raise ValueError(f"{twin!r} and {name!r} have the same url and API key; each cluster would show twice")
        return value

    @model_validator(mode="after")
    def _has_seal(self) -> Settings:
        if self.seal != "none" and not (self.seal.keys and self.seal.keys.get_secret_value().strip()):
            raise PydanticCustomError(
                "no_seal",
                "seal: no key to seal tokens with; create one by `palette-sync seal-key > seal.keys` and set "
                '[seal] keys_file, or write seal = "none" to store tokens in the clear',
            )
        return self

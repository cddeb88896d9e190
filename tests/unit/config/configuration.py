"""A configuration in a temporary directory, and the texts that several tests expect."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel

from palette_sync.config import ConfigError, Settings, load
from palette_sync.config.cloud_settings import AwsSettings, AzureSettings, GoogleSettings
from palette_sync.config.settings import (
    AuthSettings,
    DefaultsSettings,
    HttpSettings,
    InstanceSettings,
    NetworkSettings,
    OidcSettings,
    OtelSettings,
    RbacSettings,
    RedisSettings,
    SealSettings,
    ServiceSettings,
    TokenSettings,
    TrustSettings,
)

EXAMPLE = Path(__file__).parents[3] / "config.example.toml"
CANARY = "canary-4711-hush"
INSTANCE = '[instances.prod]\nurl = "https://api.example.com"\napi_key = "some-key"\n'
MINIMAL = 'seal = "none"\n' + INSTANCE

HTTPS = 'must be "https://HOST" or "https://HOST:PORT", without path, user or query'
NAME = "is not a Kubernetes name; use lower-case letters, digits and '-', at most 63 characters"
DURATION = 'is not a duration; write for example "90s", "10m" or "1h"'
UNFIT = "holds characters that no HTTP header can carry"
PROXY = 'must be "http://HOST:PORT", without path or query'
LISTEN = 'must be "HOST:PORT", or "" to switch the endpoint off'
NETWORK = 'has an entry that is not a network; write for example "10.0.0.0/8", "10.1.2.3" or "fd00::/8"'
NO_SEAL = (
    "FILE: seal: has no key to seal tokens with; create one with `palette-sync seal-key > seal.keys` and set "
    '[seal] keys_file, or write seal = "none" to store tokens in the clear'
)


class ConfigDirectory:
    """A directory with a configuration file in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = path / "config.toml"

    def write(self, name: str, content: str | bytes) -> Path:
        path = self.path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def load(self, text: str, **environ: str) -> Settings:
        self.file.write_text(text)
        return load(self.file, environ=environ)

    def problems(self, text: str, **environ: str) -> list[str]:
        """Return the problems, with the path of the file replaced by FILE."""
        with pytest.raises(ConfigError) as caught:
            self.load(text, **environ)
        assert str(caught.value) == "; ".join(caught.value.problems)
        return [problem.replace(str(self.file), "FILE") for problem in caught.value.problems]


def key_of(settings: Settings, instance: str = "prod") -> str:
    return settings.instances[instance].api_key.get_secret_value()


# The model of each table. [defaults.*] stands for the same tables of an instance.
TABLES: dict[str, type[BaseModel]] = {
    "defaults": DefaultsSettings,
    "defaults.auth": AuthSettings,
    "defaults.trust": TrustSettings,
    "defaults.oidc": OidcSettings,
    "defaults.cloud.aws": AwsSettings,
    "defaults.cloud.google": GoogleSettings,
    "defaults.cloud.azure": AzureSettings,
    "defaults.rbac": RbacSettings,
    "defaults.token": TokenSettings,
    "instances.prod": InstanceSettings,
    "redis": RedisSettings,
    "seal": SealSettings,
    "service": ServiceSettings,
    "http": HttpSettings,
    "otel": OtelSettings,
    "network": NetworkSettings,
}
SUBTABLES = {"auth", "cloud", "oidc", "rbac", "token", "trust"}
FILE_KEYS = {("instances.prod", "api_key_file"), ("redis", "url_file"), ("seal", "keys_file"), ("http", "token_file")}

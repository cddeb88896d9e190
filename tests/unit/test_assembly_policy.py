"""Every setting that shapes access reaches the values that a pass works with."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import SecretStr

from palette_sync.assembly.policy import policy_of
from palette_sync.config.settings import (
    AuthRuleSettings,
    AuthSettings,
    AwsSettings,
    AzureSettings,
    CloudsSettings,
    GoogleSettings,
    InstanceSettings,
    OidcSettings,
    RbacRuleSettings,
    RbacSettings,
    TokenSettings,
)

BASE: dict[str, Any] = {"url": "https://api.example.com", "api_key": SecretStr("some-key")}
# A value other than the default for each key; a new key without one fails below.
OTHER: dict[type, dict[str, Any]] = {
    RbacSettings: {
        "namespace": "other",
        "service_account": "other",
        "secret": "other",
        "cluster_role": "other",
        "cluster_role_binding": "other",
        "preset": "view",
        "rules": (RbacRuleSettings(api_groups=("apps",), resources=("deployments",), verbs=("get",)),),
        "adopt": "always",
        "labels": {"team": "platform"},
        "annotations": {"team": "platform"},
    },
    TokenSettings: {"source": "secret", "validity": "12h", "rotate_every": "7d", "overlap": "5m"},
    OidcSettings: {"provider": "oidc", "refresh_interval": "2h"},
    CloudsSettings: {
        "aws": AwsSettings(enabled=True),
        "google": GoogleSettings(enabled=True, projects=("shop",)),
        "azure": AzureSettings(enabled=True),
    },
    AuthSettings: {"mode": "oidc", "rules": (AuthRuleSettings(mode="oidc", cluster="edge-*"),)},
}
TABLES = {
    RbacSettings: "rbac",
    TokenSettings: "token",
    OidcSettings: "oidc",
    AuthSettings: "auth",
    CloudsSettings: "cloud",
}


@pytest.mark.parametrize(("table", "key"), [(model, key) for model in TABLES for key in model.model_fields], ids=str)
def test_every_key_of_a_table_reaches_the_policy(table: type, key: str) -> None:
    changed = table(**{key: OTHER[table][key]})

    assert policy_of("prod", InstanceSettings(**BASE, **{TABLES[table]: changed})) != policy_of(
        "prod", InstanceSettings(**BASE)
    )

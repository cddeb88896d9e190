"""Every setting that shapes access reaches the values that a pass works with."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import SecretStr

from palette_sync.assembly.policy import grants_roles, policy_of
from palette_sync.config.settings import (
    AuthRuleSettings,
    AuthSettings,
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
    TokenSettings: {"source": "secret", "validity": "12h", "shortest": "1m", "rotate_every": "7d", "overlap": "5m"},
    OidcSettings: {
        "provider": "oidc",
        "spectro_proxy": False,
        "refresh_interval": "2h",
        "issuers": "https://login.example/*",
    },
    AuthSettings: {"mode": "oidc", "rules": (AuthRuleSettings(mode="oidc", cluster="edge-*"),)},
}
TABLES = {RbacSettings: "rbac", TokenSettings: "token", OidcSettings: "oidc", AuthSettings: "auth"}


@pytest.mark.parametrize(
    "changed",
    [{"prune_confirm": "5m"}, {"prune_hold": "never"}, {"include_imported": False}, {"include_virtual": True}],
    ids=str,
)
def test_the_guard_and_the_filters_reach_the_policy(changed: dict[str, Any]) -> None:
    assert policy_of("prod", InstanceSettings(**BASE, **changed)) != policy_of("prod", InstanceSettings(**BASE))


@pytest.mark.parametrize(("table", "key"), [(model, key) for model in TABLES for key in model.model_fields], ids=str)
def test_every_key_of_a_table_reaches_the_policy(table: type, key: str) -> None:
    changed = table(**{key: OTHER[table][key]})

    assert policy_of("prod", InstanceSettings(**BASE, **{TABLES[table]: changed})) != policy_of(
        "prod", InstanceSettings(**BASE)
    )


@pytest.mark.parametrize(
    ("auth", "grants"),
    [
        pytest.param(AuthSettings(), True, id="service accounts"),
        pytest.param(AuthSettings(mode="auto"), True, id="found out"),
        pytest.param(AuthSettings(mode="oidc"), False, id="OIDC only"),
        pytest.param(
            AuthSettings(mode="oidc", rules=(AuthRuleSettings(mode="oidc", tag="x"),)), False, id="OIDC by rule too"
        ),
        pytest.param(
            AuthSettings(mode="oidc", rules=(AuthRuleSettings(mode="service-account", tag="x"),)),
            True,
            id="a rule names service accounts",
        ),
    ],
)
def test_only_where_a_role_may_be_granted_is_there_anything_to_warn_about(auth: AuthSettings, grants: bool) -> None:  # noqa: FBT001
    assert grants_roles(InstanceSettings(**BASE, auth=auth)) is grants

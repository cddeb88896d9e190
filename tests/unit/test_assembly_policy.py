"""Every setting that shapes access reaches the values that a pass works with."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import SecretStr

from builders import TEAM_B, cluster
from palette_sync.assembly.policy import grants_roles, policy_of
from palette_sync.assembly.store import StartError
from palette_sync.config.cloud_settings import AwsSettings, AzureSettings, CloudsSettings, GoogleSettings
from palette_sync.config.settings import (
    AuthRuleSettings,
    AuthSettings,
    InstanceSettings,
    OidcSettings,
    RbacRuleSettings,
    RbacSettings,
    TokenSettings,
)
from palette_sync.core.cloud import Cloud, CloudPolicy, Identity

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
    OidcSettings: {"provider": "oidc", "refresh_interval": "2h", "issuers": "https://login.example/*"},
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


ROLE, OTHER_ROLE = "arn:aws:iam::123456789012:role/backstage", "arn:aws:iam::210987654321:role/backstage"


def cloud_policy(**clouds: Any) -> CloudPolicy:
    return policy_of("prod", InstanceSettings(**BASE, cloud=CloudsSettings(**clouds))).cloud


def test_a_cloud_without_rules_is_for_every_cluster_and_a_cloud_that_is_off_for_none() -> None:
    policy = cloud_policy(aws={"enabled": True, "role_arn": ROLE, "external_id": "x"}, azure={"rules": [{"tag": "a"}]})

    assert policy.identity_of(Cloud.AWS, cluster()) == Identity(ROLE, "x")
    assert policy.identity_of(Cloud.AZURE, cluster(tags=("a",))) is None
    assert policy.identity_of(Cloud.GOOGLE, cluster()) is None


def test_a_rule_of_aws_may_name_a_role_of_its_own() -> None:
    rules = [{"project": "team-b", "role_arn": OTHER_ROLE}, {"tag": "cloud:aws"}]
    policy = cloud_policy(aws={"enabled": True, "role_arn": ROLE, "external_id": "x", "rules": rules})

    assert policy.identity_of(Cloud.AWS, cluster(project=TEAM_B)) == Identity(OTHER_ROLE)
    assert policy.identity_of(Cloud.AWS, cluster(tags=("cloud:aws",))) == Identity(ROLE, "x")
    assert policy.identity_of(Cloud.AWS, cluster()) is None


def test_the_projects_of_google_hold_for_each_of_its_rules() -> None:
    policy = cloud_policy(google={"enabled": True, "projects": ["shop"], "rules": [{"cluster": "web"}]})

    assert policy.identity_of(Cloud.GOOGLE, cluster()) == Identity(projects=("shop",))
    assert policy.identity_of(Cloud.GOOGLE, cluster(name="api")) is None


def test_a_cloud_whose_library_is_missing_is_an_error_that_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("palette_sync.assembly.policy.missing_extra", lambda cloud: cloud.value)

    with pytest.raises(StartError, match=r"instances\.prod\.cloud\.aws: .*pip install 'palette-sync\[aws\]'"):
        cloud_policy(aws={"enabled": True})
    assert cloud_policy() == CloudPolicy()


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

"""The fingerprint of what is configured for a cluster changes when, and only when, that changes."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from palette_sync.core.fold import Presentation
from palette_sync.core.model import AuthMode
from palette_sync.core.plan import Desired
from palette_sync.core.policy import InstancePolicy, OidcPolicy, TokenPolicy
from palette_sync.core.rbac import READ_ONLY, VIEW
from palette_sync.core.select import AuthRule, Filters
from unit.builders import cluster

HOUR = timedelta(hours=1)
POLICY = InstancePolicy(
    instance="prod",
    name_prefix="prod",
    filters=Filters(),
    default_mode=AuthMode.SERVICE_ACCOUNT,
    auth_rules=(AuthRule(AuthMode.OIDC, cluster="edge-*"),),
    oidc=OidcPolicy("spectrocloud", spectro_proxy=True, refresh_interval=HOUR),
    desired=Desired("ns", "sa", "secret", "role", "binding", READ_ONLY),
    token=TokenPolicy(HOUR, HOUR, HOUR),
    presentation=Presentation("", ""),
    verify_interval=HOUR,
    cluster_timeout=HOUR,
)


def test_each_mode_has_its_own_fingerprint_of_its_own_settings() -> None:
    wider = replace(POLICY, desired=replace(POLICY.desired, rules=VIEW))
    direct = replace(POLICY, oidc=replace(POLICY.oidc, spectro_proxy=False))
    account, oidc = AuthMode.SERVICE_ACCOUNT, AuthMode.OIDC

    assert POLICY.fingerprint(account) != wider.fingerprint(account)
    assert POLICY.fingerprint(oidc) == wider.fingerprint(oidc)
    assert POLICY.fingerprint(oidc) != direct.fingerprint(oidc)
    assert POLICY.fingerprint(account) == direct.fingerprint(account)
    assert POLICY.fingerprint(account) != POLICY.fingerprint(oidc)


def test_rules_come_before_the_default_mode() -> None:
    assert POLICY.mode_of(cluster(name="edge-1")) is AuthMode.OIDC
    assert POLICY.mode_of(cluster(name="core-1")) is AuthMode.SERVICE_ACCOUNT

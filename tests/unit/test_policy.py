"""One instance's policy: whose mode holds for a cluster, and which changes of configuration are work."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, fields, replace
from typing import Any

import pytest

from builders import HOUR, MINUTE, TEAM_B, cluster
from palette_sync.core.fold import Presentation
from palette_sync.core.issuers import IssuerPolicy
from palette_sync.core.model import AuthMode
from palette_sync.core.objects import Desired
from palette_sync.core.policy import InstancePolicy, OidcPolicy, TokenPolicy
from palette_sync.core.rbac import READ_ONLY, VIEW
from palette_sync.core.select import AuthRule, Filters
from palette_sync.core.ways import SpectroProxy

DESIRED = Desired(
    namespace="backstage-system",
    service_account="backstage-sa",
    secret="backstage-sa-token",
    cluster_role="backstage-read-only",
    cluster_role_binding="backstage-read-only-binding",
    rules=READ_ONLY,
)
POLICY = InstancePolicy(
    instance="prod",
    name_prefix="prod",
    filters=Filters(),
    default_mode=AuthMode.SERVICE_ACCOUNT,
    auth_rules=(AuthRule(AuthMode.OIDC, project="team-b"), AuthRule(None, cluster="edge-*")),
    oidc=OidcPolicy("spectrocloud", refresh_interval=HOUR, issuers=IssuerPolicy(frozenset())),
    desired=DESIRED,
    token=TokenPolicy(24 * HOUR, 720 * HOUR, 10 * MINUTE),
    presentation=Presentation("", ""),
    verify_interval=HOUR,
    cluster_timeout=MINUTE,
)


def test_the_rules_decide_the_mode_and_else_the_default() -> None:
    assert POLICY.mode_of(cluster(project=TEAM_B)) is AuthMode.OIDC
    assert POLICY.mode_of(cluster(name="edge-1")) is None
    assert POLICY.mode_of(cluster()) is AuthMode.SERVICE_ACCOUNT


@pytest.mark.parametrize(
    ("changes", "differs_for"),
    [
        pytest.param({"desired": replace(DESIRED, rules=VIEW)}, {AuthMode.SERVICE_ACCOUNT}, id="other rules"),
        pytest.param({"desired": replace(DESIRED, namespace="x")}, {AuthMode.SERVICE_ACCOUNT}, id="another namespace"),
        pytest.param(
            {"desired": replace(DESIRED, token_source="secret")}, {AuthMode.SERVICE_ACCOUNT}, id="another token source"
        ),
        pytest.param(
            {"oidc": replace(POLICY.oidc, provider="okta")}, {AuthMode.OIDC}, id="another provider in Backstage"
        ),
        pytest.param({"spectro_proxy": SpectroProxy.NEVER}, set(AuthMode), id="no way through the proxy"),
        pytest.param({"spectro_proxy": SpectroProxy.ALWAYS}, set(AuthMode), id="only through the proxy"),
        pytest.param({"presentation": Presentation("Production", "")}, set(), id="a title shapes no access"),
        pytest.param({"verify_interval": 2 * HOUR}, set(), id="an interval shapes no access"),
        pytest.param({"filters": Filters(exclude_tags=("old",))}, set(), id="a filter shapes no access"),
    ],
)
def test_a_fingerprint_changes_with_what_shapes_access_in_that_mode(
    changes: dict[str, Any], differs_for: set[AuthMode]
) -> None:
    changed = replace(POLICY, **changes)

    assert {mode for mode in AuthMode if changed.fingerprint(mode) != POLICY.fingerprint(mode)} == differs_for


OTHER_VALUES = {
    "namespace": "x",
    "service_account": "x",
    "secret": "x",
    "cluster_role": "x",
    "cluster_role_binding": "x",
    "rules": VIEW,
    "adopt": "always",
    "token_source": "secret",
    "labels": {"a": "b"},
    "annotations": {"a": "b"},
}


OWNER = {"owner": "production", "former_owners": frozenset({"staging"})}


@pytest.mark.parametrize("name", [one.name for one in fields(Desired) if one.name not in OWNER])
def test_every_field_of_the_wanted_access_shapes_its_fingerprint(name: str) -> None:
    changed = replace(POLICY, desired=replace(DESIRED, **{name: OTHER_VALUES[name]}))

    assert changed.fingerprint(AuthMode.SERVICE_ACCOUNT) != POLICY.fingerprint(AuthMode.SERVICE_ACCOUNT)


def test_the_owner_shapes_no_fingerprint() -> None:
    """It is known only once Redis was read, and an object without it is found by verification."""
    assert replace(POLICY, desired=replace(DESIRED, **OWNER)).fingerprint(AuthMode.SERVICE_ACCOUNT) == (
        POLICY.fingerprint(AuthMode.SERVICE_ACCOUNT)
    )


@pytest.mark.parametrize("mode", AuthMode)
def test_auto_is_another_configuration_than_the_access_that_it_found(mode: AuthMode) -> None:
    assert POLICY.fingerprint(mode, auto=True) != POLICY.fingerprint(mode)
    assert POLICY.fingerprint(mode, "PEM", auto=True) != POLICY.fingerprint(mode, "PEM")


@dataclass(frozen=True, slots=True)
class Grown(Desired):
    """The wanted access as a later version may have it: with an option more, which nobody has set."""

    priority: str = "normal"


def test_a_new_option_changes_no_fingerprint_until_it_is_set() -> None:
    values = {one.name: getattr(DESIRED, one.name) for one in fields(Desired)}

    assert replace(POLICY, desired=Grown(**values)).fingerprint(AuthMode.SERVICE_ACCOUNT) == POLICY.fingerprint(
        AuthMode.SERVICE_ACCOUNT
    )
    assert replace(POLICY, desired=Grown(**values, priority="high")).fingerprint(
        AuthMode.SERVICE_ACCOUNT
    ) != POLICY.fingerprint(AuthMode.SERVICE_ACCOUNT)


def test_the_fingerprints_are_those_that_lie_in_redis_today() -> None:
    """Changing one makes every cluster of every installation due, each with its admin kubeconfig."""
    assert POLICY.fingerprint(AuthMode.SERVICE_ACCOUNT) == "v2:0eac7bd281c657ae"
    assert POLICY.fingerprint(AuthMode.OIDC) == "v2:95117a562e74f4d0"


@pytest.mark.parametrize(
    ("policy", "mode", "stored"),
    [
        pytest.param(POLICY, AuthMode.SERVICE_ACCOUNT, "48fdc0e684bfbabe", id="service account"),
        pytest.param(POLICY, AuthMode.OIDC, "8bdfd04b8a55e4e0", id="OIDC"),
        pytest.param(
            replace(POLICY, desired=replace(DESIRED, rules=VIEW, token_source="secret", adopt="always")),
            AuthMode.SERVICE_ACCOUNT,
            "5193d8837d4a1ff3",
            id="several rules",
        ),
    ],
)
def test_the_former_form_is_known_for_the_same_configuration(
    policy: InstancePolicy, mode: AuthMode, stored: str
) -> None:
    assert policy.former_fingerprint(mode) == stored


@pytest.mark.parametrize("mode", AuthMode)
def test_a_way_that_the_former_form_did_not_know_has_no_former_fingerprint(mode: AuthMode) -> None:
    assert replace(POLICY, spectro_proxy=SpectroProxy.ALWAYS).former_fingerprint(mode) is None


@pytest.mark.parametrize("newer", [{"labels": {"a": "b"}}, {"annotations": {"a": "b"}}])
def test_what_the_former_form_cannot_express_has_no_former_fingerprint(newer: dict[str, Any]) -> None:
    policy = replace(POLICY, desired=replace(DESIRED, **newer))

    assert policy.former_fingerprint(AuthMode.SERVICE_ACCOUNT) is None


def test_an_option_that_a_later_version_adds_has_no_former_fingerprint_once_it_is_set() -> None:
    values = {one.name: getattr(DESIRED, one.name) for one in fields(Desired)}

    assert replace(POLICY, desired=Grown(**values)).former_fingerprint(AuthMode.SERVICE_ACCOUNT) == "48fdc0e684bfbabe"
    grown = replace(POLICY, desired=Grown(**values, priority="high"))
    assert grown.former_fingerprint(AuthMode.SERVICE_ACCOUNT) is None


def test_the_two_modes_never_share_a_fingerprint() -> None:
    assert POLICY.fingerprint(AuthMode.OIDC) != POLICY.fingerprint(AuthMode.SERVICE_ACCOUNT)


def test_a_fingerprint_is_the_same_in_every_process() -> None:
    """A restart must not be mistaken for a change: nothing in it may depend on the hash seed or an address."""
    code = "from unit.test_policy import POLICY, AuthMode\nprint(*(POLICY.fingerprint(mode) for mode in AuthMode))\n"
    fingerprints = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }

    assert fingerprints == {" ".join(POLICY.fingerprint(mode) for mode in AuthMode) + "\n"}

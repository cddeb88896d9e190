"""What rules allow, which of them are dangerous, and which request proves them."""

from __future__ import annotations

import pytest

from palette_sync.core.rbac import (
    PRESETS,
    READ,
    READ_ONLY,
    VIEW,
    AccessProbe,
    PolicyRule,
    allows,
    normalise,
    probe_of,
    wide_rights,
)

SECRETS = PolicyRule(("",), ("secrets",), ("get",))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        pytest.param(
            [PolicyRule(("", "apps"), ("pods",), ("get", "list"))],
            [PolicyRule(("apps", ""), ("pods", "pods"), ("list", "get"))],
            True,
            id="order and repetition do not matter",
        ),
        pytest.param([SECRETS, READ_ONLY[0]], [READ_ONLY[0], SECRETS, SECRETS], True, id="nor do those of rules"),
        pytest.param([SECRETS], [PolicyRule(("",), ("secrets",), ("list",))], False, id="another verb is drift"),
        pytest.param(
            [SECRETS],
            [PolicyRule(("",), ("secrets",), ("get",), resource_names=("one",))],
            False,
            id="a rule for one object is another rule",
        ),
        pytest.param([SECRETS], [], False, id="a missing rule is drift"),
    ],
)
def test_rules_are_compared_by_meaning(one: list[PolicyRule], other: list[PolicyRule], same: bool) -> None:  # noqa: FBT001
    assert (normalise(one) == normalise(other)) is same


@pytest.mark.parametrize(
    ("rule", "asked", "expected"),
    [
        pytest.param(PolicyRule(("*",), ("*",), ("*",)), ("apps", "deployments", "get"), True, id="stars allow all"),
        pytest.param(PolicyRule(("",), ("*",), READ), ("", "pods/exec", "get"), True, id="a star covers subresources"),
        pytest.param(PolicyRule(("",), ("pods",), READ), ("", "pods/exec", "get"), False, id="a name alone does not"),
        pytest.param(
            PolicyRule(("",), ("*/status",), READ), ("", "pods/status", "get"), True, id="any object's status"
        ),
        pytest.param(PolicyRule(("",), ("*/status",), READ), ("", "pods", "get"), False, id="but not the object"),
        pytest.param(PolicyRule(("apps",), ("*",), READ), ("", "pods", "get"), False, id="another group"),
        pytest.param(PolicyRule(("",), ("pods",), READ), ("", "pods", "delete"), False, id="another verb"),
        pytest.param(
            PolicyRule(("",), ("pods",), READ, resource_names=("a",)), ("", "pods", "get"), False, id="one object only"
        ),
    ],
)
def test_rules_allow_what_kubernetes_allows(rule: PolicyRule, asked: tuple[str, str, str], expected: bool) -> None:  # noqa: FBT001
    group, resource, verb = asked
    assert allows([rule], group=group, resource=resource, verb=verb) is expected


def test_the_default_preset_is_reported_as_wide() -> None:
    warnings = " ".join(wide_rights(READ_ONLY))

    for danger in ("Secret", "pods/exec", "nodes/proxy", "services/proxy"):
        assert danger in warnings


@pytest.mark.parametrize(
    ("versions", "warns"),
    [
        pytest.param(("v1.34.9",), True, id="older"),
        pytest.param(("v1.36.2", "v1.35.0-eks-1"), False, id="refused by default since 1.35"),
        pytest.param(("v1.36.2", "v1.31.1"), True, id="one is older"),
        pytest.param(("v1.36.2", None), True, id="one is unknown"),
        pytest.param(("weird",), True, id="one is not a version"),
        pytest.param((), True, id="no cluster yet"),
    ],
)
def test_the_warning_of_exec_fits_the_versions_of_the_servers(versions: tuple[str | None, ...], warns: bool) -> None:  # noqa: FBT001
    warnings = wide_rights(READ_ONLY, versions=versions)

    assert any("pods/exec" in warning and "before Kubernetes 1.35" in warning for warning in warnings) is warns
    assert any("nodes/proxy" in warning for warning in warnings)


def test_the_view_preset_reads_no_secret_and_no_dangerous_subresource() -> None:
    assert wide_rights(VIEW) == ()
    subresources = {resource for rule in VIEW for resource in rule.resources if "/" in resource}
    assert subresources == {"pods/log", "*/status", "*/scale"}
    assert {verb for rule in VIEW for verb in rule.verbs} == set(READ)
    assert "*" not in {word for rule in VIEW for word in (*rule.api_groups, *rule.resources)}


@pytest.mark.parametrize(
    ("group", "resource"),
    [
        *(("", name) for name in ("namespaces", "serviceaccounts", "pods", "services", "configmaps", "limitranges")),
        *(("", name) for name in ("resourcequotas", "events", "nodes", "pods/log")),
        *(("apps", name) for name in ("deployments", "replicasets", "statefulsets", "daemonsets")),
        ("autoscaling", "horizontalpodautoscalers"),
        *(("batch", name) for name in ("jobs", "cronjobs")),
        ("networking.k8s.io", "ingresses"),
        *(("metrics.k8s.io", name) for name in ("pods", "nodes")),
        *(("rbac.authorization.k8s.io", name) for name in ("clusterroles", "clusterrolebindings")),
    ],
)
def test_the_view_preset_shows_what_backstage_and_the_verification_read(group: str, resource: str) -> None:
    assert all(allows(VIEW, group=group, resource=resource, verb=verb) for verb in READ)


def test_verbs_beyond_reading_are_reported() -> None:
    assert wide_rights([PolicyRule(("apps",), ("deployments",), ("get", "patch", "delete"))]) == (
        "allows more than reading: delete, patch",
    )


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        pytest.param(READ_ONLY, AccessProbe("", "pods", "list"), id="listing pods where that is allowed"),
        pytest.param(VIEW, AccessProbe("", "pods", "list"), id="also by the view preset"),
        pytest.param([PolicyRule(("apps",), ("*",), ("*",))], AccessProbe("apps", "pods", "get"), id="stars get names"),
        pytest.param(
            [PolicyRule(("x",), ("y/log",), ("watch",))], AccessProbe("x", "y/log", "watch"), id="a first rule"
        ),
        pytest.param(
            [PolicyRule(("",), ("pods",), ("get",), ("one",))],
            AccessProbe("", "pods", "get", name="one"),
            id="one object",
        ),
        pytest.param(
            [PolicyRule(verbs=("get",), non_resource_urls=("/metrics",))],
            AccessProbe("", "", "get", path="/metrics"),
            id="a path without a resource",
        ),
        pytest.param(
            [PolicyRule(("",), ("pods",)), PolicyRule(verbs=("get",)), SECRETS],
            AccessProbe("", "secrets", "get"),
            id="rules that allow nothing are skipped",
        ),
        pytest.param([], AccessProbe("", "pods", "list"), id="pods where nothing is allowed at all"),
    ],
)
def test_the_probe_asks_for_what_the_rules_allow(rules: list[PolicyRule], expected: AccessProbe) -> None:
    assert probe_of(rules) == expected


def test_the_presets_have_the_names_of_the_configuration() -> None:
    assert dict(PRESETS) == {"read-only": READ_ONLY, "view": VIEW}

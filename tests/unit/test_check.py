"""What `palette-sync check` says about Palette: each error has its own remedy, and no warning is false."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic import SecretStr

from builders import NOW, TEAM_A, TEAM_B, cluster, discovery, listing, record, sealed_credential, tenant_listing
from palette_sync import palette
from palette_sync.assembly.policy import policy_of
from palette_sync.cli.check import _seal_findings
from palette_sync.cli.check_palette import discovery_findings, permission_findings, remedy_of
from palette_sync.config.settings import InstanceSettings
from palette_sync.core.model import Head, InstanceState, Secret
from palette_sync.core.snapshot_codec import sealed_for
from palette_sync.http import Cause
from palette_sync.palette.errors import error_of
from palette_sync.store.seal import SealKeys

ADMIN, BEFORE = "cluster.adminKubeconfigDownload", "cluster.delete"


def answered(status: int, code: str | None = None) -> palette.PaletteError:
    body = b"<html>" if code is None else f'{{"code":"{code}","message":"why"}}'.encode()
    return error_of("GET /x", status, body, redact=str)


def unreachable(cause: Cause, text: str = "x") -> palette.PaletteError:
    return palette.Unreachable(text, retryable=False, cause=cause)


@pytest.mark.parametrize(
    ("error", "scope", "remedy"),
    [
        pytest.param(answered(401, "UnAuthorizedAccess"), "", "create an API key", id="401"),
        pytest.param(answered(403, "OperationForbidden"), "projects", "project.list", id="403 for the projects"),
        pytest.param(answered(403, "OperationForbidden"), "p-a", "cluster.list", id="403 for a project"),
        pytest.param(answered(403), "", "a proxy or firewall seems to answer", id="403 of somebody else"),
        pytest.param(answered(403, "ResourceAccessDenied"), "p-a", "a role in that project", id="a closed project"),
        pytest.param(answered(407), "", "write it into http_proxy", id="407 as an answer"),
        pytest.param(
            unreachable(Cause.PROXY, "the proxy answered HTTP 407"), "", "write it into http_proxy", id="407 of CONNECT"
        ),
        pytest.param(unreachable(Cause.PROXY, "HTTP 403"), "", "allow Palette's host", id="a proxy that refuses"),
        pytest.param(answered(500), "", "Palette itself fails", id="500"),
        pytest.param(answered(429), "", "what else uses Palette", id="429"),
        pytest.param(answered(404), "", "the address of Palette's API", id="another site"),
        pytest.param(unreachable(Cause.TIMEOUT), "", "nothing answered in time", id="a hang"),
        pytest.param(TimeoutError(), "p-a", "nothing answered in time", id="a listing that hangs"),
        pytest.param(unreachable(Cause.TLS), "", "ca_file", id="TLS"),
        pytest.param(unreachable(Cause.TLS_VERSION), "", "TLS 1.2", id="an old TLS"),
        pytest.param(unreachable(Cause.PLAIN_HTTP), "", "does not speak TLS", id="plain HTTP"),
        pytest.param(unreachable(Cause.DNS), "", "the host in url", id="DNS"),
        pytest.param(unreachable(Cause.CONNECT), "", "firewalls", id="nobody listens"),
        pytest.param(unreachable(Cause.BROKEN), "", "what stands between", id="a broken connection"),
        pytest.param(palette.TenantMismatch("x"), "", "correct tenant", id="another tenant"),
    ],
)
def test_each_error_has_its_own_remedy(error: Exception, scope: str, remedy: str) -> None:
    assert remedy in remedy_of(error, scope)


def policy(**settings: Any) -> Any:
    given: dict[str, Any] = {"url": "https://api.example.com", "api_key": SecretStr("some-key")}
    return policy_of("prod", InstanceSettings(**given, **settings))


def texts(findings: Any) -> list[tuple[str, str]]:
    return [(one.level, one.what) for one in findings]


def test_a_failed_project_list_has_the_remedy_of_its_error() -> None:
    found = replace(discovery(projects=None), error="HTTP 500")

    (finding,) = discovery_findings("prod", found, {"projects": answered(500)}, policy())

    assert (finding.level, finding.what) == ("problem", "HTTP 500")
    assert "Palette itself fails" in finding.remedy


def test_every_listing_that_is_not_complete_is_named() -> None:
    found = replace(
        discovery(
            listing(TEAM_A, error="HTTP 500"),
            replace(listing(TEAM_B, cluster("b1")), short="1 of 2"),
            tenant_listing(not_permitted=True),
        ),
        short="2 of 3",
    )

    findings = discovery_findings("prod", found, {"p-a": answered(500)}, policy())

    assert texts(findings) == [
        ("ok", "tenant acme: 2 of 2 projects, 1 cluster"),
        ("warning", "the list of projects: 2 of 3"),
        ("problem", "project team-a: HTTP 500"),
        ("warning", "project team-b: 1 of 2"),
        ("warning", "the API key may not list tenant-scoped clusters"),
    ]


def test_a_pattern_that_matches_nothing_is_named_with_what_may_be_meant() -> None:
    found = discovery(listing(TEAM_A, cluster(tags=("env:prod",))))

    findings = discovery_findings("prod", found, {}, policy(include_projects=("taem-a",), exclude_tags=("env:*", "x")))

    assert texts(findings)[1:] == [
        ("warning", 'include_projects: "taem-a" matches no project; is "team-a" meant?'),
        ("warning", 'exclude_tags: "x" matches no tag of a listed cluster'),
    ]


def test_virtual_clusters_that_nobody_sees_name_their_permissions() -> None:
    found = discovery(listing(TEAM_A, cluster()))

    findings = discovery_findings("prod", found, {}, policy(include_virtual=True))

    assert "virtualCluster.list and virtualCluster.get" in findings[-1].remedy
    seen = discovery(listing(TEAM_A, cluster(virtual=True)))
    assert len(discovery_findings("prod", seen, {}, policy(include_virtual=True))) == 1


@pytest.mark.parametrize(
    ("given", "known", "named"),
    [
        pytest.param({ADMIN}, {ADMIN, BEFORE}, None, id="a new Palette with the permission"),
        pytest.param({BEFORE}, {ADMIN, BEFORE}, ADMIN, id="a new Palette with the old permission only"),
        pytest.param({BEFORE}, {BEFORE}, None, id="before 4.8.21 the old permission is enough"),
        pytest.param(set(), {BEFORE}, BEFORE, id="before 4.8.21 without it"),
        pytest.param({BEFORE}, None, None, id="an unknown version with the old permission"),
        pytest.param(set(), None, f"{ADMIN} (Palette before 4.8.21: {BEFORE})", id="an unknown version without any"),
    ],
)
def test_the_missing_permission_is_that_of_the_version(
    given: set[str], known: set[str] | None, named: str | None
) -> None:
    row = cluster(permissions=frozenset({"cluster.get", *given}))

    findings = permission_findings("prod", [row], policy(), None if known is None else frozenset(known))

    assert [one.remedy for one in findings] == ([f"give its user a role with {named}, or use OIDC"] if named else [])


def test_clusters_that_need_no_admin_file_are_not_warned_of() -> None:
    rows = [
        cluster("c1", tags=("auth:oidc",), permissions=frozenset({"cluster.get"})),
        cluster("c2", imported=True, permissions=frozenset()),
        cluster("c3", permissions=None),
    ]
    rules = {"rules": ({"tag": "auth:oidc", "mode": "oidc"},)}

    assert permission_findings("prod", rows, policy(auth=rules), frozenset({ADMIN})) == []


def test_clusters_that_may_not_be_read_are_warned_of() -> None:
    rows = [cluster(permissions=frozenset({ADMIN}))]

    (finding,) = permission_findings("prod", rows, policy(), frozenset({ADMIN}))

    assert "cluster.get" in finding.remedy


PREFIX = "palette-sync"
HEAD = Head(1, 1, 1, "", "", "", 1, True, NOW, NOW, "", "w")


def published(sealer: SealKeys, **facts: Any) -> InstanceState:
    blank, shown = sealed_credential(sealed=""), record()
    sealed = replace(blank, sealed=sealer.seal(sealed_for(PREFIX, shown, blank), Secret("canary-token")))
    return InstanceState(head=HEAD, records={"c1": shown}, credentials={"c1": sealed}, **facts)


def test_seal_keys_are_compared_with_what_is_published() -> None:
    ours, theirs = (SealKeys.from_lines(SealKeys.generate_line(name)) for name in ("ours", "theirs"))

    states = {
        "prod": published(ours),
        "another": published(theirs, trusted=False),
        "empty": InstanceState(),
    }
    good, bad = _seal_findings(PREFIX, states, ours)
    (closed,) = _seal_findings(PREFIX, {"prod": published(theirs)}, ours)

    assert (good.level, good.what) == ("ok", "the keys fit what is published of prod")
    assert (bad.level, bad.what) == (
        "problem",
        "the published snapshot of another does not verify with the configured seal keys",
    )
    assert (closed.level, closed.what) == ("warning", "1 of 1 published tokens of prod are sealed with another key")

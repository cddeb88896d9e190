"""Which OIDC issuers a cluster may name."""

from __future__ import annotations

import tomllib

import pytest

from palette_sync.core.issuers import (
    LONGEST_CLIENT,
    LONGEST_ISSUER,
    IssuerPolicy,
    IssuerRule,
    issuer_glob_problem,
    issuer_problem,
    own_hosts,
)

OWN = IssuerPolicy(own_hosts(("https://api.palette.example:8443", "https://console.palette.example")))


def rules(*globs: str) -> IssuerPolicy:
    return IssuerPolicy(OWN.own_hosts, tuple(map(IssuerRule, globs)))


@pytest.mark.parametrize(
    "issuer",
    [
        "https://api.palette.example/v1/oidc/tenant/1",
        "https://console.palette.example",
        "https://CONSOLE.palette.example/x",
        "https://api.palette.example:9443/x",
    ],
)
def test_without_rules_the_issuers_on_palettes_own_hosts_are_allowed(issuer: str) -> None:
    assert OWN.allows(issuer, "any")


EVIL = [
    "https://evil.example/",
    "https://api.palette.example.evil.example/",
    "https://evil.example/https://api.palette.example/",
    "https://api.palette.example@evil.example/",
    "https://evil.example#api.palette.example",
    "https://evil.example?api.palette.example",
    "https://evil.example\\@api.palette.example/",
    "https://evil.example\\.api.palette.example/",
    "http://api.palette.example/",
    "https://api.palette.example\n/",
    "https://",
    "",
]


@pytest.mark.parametrize("issuer", EVIL)
def test_without_rules_no_other_issuer_is_allowed(issuer: str) -> None:
    assert not OWN.allows(issuer, "any")


@pytest.mark.parametrize("issuer", [*EVIL, "https://login.example/realms/../x", "https://login.example/%2e%2E/x"])
def test_globs_never_reach_beyond_the_part_that_they_stand_in(issuer: str) -> None:
    assert not rules("https://*.palette.example/*", "https://login.example/realms/*").allows(issuer, "any")


@pytest.mark.parametrize(
    ("glob", "issuer", "allowed"),
    [
        ("https://login.example/*", "https://login.example/realms/a", True),
        ("https://login.example/*", "https://login.example", True),
        ("https://login.example", "https://login.example/", True),
        ("https://login.example", "https://login.example/realms/a", False),
        ("https://login.example/*", "https://login.example:8443/", False),
        ("https://login.example:*/*", "https://login.example:8443/", True),
        ("https://login.example:443/*", "https://login.example/", True),
        ("https://*.example/*", "https://a.b.example/", True),
        ("https://*.example/*", "https://example/", False),
        ("https://[2001:db8::1]/*", "https://[2001:db8::1]/x", True),
        ("https://[2001:db8::1]/*", "https://2/x", False),
        ("nonsense", "https://login.example", False),
    ],
)
def test_host_port_and_path_match_separately(glob: str, issuer: str, *, allowed: bool) -> None:
    assert rules(glob).allows(issuer, "any") is allowed


def test_rules_replace_the_default() -> None:
    assert not rules("https://login.example/*").allows("https://api.palette.example/x", "any")


def test_a_rule_may_name_clients() -> None:
    policy = IssuerPolicy(frozenset(), (IssuerRule("https://login.example/*", ("backstage-*",)),))

    assert policy.allows("https://login.example/", "backstage-prod")
    assert not policy.allows("https://login.example/", "admin")


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://login.example/keys", True),
        ("https://LOGIN.example/keys", True),
        ("https://keys.example/jwks", True),
        ("https://keys.example/other", False),
        ("https://login.example:8443/keys", False),
        ("https://evil.example/keys", False),
        ("https://login.example@evil.example/keys", False),
    ],
)
def test_keys_lie_on_the_issuers_host_or_where_a_rule_allows(url: str, *, allowed: bool) -> None:
    policy = rules("https://login.example/realms/*", "https://keys.example/jwks")

    assert policy.allows_keys(url, issuer="https://login.example/realms/a") is allowed


def test_the_printed_line_allows_the_issuer_and_what_was_allowed_before() -> None:
    new = "https://login.example/realms/a"
    former = (IssuerRule("https://a.example/*"), IssuerRule("https://b.example/*", ("c",)))
    line = IssuerPolicy(OWN.own_hosts, former).line(new)

    assert tomllib.loads(line)["issuers"] == [
        "https://a.example/*",
        {"issuer": "https://b.example/*", "clients": ["c"]},
        new,
    ]
    default = rules(*tomllib.loads(OWN.line(new))["issuers"])
    assert default.allows(new, "any")
    assert default.allows("https://api.palette.example:9443/x", "any")
    assert not default.allows("https://evil.example/", "any")


def test_a_long_line_shows_what_is_new() -> None:
    line = rules(*(f"https://issuer-{number}.example/*" for number in range(50))).line("https://login.example")

    assert line == 'issuers = [..., "https://login.example"]'


@pytest.mark.parametrize(
    ("issuer", "client", "problem"),
    [
        ("https://login.example/a", "backstage", None),
        ("https://login.example/" + "a" * LONGEST_ISSUER, "c", "issuer"),
        ('https://login.example/"]\n[redis]', "c", "issuer"),
        ("https://login.example/\u202e", "c", "issuer"),
        ("https://login.example/", "c" * (LONGEST_CLIENT + 1), "client"),
        ("https://login.example/", "a\nb", "client"),
    ],
)
def test_an_issuer_or_client_that_is_no_plain_word_is_refused(issuer: str, client: str, problem: str | None) -> None:
    found = issuer_problem(issuer, client)

    assert (found is None) == (problem is None)
    assert problem is None or problem in str(found)


@pytest.mark.parametrize(
    ("glob", "good"), [("https://*.example/*", True), ("login.example", False), ("https://*", True)]
)
def test_a_configured_glob_must_be_one_of_https(glob: str, *, good: bool) -> None:
    assert (issuer_glob_problem(glob) is None) is good

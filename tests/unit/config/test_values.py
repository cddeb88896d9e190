"""What each key accepts and refuses."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from palette_sync.config.errors import NOT_JSON
from palette_sync.config.settings import SHORTEST_VALIDITY, HttpSettings, SealSettings
from palette_sync.core.durations import parse_duration
from palette_sync.core.model import Secret
from palette_sync.palette import Limits, PaletteClient, UnusableSettings
from unit.config.configuration import (
    DURATION,
    HTTPS,
    INSTANCE,
    LISTEN,
    MINIMAL,
    NAME,
    NETWORK,
    PROXY,
    UNFIT,
    ConfigDirectory,
)


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        pytest.param("console_url = 'http://c'", f"instances.prod.console_url: {HTTPS}", id="a console without TLS"),
        pytest.param("http_proxy = 'proxy:3128'", f"instances.prod.http_proxy: {PROXY}", id="a proxy without scheme"),
        pytest.param("http_proxy = 'http://p/path'", f"instances.prod.http_proxy: {PROXY}", id="a proxy with a path"),
        pytest.param("refresh_interval = '10x'", f"instances.prod.refresh_interval: {DURATION}", id="an unknown unit"),
        pytest.param("refresh_interval = ''", f"instances.prod.refresh_interval: {DURATION}", id="an empty duration"),
        pytest.param(
            "refresh_interval = true", f"instances.prod.refresh_interval: {DURATION}", id="a boolean as a duration"
        ),
        pytest.param(
            "refresh_interval = inf", f"instances.prod.refresh_interval: {DURATION}", id="an infinite duration"
        ),
        pytest.param("refresh_interval = nan", f"instances.prod.refresh_interval: {DURATION}", id="no number"),
        pytest.param("refresh_interval = '10²'", f"instances.prod.refresh_interval: {DURATION}", id="odd digits"),
        pytest.param(
            f"refresh_interval = '{'9' * 5000}d'",
            f"instances.prod.refresh_interval: {DURATION}",
            id="longer than a timedelta",
        ),
        pytest.param(
            "prune_hold = 'forever'", f'instances.prod.prune_hold: {DURATION}, or "never"', id="a hold without an end"
        ),
        pytest.param(
            "prune_hold = 0", 'instances.prod.prune_hold: must be longer than zero, or "never"', id="no hold at all"
        ),
        pytest.param("refresh_interval = 0", "instances.prod.refresh_interval: must be longer than zero", id="zero"),
        pytest.param(
            "refresh_cron = '61 * * * *'",
            'instances.prod.refresh_cron: is not a cron expression of five fields; write for example "*/10 * * * *"',
            id="a cron of impossible minutes",
        ),
        pytest.param(
            "auth.mode = 'odic'",
            "instances.prod.auth.mode: must be 'service-account', 'oidc' or 'auto'",
            id="an unknown mode",
        ),
        pytest.param(
            "auth.rules = [{ mode = 'oidc' }]",
            "instances.prod.auth.rules.0: needs at least one of project, cluster, tag; "
            'cluster = "*" matches every cluster',
            id="a rule that matches everything",
        ),
        pytest.param("auth.rules = '['", f"instances.prod.auth.rules: {NOT_JSON}", id="rules in broken JSON"),
        pytest.param(
            "include_projects = '[\"a\"'",
            f"instances.prod.include_projects: {NOT_JSON}",
            id="names in broken JSON",
        ),
        pytest.param(
            "include_projects = 5",
            "instances.prod.include_projects: must be a list",
            id="a number in place of names",
        ),
        pytest.param("rbac.namespace = 'Back_stage'", f"instances.prod.rbac.namespace: {NAME}", id="a wrong namespace"),
        pytest.param(f"rbac.secret = '{'x' * 64}'", f"instances.prod.rbac.secret: {NAME}", id="a name too long"),
        pytest.param(
            "rbac.rules = [{ api_groups = [], resources = ['pods'], verbs = ['get'] }]",
            "instances.prod.rbac.rules.0: api_groups, resources and verbs each need at least one entry",
            id="a rule that grants nothing",
        ),
        pytest.param(
            "rbac.adopt = 'maybe'",
            "instances.prod.rbac.adopt: must be 'never', 'matching' or 'always'",
            id="an unknown choice",
        ),
        pytest.param(
            "trust.rules = [{ ca_file = 'x' }]",
            "instances.prod.trust.rules.0: needs at least one of project, cluster, tag; "
            'cluster = "*" matches every cluster',
            id="a CA rule that matches everything",
        ),
        pytest.param(
            "rbac.labels = { 'a..b/x' = 'x' }",
            "instances.prod.rbac.labels: 'a..b/x' is not a valid key: an optional DNS prefix and '/', then at most "
            "63 letters, digits, - _ .",
            id="a label whose prefix is not a DNS name",
        ),
        pytest.param(
            "rbac.labels = { 'has space' = 'x' }",
            "instances.prod.rbac.labels: 'has space' is not a valid key: an optional DNS prefix and '/', then at most "
            "63 letters, digits, - _ .",
            id="a label whose key is not valid",
        ),
        pytest.param(
            "rbac.labels = { team = 'a b' }",
            "instances.prod.rbac.labels: the value of 'team' is not a valid label value: at most 63 letters, digits, "
            "- _ .",
            id="a label whose value is not valid",
        ),
        pytest.param(
            "rbac.labels = { 'app.kubernetes.io/managed-by' = 'us' }",
            "instances.prod.rbac.labels: 'app.kubernetes.io/managed-by' is set by palette-sync itself",
            id="a label of ours",
        ),
        pytest.param(
            "rbac.annotations = { 'palette-sync.io/owner' = 'us' }",
            "instances.prod.rbac.annotations: 'palette-sync.io/owner' is set by palette-sync itself",
            id="an annotation of ours",
        ),
        pytest.param(
            f"rbac.annotations = {{ note = '{'x' * (16 * 1024 + 1)}' }}",
            "instances.prod.rbac.annotations: the value of 'note' is longer than 16384 bytes",
            id="an annotation that is too long",
        ),
        pytest.param(
            "token.validity = '9m59s'",
            "instances.prod.token.validity: is too short: Kubernetes grants no token below 10 minutes; "
            'write at least "10m"',
            id="a token shorter than Kubernetes grants",
        ),
        pytest.param(
            "token.overlap = '30d'",
            "instances.prod.token: overlap must be shorter than rotate_every",
            id="an overlap as long as the rotation",
        ),
        pytest.param("auth = 3", "instances.prod.auth: must be a table", id="a number in place of a table"),
        pytest.param(
            "[redis]\nurl = 'http://redis'",
            "redis.url: must start with one of redis://, rediss://, unix://, redis+sentinel://, rediss+sentinel://, "
            "embedded://",
            id="a store of an unknown kind",
        ),
        pytest.param(
            "[redis]\nprefix = '{a}'",
            "redis.prefix: may contain only letters, digits and . _ -",
            id="a prefix that would break the hash tag",
        ),
        pytest.param(
            "[redis]\nprefix = 'palette-sync:dev'",
            "redis.prefix: may contain only letters, digits and . _ -",
            id="a prefix whose keys the users of another prefix could read",
        ),
        pytest.param(
            "[redis]\nhistory = -1",
            "redis.history: must be greater than or equal to 0",
            id="no negative history",
        ),
        pytest.param(
            "[service]\nconcurrency = 0",
            "service.concurrency: must be greater than or equal to 1",
            id="no concurrency",
        ),
        pytest.param(
            "[service]\ngrace = '30s'",
            "service: grace must be shorter than deadline",
            id="grace as long as the deadline",
        ),
        pytest.param(
            "[network]\nallow = ['10.0.0.1/8']", f"network.allow: {NETWORK}", id="a network with a host in it"
        ),
        pytest.param("[network]\ndeny = 'localhost'", f"network.deny: {NETWORK}", id="a name in place of a network"),
        pytest.param("[network]\ndeny = [7]", f"network.deny: {NETWORK}", id="a number in place of a network"),
        pytest.param(
            "[network]\nallow = ['10.0.0.0/8']\ndeny = '10.0.0.0/8'",
            "network: allow and deny hold the same network; of two networks the smaller one decides",
            id="a network that is allowed and denied",
        ),
        pytest.param(
            "oidc.issuers = ['login.example']",
            'instances.prod.oidc.issuers.0.issuer: is not a glob of issuers; write for example "https://login.example.com/*"',
            id="an issuer without https",
        ),
        pytest.param("[http]\nlisten = 'localhost'", f"http.listen: {LISTEN}", id="an address without port"),
        pytest.param("[http]\nlisten = '::1:80'", f"http.listen: {LISTEN}", id="a bare IPv6 address"),
        pytest.param("[defaults]\nurl = 'x'", f"defaults.url: {HTTPS}", id="a wrong default"),
        pytest.param(
            "defaults = 5",
            "instances.prod.defaults: is unknown; rename or remove it",
            id="misplaced",
        ),
    ],
)
def test_a_wrong_value_is_reported_with_file_key_and_remedy(config: ConfigDirectory, more: str, problem: str) -> None:
    assert config.problems(MINIMAL + more) == [f"FILE: {problem}"]


@pytest.mark.parametrize(
    ("text", "hold"),
    [
        ("'never'", None),
        ("'30m'", timedelta(minutes=30)),
        ("90", timedelta(seconds=90)),
    ],
)
def test_a_hold_is_a_duration_or_never(config: ConfigDirectory, text: str, hold: timedelta | None) -> None:
    assert config.load(f"{MINIMAL}prune_hold = {text}\n").instances["prod"].prune_hold == hold


@pytest.mark.parametrize(
    "url",
    [
        "http://a.example",
        "a.example",
        "https://",
        "https://u:p@a.example",
        "https://a.example/v1",
        "https://a.example?x",
    ],
)
def test_the_url_of_an_instance_is_https_and_a_host_only(config: ConfigDirectory, url: str) -> None:
    text = MINIMAL.replace("https://api.example.com", url)

    assert config.problems(text) == [f"FILE: instances.prod.url: {HTTPS}"]


@pytest.mark.parametrize(
    "url", ["https://a.example", "https://a.example/", "https://127.0.0.1:8443", "https://[::1]:1"]
)
def test_a_trailing_slash_is_removed_from_a_url(config: ConfigDirectory, url: str) -> None:
    assert config.load(MINIMAL.replace("https://api.example.com", url)).instances["prod"].url == url.rstrip("/")


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        ("", "is empty"),
        ("  ", "is empty"),
        ("two words", UNFIT),
        ("schlüssel", UNFIT),
        ("line\\nbreak", UNFIT),
        ("abc", "is shorter than 4 characters, which no API key is"),
    ],
)
def test_the_configuration_and_the_client_accept_the_same_api_keys(
    config: ConfigDirectory, key: str, problem: str
) -> None:
    assert config.problems(MINIMAL.replace('"some-key"', f'"{key}"')) == [f"FILE: instances.prod.api_key: {problem}"]
    with pytest.raises(UnusableSettings, match=f"the API key .*{problem.rpartition(' ')[2]}"):
        PaletteClient("prod", "https://api.example", Secret(key.replace("\\n", "\n").strip()), limits=Limits())


def test_seal_keys_are_one_text_or_a_list_of_lines(config: ConfigDirectory) -> None:
    settings = config.load(INSTANCE + '[seal]\nkeys = ["new AAAA", "old BBBB"]')

    assert settings.seal == SealSettings(keys=SecretStr("new AAAA\nold BBBB"))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("10m", 600),
        ("1h30m", 5400),
        ("30d", 2_592_000),
        ("250ms", 0.25),
        ("1.5h", 5400),
        (" 1h 5s ", 3605),
    ],
)
def test_durations_are_written_with_units_or_as_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(("value", "seconds"), [("90", 90), ("1.5", 1.5), ('"2m"', 120)])
def test_a_number_in_the_file_is_seconds(config: ConfigDirectory, value: str, seconds: float) -> None:
    settings = config.load(f"{MINIMAL}verify_interval = {value}")

    assert settings.instances["prod"].verify_interval == timedelta(seconds=seconds)


@given(st.text(max_size=20) | st.from_regex(r"[0-9.]{1,400}(ms|s|m|h|d)?", fullmatch=True))
def test_any_text_is_a_duration_or_refused_without_quoting_it(text: str) -> None:
    try:
        parse_duration(text)
    except ValueError as error:
        assert str(error) == DURATION  # noqa: PT017 - the text is part of the property


def test_the_shortest_validity_is_accepted(config: ConfigDirectory) -> None:
    settings = config.load(MINIMAL + 'token.validity = "10m"')

    assert settings.instances["prod"].token.validity == SHORTEST_VALIDITY


@pytest.mark.parametrize("cron", ["*/10 * * * *", "0 6 * * mon-fri"])
def test_a_cron_of_five_fields_is_accepted(config: ConfigDirectory, cron: str) -> None:
    assert config.load(f'{MINIMAL}refresh_cron = "{cron}"').instances["prod"].refresh_cron == cron


@pytest.mark.parametrize("listen", ["", "127.0.0.1:9464", "[::1]:80", "localhost:0"])
def test_an_address_to_listen_on_is_accepted(config: ConfigDirectory, listen: str) -> None:
    assert config.load(f'{MINIMAL}[http]\nlisten = "{listen}"').http.listen == listen


def test_a_single_string_is_a_list_of_one(config: ConfigDirectory) -> None:
    assert config.load(MINIMAL + "include_tags = 'env:prod'").instances["prod"].include_tags == ("env:prod",)


def test_settings_are_frozen(config: ConfigDirectory) -> None:
    settings = config.load(MINIMAL)

    with pytest.raises(ValidationError):
        settings.redis.prefix = "other"


@pytest.mark.parametrize("given", ["['10.0.0.0/8', 'fd00::1']", '\'["10.0.0.0/8", "fd00::1"]\''], ids=["list", "JSON"])
def test_networks_are_read_with_and_without_a_length(config: ConfigDirectory, given: str) -> None:
    settings = config.load(MINIMAL + f"[network]\nallow = {given}\n")

    assert [str(one) for one in settings.network.allow] == ["10.0.0.0/8", "fd00::1/128"]


def test_issuers_are_globs_or_tables_and_one_alone_needs_no_list(config: ConfigDirectory) -> None:
    one = config.load(MINIMAL + "oidc.issuers = 'https://a.example/*'\n")
    two = config.load(
        MINIMAL + "oidc.issuers = ['https://a.example/*', { issuer = 'https://b.example', clients = ['c'] }]\n"
    )

    assert [(rule.issuer, rule.clients) for rule in one.instances["prod"].oidc.issuers] == [
        ("https://a.example/*", ("*",))
    ]
    assert two.instances["prod"].oidc.issuers[1].clients == ("c",)


@pytest.mark.parametrize(
    "token", ["short", "x" * 19, "x" * 513, "with a space in the middle", "nine-\u00e9-teen-more-or-less", ""]
)
def test_a_token_of_the_page_that_could_be_guessed_or_sent_wrongly_is_refused(token: str) -> None:
    with pytest.raises(ValidationError) as error:
        HttpSettings.model_validate({"token": token})
    assert "must have 20 to 512 characters" in str(error.value)
    assert not token or token not in str(error.value)


def test_a_token_of_the_page_is_kept_secret() -> None:
    settings = HttpSettings.model_validate({"token": "canary-token-of-the-page"})
    assert "canary" not in repr(settings)
    assert settings.token == SecretStr("canary-token-of-the-page")

"""The configuration: layers, inheritance, everything wrong told at once, and never a value in an error."""

from __future__ import annotations

import re
import tomllib
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr, ValidationError

from palette_sync.config import ConfigError, Settings, load
from palette_sync.config.settings import (
    SHORTEST_VALIDITY,
    AuthSettings,
    DefaultsSettings,
    HttpSettings,
    InstanceSettings,
    OidcSettings,
    RbacSettings,
    RedisSettings,
    SealSettings,
    ServiceSettings,
    TokenSettings,
    parse_duration,
)

if TYPE_CHECKING:
    from collections.abc import Callable

EXAMPLE = Path(__file__).parents[2] / "config.example.toml"
CANARY = "canary-4711-hush"
INSTANCE = '[instances.prod]\nurl = "https://api.example.com"\napi_key = "key"\n'
MINIMAL = 'seal = "none"\n' + INSTANCE


class Place:
    """A directory with a configuration file in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.file = directory / "config.toml"

    def write(self, name: str, content: str | bytes) -> Path:
        path = self.directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def load(self, text: str, **environ: str) -> Settings:
        self.file.write_text(text)
        return load(self.file, environ=environ)

    def problems(self, text: str, **environ: str) -> list[str]:
        """What is wrong, with the path of the file written as FILE."""
        with pytest.raises(ConfigError) as caught:
            self.load(text, **environ)
        assert str(caught.value) == "; ".join(caught.value.problems)
        return [problem.replace(str(self.file), "FILE") for problem in caught.value.problems]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def key_of(settings: Settings, instance: str = "prod") -> str:
    return settings.instances[instance].api_key.get_secret_value()


# ---- The example -----------------------------------------------------------------------------------------------------

# Where each table of the file leads; [defaults.*] documents what an instance's tables may say too.
TABLES: dict[str, type[BaseModel]] = {
    "defaults": DefaultsSettings,
    "defaults.auth": AuthSettings,
    "defaults.oidc": OidcSettings,
    "defaults.rbac": RbacSettings,
    "defaults.token": TokenSettings,
    "instances.prod": InstanceSettings,
    "redis": RedisSettings,
    "seal": SealSettings,
    "service": ServiceSettings,
    "http": HttpSettings,
}
SUBTABLES = {"auth", "oidc", "rbac", "token"}
FILE_KEYS = {("instances.prod", "api_key_file"), ("redis", "url_file"), ("seal", "keys_file")}
# What no default can be written for: an instance's own, and the seal keys.
REQUIRED = {("instances.prod", "url"), ("instances.prod", "api_key"), ("seal", "keys")}
# Documented where they are required, in [instances.prod].
ELSEWHERE = {("defaults", "url"), ("defaults", "api_key")}


def documented() -> dict[tuple[str, str], tuple[bool, str]]:
    """Every (table, key) of the example → whether it is active, and what is written as its value.

    Where a key stands active and commented out, the comment is an example and the active one counts.
    """
    found: dict[tuple[str, str], tuple[bool, str]] = {}
    table = ""
    for line in EXAMPLE.read_text().splitlines():
        if header := re.fullmatch(r"\[([a-z.]+)\]", line):
            table = header[1]
        elif entry := re.match(r"(# )?([a-z_]+) = (.+)", line):
            active = entry[1] is None
            if active or (table, entry[2]) not in found:
                found[table, entry[2]] = (active, entry[3])
    return found


def inherited_by_instance(table: str, key: str) -> bool:
    return table == "instances.prod" and key in DefaultsSettings.model_fields and (table, key) not in REQUIRED


def test_the_example_loads_as_it_stands() -> None:
    settings = load(EXAMPLE, environ={})

    assert list(settings.instances) == ["prod"]


def test_every_key_stands_in_the_example_and_none_that_is_unknown() -> None:
    wanted = {
        (table, key)
        for table, model in TABLES.items()
        for key in model.model_fields
        if key not in SUBTABLES and not inherited_by_instance(table, key)
    }

    assert documented().keys() == (wanted - ELSEWHERE) | FILE_KEYS


def test_every_table_of_the_configuration_is_covered_here() -> None:
    tables = {key for key in Settings.model_fields if key != "instances"} | {"instances.prod"}

    assert {name for name in TABLES if not name.startswith("defaults.")} == tables
    assert {
        name
        for name, field in DefaultsSettings.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    } == SUBTABLES


@pytest.mark.parametrize(
    ("table", "key"),
    [
        pytest.param(table, key, id=f"{table}.{key}")
        for (table, key), (active, _) in documented().items()
        if active and (table, key) not in REQUIRED
    ],
)
def test_a_default_that_is_written_is_the_real_default(table: str, key: str) -> None:
    written = tomllib.loads(EXAMPLE.read_text())
    for part in table.split("."):
        written = written[part]
    model = TABLES[table]

    real = getattr(model(), key)

    assert getattr(model.model_validate({key: written[key]}), key) == real


@pytest.mark.parametrize(
    ("table", "key"),
    [pytest.param(table, key, id=f"{table}.{key}") for (table, key), (active, _) in documented().items() if not active],
)
def test_a_key_that_is_commented_out_has_no_default_and_a_good_example(table: str, key: str, tmp_path: Path) -> None:
    model, copy = TABLES[table], tmp_path / "config.toml"
    if (table, key) in FILE_KEYS:
        secret = {"api_key_file": "key", "url_file": "redis://127.0.0.1", "keys_file": "k A"}[key]
        (tmp_path / "secret").write_text(secret)
        text = re.sub(
            rf"(?m)^{key.removesuffix('_file')} = .*$", "", EXAMPLE.read_text().partition(f"[{table}]")[2], count=1
        )
        text = EXAMPLE.read_text().partition(f"[{table}]")[0] + f"[{table}]" + text
        text = re.sub(rf'(?m)^# {key} = "[^"]*"', f'{key} = "secret"', text)
    else:
        assert model.model_fields[key].default is None
        before, _, after = EXAMPLE.read_text().partition(f"[{table}]")
        text = before + f"[{table}]" + re.sub(rf"(?m)^# {key} = ", f"{key} = ", after, count=1)
    copy.write_text(text)

    load(copy, environ={})

    assert text != EXAMPLE.read_text()


def test_the_rules_that_are_commented_out_are_good_examples(place: Place) -> None:
    text = re.sub(r"(?m)^rules = \[\]$", "", EXAMPLE.read_text())
    text = re.sub(r"(?m)^# (rules = \[.*|  \{.*|\])$", r"\1", text)

    settings = place.load(text).instances["prod"]

    assert [rule.mode for rule in settings.auth.rules] == ["service-account", "oidc", "auto"]
    assert settings.rbac.rules[0].api_groups == ("core", "apps")


# ---- Layers ----------------------------------------------------------------------------------------------------------


def test_a_minimal_file_has_every_default(place: Place) -> None:
    settings = place.load(MINIMAL)

    assert settings.defaults == DefaultsSettings()
    assert settings.redis.prefix == "palette-sync"
    assert settings.instances["prod"].token.validity == timedelta(hours=24)


def test_secret_files_win_over_the_file_and_variables_over_both(place: Place) -> None:
    place.write("secrets/instances__prod__api_key", "from-directory\n")
    directory = str(place.directory / "secrets")

    assert key_of(place.load(MINIMAL)) == "key"
    assert key_of(place.load(MINIMAL, PALETTE_SYNC_SECRETS_DIR=directory)) == "from-directory"
    assert (
        key_of(
            place.load(MINIMAL, PALETTE_SYNC_SECRETS_DIR=directory, PALETTE_SYNC_INSTANCES__PROD__API_KEY="variable")
        )
        == "variable"
    )


def test_a_key_may_come_from_a_file_of_its_own(place: Place) -> None:
    place.write("api.key", "from-file\n")
    place.write("redis.url", "rediss://:password@redis:6380/1\n")
    place.write("seal.keys", "one AAAA\n")
    text = INSTANCE.replace('api_key = "key"', 'api_key_file = "api.key"')

    settings = place.load(text + '[redis]\nurl_file = "redis.url"\n[seal]\nkeys_file = "seal.keys"\n')

    assert key_of(settings) == "from-file"
    assert settings.redis.url.get_secret_value() == "rediss://:password@redis:6380/1"
    assert settings.seal != "none"
    assert settings.seal.keys == SecretStr("one AAAA")


@pytest.mark.parametrize(
    ("variable", "content", "key"),
    [
        pytest.param(
            "PALETTE_SYNC_INSTANCES__PROD__API_KEY_FILE", "from-file", "from-file", id="a file key replaces a key"
        ),
        pytest.param("PALETTE_SYNC_INSTANCES__PROD__API_KEY", "", "key", id="an empty variable says nothing"),
    ],
)
def test_a_later_layer_replaces_a_key_by_its_file(place: Place, variable: str, content: str, key: str) -> None:
    path = place.write("elsewhere.key", content)

    assert key_of(place.load(MINIMAL, **{variable: str(path) if content else ""})) == key


def test_a_later_layer_replaces_a_file_by_its_key(place: Place) -> None:
    text = MINIMAL.replace('api_key = "key"', 'api_key_file = "there-is-none"')

    assert key_of(place.load(text, PALETTE_SYNC_INSTANCES__PROD__API_KEY="variable")) == "variable"


def test_systemd_credentials_are_read_and_our_own_directory_wins(place: Place) -> None:
    place.write("systemd/instances__prod__api_key", "systemd")
    place.write("systemd/redis__prefix", "systemd")
    place.write("ours/instances__prod__api_key", "ours")
    directories = {
        "CREDENTIALS_DIRECTORY": str(place.directory / "systemd"),
        "PALETTE_SYNC_SECRETS_DIR": str(place.directory / "ours"),
    }

    settings = place.load(MINIMAL, **directories)

    assert (key_of(settings), settings.redis.prefix) == ("ours", "systemd")


def test_files_of_others_in_a_secrets_directory_are_left_alone(place: Place) -> None:
    place.write("secrets/tls.key", "x")
    place.write("secrets/redis", "x")
    place.write("secrets/INSTANCES__PROD__API_KEY", "upper")
    (place.directory / "secrets" / "redis__data").mkdir()

    assert key_of(place.load(MINIMAL, PALETTE_SYNC_SECRETS_DIR=str(place.directory / "secrets"))) == "upper"


def test_variables_carry_lists_and_tables_as_json_and_words_as_they_are(place: Place) -> None:
    settings = place.load(
        MINIMAL,
        PALETTE_SYNC_INSTANCES__PROD__INCLUDE_PROJECTS='["team-a", "team-b"]',
        PALETTE_SYNC_DEFAULTS__AUTH__RULES='[{"mode": "oidc", "tag": "auth:oidc"}]',
        PALETTE_SYNC_SERVICE='{"concurrency": 5}',
        PALETTE_SYNC_SERVICE__GRACE="5s",
        PALETTE_SYNC_SEAL__KEYS="one AAAA",
        UNRELATED="x",
        PALETTE_SYNC_CONFIG="read by the command line",
    )

    assert settings.instances["prod"].include_projects == ("team-a", "team-b")
    assert settings.instances["prod"].auth.rules[0].mode == "oidc"
    assert (settings.service.concurrency, settings.service.grace) == (5, timedelta(seconds=5))
    assert settings.seal == SealSettings(keys=SecretStr("one AAAA"))


def test_an_instance_may_come_from_variables_alone(place: Place) -> None:
    settings = place.load(
        MINIMAL,
        PALETTE_SYNC_INSTANCES__EDGE_EU__URL="https://edge.example.com",
        PALETTE_SYNC_INSTANCES__EDGE_EU__API_KEY="edge",
    )

    assert list(settings.instances) == ["prod", "edge_eu"]
    assert key_of(settings, "edge_eu") == "edge"


def test_without_an_environment_the_process_gives_it(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.file.write_text(MINIMAL)
    for name in ("PALETTE_SYNC_SHARED", "PALETTE_SYNC_REDIS__PREFIX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PALETTE_SYNC_REDIS__PREFIX", "mine")

    assert load(place.file).redis.prefix == "mine"


# ---- Inheritance -----------------------------------------------------------------------------------------------------


def test_every_instance_inherits_the_defaults_key_by_key(place: Place) -> None:
    settings = place.load(
        'seal = "none"\n'
        '[defaults]\ntitle = "Ours"\nurl = "https://api.example.com"\nrefresh_interval = "5m"\n'
        '[defaults.rbac]\nnamespace = "portal"\npreset = "view"\n'
        '[instances.a]\napi_key = "a"\n'
        '[instances.b]\napi_key = "b"\ntitle = "B"\nurl = "https://b.example.com"\n'
        '[instances.b.rbac]\npreset = "read-only"\n'
    )
    a, b = settings.instances["a"], settings.instances["b"]

    assert (a.title, a.url, a.refresh_interval) == ("Ours", "https://api.example.com", timedelta(minutes=5))
    assert (a.rbac.namespace, a.rbac.preset) == ("portal", "view")
    assert (b.title, b.url, b.refresh_interval) == ("B", "https://b.example.com", timedelta(minutes=5))
    assert (b.rbac.namespace, b.rbac.preset) == ("portal", "read-only")


def test_a_variable_may_change_the_defaults_but_not_what_an_instance_says_itself(place: Place) -> None:
    text = MINIMAL + 'title = "Mine"\n[defaults]\nverify_interval = "2h"\n'

    settings = place.load(text, PALETTE_SYNC_DEFAULTS__VERIFY_INTERVAL="3h", PALETTE_SYNC_DEFAULTS__TITLE="Default")

    assert settings.instances["prod"].verify_interval == timedelta(hours=3)
    assert settings.instances["prod"].title == "Mine"


def test_an_api_key_file_is_inherited_and_an_instances_own_key_replaces_it(place: Place) -> None:
    place.write("shared.key", "shared")
    text = (
        'seal = "none"\n[defaults]\napi_key_file = "shared.key"\n'
        '[instances.a]\nurl = "https://a.example.com"\n[instances.b]\nurl = "https://b.example.com"\napi_key = "own"\n'
    )

    settings = place.load(text)

    assert (key_of(settings, "a"), key_of(settings, "b")) == ("shared", "own")


# ---- Paths -----------------------------------------------------------------------------------------------------------


def test_relative_paths_are_relative_to_the_file_wherever_the_daemon_starts(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    monkeypatch.setenv("HOME", "/home/somebody")
    place.write("api.key", "k")
    text = (
        'seal = "none"\n[instances.prod]\nurl = "https://api.example.com"\n'
        'api_key_file = "api.key"\nca_file = "tls/ca.pem"\n'
        '[redis]\nca_file = "/etc/redis-ca.pem"\nkey_file = "~/redis.key"\n'
    )

    settings = place.load(text)

    assert key_of(settings) == "k"
    assert settings.instances["prod"].ca_file == place.directory / "tls/ca.pem"
    assert settings.redis.ca_file == Path("/etc/redis-ca.pem")
    assert settings.redis.key_file == Path("/home/somebody/redis.key")


# ---- What is refused -------------------------------------------------------------------------------------------------

HTTPS = 'must be "https://" and a host (and port), without path, user or query'
NAME = "is no Kubernetes name: lower-case letters, digits and '-', at most 63"
DURATION = 'is no duration; write for example "90s", "10m" or "1h"'
KEY = "is empty or holds characters that no HTTP header can carry"
PROXY = 'must be "http://", a host and a port, without path or query'
LISTEN = 'must be "host:port", or "" to serve nothing'
NO_SEAL = (
    "FILE: seal: no key to seal tokens with; create one by `palette-sync seal-key > seal.keys` and set "
    '[seal] keys_file, or write seal = "none" to store tokens in the clear'
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
            "refresh_interval = true", f"instances.prod.refresh_interval: {DURATION}", id="a truth as duration"
        ),
        pytest.param(
            "refresh_interval = inf", f"instances.prod.refresh_interval: {DURATION}", id="an endless duration"
        ),
        pytest.param("refresh_interval = nan", f"instances.prod.refresh_interval: {DURATION}", id="no number"),
        pytest.param("refresh_interval = '10²'", f"instances.prod.refresh_interval: {DURATION}", id="odd digits"),
        pytest.param(
            f"refresh_interval = '{'9' * 5000}d'", f"instances.prod.refresh_interval: {DURATION}", id="longer than time"
        ),
        pytest.param(
            "refresh_interval = 0", "instances.prod.refresh_interval: must be longer than nothing", id="no pause at all"
        ),
        pytest.param(
            "refresh_cron = '61 * * * *'",
            'instances.prod.refresh_cron: is no cron expression of five fields; write for example "*/10 * * * *"',
            id="a cron of impossible minutes",
        ),
        pytest.param(
            "auth.mode = 'odic'",
            "instances.prod.auth.mode: is none of the allowed words ('service-account', 'oidc' or 'auto')",
            id="an unknown mode",
        ),
        pytest.param(
            "auth.rules = [{ mode = 'oidc' }]",
            "instances.prod.auth.rules.0: needs at least one of project, cluster, tag; "
            "use auth.mode for all other clusters",
            id="a rule that matches everything",
        ),
        pytest.param(
            "auth.rules = '['", "instances.prod.auth.rules: is not valid JSON", id="rules as text that is no JSON"
        ),
        pytest.param(
            "include_projects = '[\"a\"'",
            "instances.prod.include_projects: is not valid JSON",
            id="names as broken JSON",
        ),
        pytest.param(
            "include_projects = 5",
            "instances.prod.include_projects: must be a list",
            id="a number where names are meant",
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
            "instances.prod.rbac.adopt: is none of the allowed words ('never', 'matching' or 'always')",
            id="an unknown word of adoption",
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
        pytest.param("auth = 3", "instances.prod.auth: must be a table", id="a number where a table is meant"),
        pytest.param(
            "[redis]\nurl = 'http://redis'",
            "redis.url: must start with one of redis://, rediss://, unix://, redis+sentinel://, rediss+sentinel://, "
            "embedded://",
            id="a store of an unknown kind",
        ),
        pytest.param(
            "[redis]\nprefix = '{a}'",
            "redis.prefix: may hold letters, digits and . _ : - only",
            id="a prefix that would break the hash tag",
        ),
        pytest.param(
            "[redis]\nhistory = -1",
            "redis.history: input should be greater than or equal to 0",
            id="no negative history",
        ),
        pytest.param(
            "[service]\nconcurrency = 0",
            "service.concurrency: input should be greater than or equal to 1",
            id="nothing at once",
        ),
        pytest.param(
            "[service]\ngrace = '30s'",
            "service: grace must be shorter than deadline",
            id="grace as long as the deadline",
        ),
        pytest.param("[http]\nlisten = 'localhost'", f"http.listen: {LISTEN}", id="an address without port"),
        pytest.param("[http]\nlisten = '::1:80'", f"http.listen: {LISTEN}", id="a bare IPv6 address"),
        pytest.param("[defaults]\nurl = 'x'", f"defaults.url: {HTTPS}", id="a wrong default"),
        pytest.param(
            "defaults = 5", "instances.prod.defaults: is unknown; remove it from instances.prod", id="misplaced"
        ),
    ],
)
def test_a_wrong_value_is_told_with_file_key_and_remedy(place: Place, more: str, problem: str) -> None:
    assert place.problems(MINIMAL + more) == [f"FILE: {problem}"]


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
def test_an_instance_is_reached_by_https_and_a_host_alone(place: Place, url: str) -> None:
    text = MINIMAL.replace("https://api.example.com", url)

    assert place.problems(text) == [f"FILE: instances.prod.url: {HTTPS}"]


@pytest.mark.parametrize(
    "url", ["https://a.example", "https://a.example/", "https://127.0.0.1:8443", "https://[::1]:1"]
)
def test_an_address_loses_its_last_slash(place: Place, url: str) -> None:
    assert place.load(MINIMAL.replace("https://api.example.com", url)).instances["prod"].url == url.rstrip("/")


@pytest.mark.parametrize("key", ["", "  ", "two words", "schlüssel", "line\\nbreak"])
def test_an_api_key_must_fit_into_a_header(place: Place, key: str) -> None:
    assert place.problems(MINIMAL.replace('"key"', f'"{key}"')) == [f"FILE: instances.prod.api_key: {KEY}"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param(
            "",
            "instances: needs at least one instance: add a table [instances.<name>] with url and api_key_file",
            id="an empty file",
        ),
        pytest.param(
            'seal = "none"\n[instances]',
            "instances: needs at least one instance: add a table [instances.<name>] with url and api_key_file",
            id="no instance",
        ),
        pytest.param(
            'seal = "none"\n[[instances]]\nurl = "x"', "instances: must be a table", id="an array of instances"
        ),
        pytest.param(
            MINIMAL.replace("prod", '"Prod-EU"'),
            "instances: 'Prod-EU': an instance name is [a-z][a-z0-9_]*, because variables name it too: "
            "PALETTE_SYNC_INSTANCES__<NAME>__...",
            id="a name that no variable can carry",
        ),
        pytest.param(
            MINIMAL.replace('api_key = "key"', ""),
            "instances.prod.api_key: is missing; set it (or api_key_file, or instances__prod__api_key in "
            "PALETTE_SYNC_SECRETS_DIR)",
            id="no api key",
        ),
        pytest.param(
            MINIMAL + INSTANCE.replace("prod", "twin"),
            "instances: 'prod' and 'twin' have the same url and API key; each cluster would show twice",
            id="one instance twice",
        ),
        pytest.param(INSTANCE, NO_SEAL.removeprefix("FILE: seal: "), id="no seal"),
        pytest.param(
            'seal = "nonsense"\n' + INSTANCE, "seal: is none of the allowed words ('none')", id="a word as seal"
        ),
        pytest.param("seal = 5\n" + INSTANCE, "seal: must be a table", id="a number as seal"),
        pytest.param(INSTANCE + "[seal]\nkeys = 5", "seal.keys: input should be a valid string", id="a number as key"),
    ],
)
def test_what_is_missing_or_twice_is_told(place: Place, text: str, problem: str) -> None:
    (told,) = place.problems(text)

    assert told.endswith(problem)
    assert told.startswith("FILE: ")


@pytest.mark.parametrize("keys", ['""', '" \\n "', "[]"], ids=["an empty text", "blank lines", "an empty list"])
def test_a_seal_without_a_key_is_none(place: Place, keys: str) -> None:
    assert place.problems(f"{INSTANCE}[seal]\nkeys = {keys}") == [NO_SEAL]


def test_seal_keys_are_one_text_or_a_list_of_lines(place: Place) -> None:
    settings = place.load(INSTANCE + '[seal]\nkeys = ["new AAAA", "old BBBB"]')

    assert settings.seal == SealSettings(keys=SecretStr("new AAAA\nold BBBB"))


@pytest.mark.parametrize(
    ("more", "key", "guess", "table"),
    [
        pytest.param(
            "refresh_intervall = '5m'", "instances.prod.refresh_intervall", "refresh_interval", None, id="instance"
        ),
        pytest.param("api_key_fil = 'x'", "instances.prod.api_key_fil", "api_key_file", None, id="a file key"),
        pytest.param("rbac.namespaces = 'x'", "instances.prod.rbac.namespaces", "namespace", None, id="a nested table"),
        pytest.param(
            "auth.rules = [{ mode = 'oidc', tag = 'x', clusters = 'y' }]",
            "instances.prod.auth.rules.0.clusters",
            "cluster",
            None,
            id="a rule of authentication",
        ),
        pytest.param(
            "rbac.rules = [{ api_groups = ['x'], resources = ['x'], verbs = ['x'], verb = ['x'] }]",
            "instances.prod.rbac.rules.0.verb",
            "verbs",
            None,
            id="a rule of rights",
        ),
        pytest.param("[redis]\nurl_fiel = 'x'", "redis.url_fiel", "url_file", None, id="a section"),
        pytest.param("[defaults.token]\nvalidty = '1h'", "defaults.token.validty", "validity", None, id="the defaults"),
        pytest.param("[servcie]\ngrace = '1s'", "servcie", "service", "the top level", id="the top level"),
        pytest.param("[http]\nxyzzy = 1", "http.xyzzy", None, None, id="nothing like any key"),
    ],
)
def test_an_unknown_key_is_refused_with_a_guess(
    place: Place, more: str, key: str, guess: str | None, table: str | None
) -> None:
    meant = f"; did you mean {guess!r}?" if guess else ""

    assert place.problems(MINIMAL + more) == [
        f"FILE: {key}: is unknown{meant}; remove it from {table or key.rpartition('.')[0]}"
    ]


def test_an_unknown_key_of_the_seal_is_refused_with_a_guess(place: Place) -> None:
    problems = place.problems(INSTANCE + "[seal]\nkeyfile = 'x'")

    assert problems == ["FILE: seal.keyfile: is unknown; did you mean 'keys_file'?; remove it from seal"]


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        pytest.param(
            "PALETTE_SYNC_REDISS__URL",
            "x",
            "variable PALETTE_SYNC_REDISS__URL: is unknown; did you mean 'redis'?; unset it or correct its name",
            id="an unknown section",
        ),
        pytest.param(
            "PALETTE_SYNC_LOG_LEVEL",
            "",
            "variable PALETTE_SYNC_LOG_LEVEL: is unknown; unset it or correct its name",
            id="an unknown variable though it is empty",
        ),
        pytest.param(
            "PALETTE_SYNC_SERVICE__CONCURENCY",
            "5",
            "variable PALETTE_SYNC_SERVICE__CONCURENCY: service.concurency: is unknown; did you mean 'concurrency'?; "
            "remove it from service",
            id="an unknown key in a section",
        ),
        pytest.param(
            "PALETTE_SYNC_REDIS",
            "{bad",
            "variable PALETTE_SYNC_REDIS: is not valid JSON, as a list or table must be here",
            id="a section that is no JSON",
        ),
        pytest.param(
            "PALETTE_SYNC_SERVICE__GRACE",
            "soon",
            f"variable PALETTE_SYNC_SERVICE__GRACE: service.grace: {DURATION}",
            id="a wrong value",
        ),
        pytest.param(
            "PALETTE_SYNC_DEFAULTS__AUTH__RULES",
            '[{"mode": "oidc", "tags": "x"}]',
            "variable PALETTE_SYNC_DEFAULTS__AUTH__RULES: defaults.auth.rules.0.tags: is unknown; "
            "did you mean 'tag'?; remove it from defaults.auth.rules.0",
            id="an unknown key inside a list",
        ),
        pytest.param(
            "PALETTE_SYNC_REDIS__URL_FILE",
            "/there/is/none",
            "variable PALETTE_SYNC_REDIS__URL_FILE: redis.url_file: the file cannot be read: No such file or directory",
            id="a file that is not there",
        ),
        pytest.param(
            "CREDENTIALS_DIRECTORY",
            "/there/is/none",
            "variable CREDENTIALS_DIRECTORY: names no directory that can be read",
            id="a directory that is not there",
        ),
        pytest.param(
            "PALETTE_SYNC_SECRETS_DIR",
            "a\0b",
            "variable PALETTE_SYNC_SECRETS_DIR: names no directory that can be read",
            id="a directory that cannot be",
        ),
    ],
)
def test_a_wrong_variable_is_told_by_its_name(place: Place, name: str, value: str, problem: str) -> None:
    assert place.problems(MINIMAL, **{name: value}) == [problem]


def test_a_wrong_secret_is_told_by_the_name_of_its_file(place: Place) -> None:
    place.write("secrets/redis__urll", "x")
    place.write("secrets/service__grace", "x")
    place.write("secrets/redis__prefix", b"\xff")

    assert sorted(place.problems(MINIMAL, PALETTE_SYNC_SECRETS_DIR=str(place.directory / "secrets"))) == [
        "secret redis__prefix: the file is not UTF-8 text",
        "secret redis__urll: redis.urll: is unknown; did you mean 'url'?; remove it from redis",
        f"secret service__grace: service.grace: {DURATION}",
    ]


@pytest.mark.parametrize(
    ("given_value", "problem"),
    [
        pytest.param("'there-is-none'", "the file cannot be read: No such file or directory", id="not there"),
        pytest.param("'.'", "the file cannot be read: Is a directory", id="a directory"),
        pytest.param("'binary'", "the file is not UTF-8 text", id="no text"),
        pytest.param("'large'", "the file is larger than 64 KiB, which no key is", id="too large"),
        pytest.param("'/dev/zero'", "the file is larger than 64 KiB, which no key is", id="without end"),
        pytest.param("5", "must be a path", id="a number"),
        pytest.param('"a\\u0000b"', "must be a path", id="a path that cannot be"),
    ],
)
def test_a_secret_file_that_cannot_be_used_is_told_once(place: Place, given_value: str, problem: str) -> None:
    place.write("binary", b"\xff\xfe")
    place.write("large", "x" * (64 * 1024 + 1))
    text = MINIMAL.replace('api_key = "key"', f"api_key_file = {given_value}")

    assert place.problems(text) == [f"FILE: instances.prod.api_key_file: {problem}"]


@pytest.mark.parametrize(
    ("text", "environ", "problem"),
    [
        pytest.param(
            INSTANCE + '[seal]\nkeys_file = "there-is-none"',
            {},
            "FILE: seal.keys_file: the file cannot be read: No such file or directory",
            id="the seal keys",
        ),
        pytest.param(
            'seal = "none"\n[defaults]\napi_key_file = "there-is-none"\n[instances.a]\nurl = "https://a.example"',
            {},
            "FILE: defaults.api_key_file: the file cannot be read: No such file or directory",
            id="an inherited key",
        ),
        pytest.param(
            'seal = "none"',
            {"PALETTE_SYNC_INSTANCES__PROD__INCLUDE_TAGS": "[", "PALETTE_SYNC_INSTANCES": "{"},
            "variable PALETTE_SYNC_INSTANCES: is not valid JSON, as a list or table must be here; "
            "variable PALETTE_SYNC_INSTANCES__PROD__INCLUDE_TAGS: is not valid JSON, as a list or table must be here",
            id="a whole table",
        ),
        pytest.param(
            INSTANCE.replace('api_key = "key"', ""),
            {"CREDENTIALS_DIRECTORY": "/there/is/none"},
            "variable CREDENTIALS_DIRECTORY: names no directory that can be read",
            id="a directory that may hold anything",
        ),
    ],
)
def test_what_could_not_be_read_is_not_called_missing_too(
    place: Place, text: str, environ: dict[str, str], problem: str
) -> None:
    assert "; ".join(place.problems(text, **environ)) == problem


def test_a_home_of_nobody_is_told(place: Place) -> None:
    assert place.problems(MINIMAL + 'ca_file = "~nobody-of-this-name/ca.pem"') == [
        "FILE: instances.prod.ca_file: begins with the home of a user who is unknown"
    ]


def test_a_key_beside_its_file_in_one_layer_is_refused(place: Place) -> None:
    assert place.problems(MINIMAL + 'api_key_file = "x"') == [
        "FILE: instances.prod.api_key_file: stands beside api_key; keep one of the two"
    ]
    assert place.problems(MINIMAL, PALETTE_SYNC_REDIS__URL="redis://x", PALETTE_SYNC_REDIS__URL_FILE="x") == [
        "variable PALETTE_SYNC_REDIS__URL_FILE: redis.url_file: stands beside url; keep one of the two"
    ]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        pytest.param(b"\xff\xfe", "is not UTF-8 text", id="no text"),
        pytest.param(b"a = 1\na = 2\n", "is not valid TOML: ", id="no TOML"),
    ],
)
def test_a_file_that_cannot_be_read_is_told(place: Place, content: bytes, problem: str) -> None:
    place.file.write_bytes(content)

    with pytest.raises(ConfigError) as caught:
        load(place.file, environ={})

    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].startswith(f"{place.file}: {problem}")


def test_a_missing_file_is_an_error_and_not_a_set_of_defaults(place: Place) -> None:
    with pytest.raises(ConfigError, match=r"there is no such file; copy config\.example\.toml there"):
        load(place.file, environ={})


def test_a_directory_is_no_configuration(place: Place) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(place.directory, environ={})


def test_everything_that_is_wrong_is_told_at_once_and_each_thing_once(place: Place) -> None:
    text = (
        '[defaults]\nrefresh_interval = "soon"\nverify_intervall = "1h"\n'
        '[instances.a]\nurl = "http://a"\napi_key_file = "there-is-none"\n'
        '[instances.b]\napi_key = "b"\nrefresh_interval = "never"\n'
        '[service]\ngrace = "60s"\n'
    )

    problems = place.problems(text, PALETTE_SYNC_X="1", PALETTE_SYNC_REDIS__HISTORY="-1")

    assert problems == [
        "variable PALETTE_SYNC_X: is unknown; unset it or correct its name",
        "FILE: instances.a.api_key_file: the file cannot be read: No such file or directory",
        f"FILE: instances.a.url: {HTTPS}",
        f"FILE: instances.b.refresh_interval: {DURATION}",
        "FILE: instances.b.url: is missing; set it",
        "variable PALETTE_SYNC_REDIS__HISTORY: redis.history: input should be greater than or equal to 0",
        "FILE: service: grace must be shorter than deadline",
        f"FILE: defaults.refresh_interval: {DURATION}",
        "FILE: defaults.verify_intervall: is unknown; did you mean 'verify_interval'?; remove it from defaults",
    ]


# ---- Durations -------------------------------------------------------------------------------------------------------


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
def test_a_number_in_the_file_is_seconds(place: Place, value: str, seconds: float) -> None:
    settings = place.load(f"{MINIMAL}verify_interval = {value}")

    assert settings.instances["prod"].verify_interval == timedelta(seconds=seconds)


@given(st.text(max_size=20) | st.from_regex(r"[0-9.]{1,400}(ms|s|m|h|d)?", fullmatch=True))
def test_any_text_is_a_duration_or_refused_without_being_quoted(text: str) -> None:
    try:
        parse_duration(text)
    except ValueError as error:
        assert str(error) == DURATION  # noqa: PT017 - that it may not raise is part of the law


def test_the_shortest_validity_is_accepted(place: Place) -> None:
    settings = place.load(MINIMAL + 'token.validity = "10m"')

    assert settings.instances["prod"].token.validity == SHORTEST_VALIDITY


@pytest.mark.parametrize("cron", ["*/10 * * * *", "0 6 * * mon-fri"])
def test_a_cron_of_five_fields_is_accepted(place: Place, cron: str) -> None:
    assert place.load(f'{MINIMAL}refresh_cron = "{cron}"').instances["prod"].refresh_cron == cron


@pytest.mark.parametrize("listen", ["", "127.0.0.1:9464", "[::1]:80", "localhost:0"])
def test_an_address_to_listen_on_is_accepted(place: Place, listen: str) -> None:
    assert place.load(f'{MINIMAL}[http]\nlisten = "{listen}"').http.listen == listen


def test_one_word_stands_for_a_list_of_one(place: Place) -> None:
    assert place.load(MINIMAL + "include_tags = 'env:prod'").instances["prod"].include_tags == ("env:prod",)


# ---- No value is ever shown ------------------------------------------------------------------------------------------


def shapes_of(value: str) -> list[str]:
    """A value as TOML, in every type that it can be given."""
    return [f'"{value}"', f'["{value}"]', f'{{ inner = "{value}" }}', f'[{{ inner = "{value}" }}]']


EVERY_KEY = [
    *(f"{table}.{key}" for table, model in TABLES.items() for key in model.model_fields),
    *(f"{table}.{key}" for table, key in sorted(FILE_KEYS)),
    *(name for name in Settings.model_fields),
    "defaults.api_key_file",
    "instances.prod.auth.rules",
    "instances.prod.rbac.namespace",
]


def shown_by(error: BaseException) -> str:
    """All that a log, a traceback or a person could see of an error."""
    told = [str(error), repr(error), repr(error.args), *getattr(error, "problems", [])]
    return "\n".join(told + ([shown_by(error.__cause__)] if error.__cause__ else []))


@pytest.mark.parametrize("key", EVERY_KEY)
def test_a_value_in_a_wrong_place_of_the_file_is_never_shown(place: Place, key: str) -> None:
    *tables, last = key.split(".")
    for value in shapes_of(CANARY):
        line = f"{last} = {value}\n"
        text = f"[{'.'.join(tables)}]\n{line}" if tables else line
        if tables != ["instances", "prod"] and key != "instances":
            text += INSTANCE
        with pytest.raises(ConfigError) as caught:
            place.load(text, PALETTE_SYNC_UNKNOWN=CANARY)

        assert CANARY not in shown_by(caught.value)
        assert caught.value.__cause__ is None


@pytest.mark.parametrize("key", EVERY_KEY)
def test_a_value_in_a_wrong_variable_is_never_shown(place: Place, key: str) -> None:
    name = f"PALETTE_SYNC_{key.upper().replace('.', '__')}"
    for value in (CANARY, f"[{CANARY}", f'{{"{CANARY[:3]}": "{CANARY}"}}', f'["{CANARY}"]'):
        with pytest.raises(ConfigError) as caught:
            place.load(INSTANCE, **{name: value}, PALETTE_SYNC_UNKNOWN=CANARY)

        assert CANARY not in shown_by(caught.value)


@pytest.mark.parametrize("key", EVERY_KEY)
def test_a_value_in_a_wrong_secret_is_never_shown(place: Place, key: str) -> None:
    place.write(f"secrets/{key.replace('.', '__')}", CANARY)

    with pytest.raises(ConfigError) as caught:
        place.load(INSTANCE + "[service]\ngrace = '1d'", PALETTE_SYNC_SECRETS_DIR=str(place.directory / "secrets"))

    assert CANARY not in shown_by(caught.value)


@pytest.mark.parametrize(
    "line",
    [
        f'api_key "{CANARY}"',
        f"api_key = {CANARY}",
        f'api_key = "{CANARY}',
        f'api_key = "{CANARY}" "{CANARY}"',
        f'api_key = "a"\napi_key = "{CANARY}"',
        f'api_key = """{CANARY}',
        f"api_key = [{CANARY}",
        f'x = {{ api_key = "{CANARY}", api_key = "{CANARY}" }}',
        f'api_key = "\\q{CANARY}"',
    ],
)
def test_a_value_in_broken_toml_is_never_shown(place: Place, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        place.load(line)

    assert "is not valid TOML" in str(caught.value)
    assert CANARY not in shown_by(caught.value)


def test_no_secret_shows_in_the_settings(place: Place) -> None:
    text = (
        f'[defaults]\napi_key = "{CANARY}-0"\n'
        f'[instances.prod]\nurl = "https://api.example.com"\napi_key = "{CANARY}-1"\n'
        f'http_proxy = "http://user:{CANARY}@proxy.example:3128"\n'
        f'[redis]\nurl = "redis://:{CANARY}@redis:6379/0"\n[seal]\nkeys = "one {CANARY}"\n'
    )

    settings = place.load(text)

    assert settings.instances["prod"].http_proxy == f"http://user:{CANARY}@proxy.example:3128"
    for shown in (repr(settings), str(settings), repr(settings.instances), f"{settings.redis!r} {settings.seal!r}"):
        assert CANARY not in shown


def test_a_section_that_is_built_by_hand_shows_no_value_either() -> None:
    builders: list[Callable[[], Any]] = [
        lambda: InstanceSettings.model_validate({"url": CANARY, "api_key": f"{CANARY} x"}),
        lambda: RedisSettings.model_validate({"url": CANARY, "prefix": f"{CANARY}!"}),
        lambda: SealSettings.model_validate({"key": CANARY}),
    ]
    for build in builders:
        with pytest.raises(ValidationError) as caught:
            build()

        assert CANARY not in str(caught.value)


def test_settings_are_frozen(place: Place) -> None:
    settings = place.load(MINIMAL)

    with pytest.raises(ValidationError):
        settings.redis.prefix = "other"


# ---- Nothing but ConfigError -----------------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text("ab", max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=2),
    max_leaves=4,
)
variables = st.dictionaries(
    st.lists(
        st.sampled_from(
            ["INSTANCES", "PROD", "DEFAULTS", "REDIS", "SEAL", "URL", "KEYS", "AUTH", "RULES", "", "0", "X"]
        ),
        min_size=1,
        max_size=4,
    ).map(lambda parts: "PALETTE_SYNC_" + "__".join(parts)),
    json_values.map(lambda value: str(value).replace("'", '"')),
    max_size=3,
)


@given(variables)
def test_whatever_variables_say_the_answer_is_settings_or_a_config_error(
    tmp_path_factory: pytest.TempPathFactory, environ: dict[str, str]
) -> None:
    place = Place(tmp_path_factory.getbasetemp())
    try:
        place.load(MINIMAL, **environ)
    except ConfigError as error:
        assert error.problems  # noqa: PT017 - it may also load


def test_a_file_that_is_nested_too_deeply_is_told(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("a = " + "[" * 20_000)

    with pytest.raises(ConfigError, match="is nested too deeply"):
        load(file, environ={})

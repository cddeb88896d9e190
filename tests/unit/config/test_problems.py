"""What is wrong is reported at once, each problem once, with source, key and remedy."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palette_sync.config import ConfigError, load
from unit.config.configuration import DURATION, HTTPS, INSTANCE, MINIMAL, NO_SEAL, ConfigDirectory


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
            MINIMAL.replace('api_key = "some-key"', ""),
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
def test_what_is_missing_or_twice_is_told(config: ConfigDirectory, text: str, problem: str) -> None:
    (told,) = config.problems(text)

    assert told.endswith(problem)
    assert told.startswith("FILE: ")


@pytest.mark.parametrize("keys", ['""', '" \\n "', "[]"], ids=["an empty text", "blank lines", "an empty list"])
def test_a_seal_without_a_key_is_none(config: ConfigDirectory, keys: str) -> None:
    assert config.problems(f"{INSTANCE}[seal]\nkeys = {keys}") == [NO_SEAL]


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
    config: ConfigDirectory, more: str, key: str, guess: str | None, table: str | None
) -> None:
    meant = f"; did you mean {guess!r}?" if guess else ""

    assert config.problems(MINIMAL + more) == [
        f"FILE: {key}: is unknown{meant}; remove it from {table or key.rpartition('.')[0]}"
    ]


def test_an_unknown_key_of_the_seal_is_refused_with_a_guess(config: ConfigDirectory) -> None:
    problems = config.problems(INSTANCE + "[seal]\nkeyfile = 'x'")

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
def test_a_wrong_variable_is_told_by_its_name(config: ConfigDirectory, name: str, value: str, problem: str) -> None:
    assert config.problems(MINIMAL, **{name: value}) == [problem]


def test_a_wrong_secret_is_told_by_the_name_of_its_file(config: ConfigDirectory) -> None:
    config.write("secrets/redis__urll", "x")
    config.write("secrets/service__grace", "x")
    config.write("secrets/redis__prefix", b"\xff")

    assert sorted(config.problems(MINIMAL, PALETTE_SYNC_SECRETS_DIR=str(config.path / "secrets"))) == [
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
def test_a_secret_file_that_cannot_be_used_is_told_once(
    config: ConfigDirectory, given_value: str, problem: str
) -> None:
    config.write("binary", b"\xff\xfe")
    config.write("large", "x" * (64 * 1024 + 1))
    text = MINIMAL.replace('api_key = "some-key"', f"api_key_file = {given_value}")

    assert config.problems(text) == [f"FILE: instances.prod.api_key_file: {problem}"]


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
            INSTANCE.replace('api_key = "some-key"', ""),
            {"CREDENTIALS_DIRECTORY": "/there/is/none"},
            "variable CREDENTIALS_DIRECTORY: names no directory that can be read",
            id="a directory that may hold anything",
        ),
    ],
)
def test_what_could_not_be_read_is_not_called_missing_too(
    config: ConfigDirectory, text: str, environ: dict[str, str], problem: str
) -> None:
    assert "; ".join(config.problems(text, **environ)) == problem


def test_a_home_of_nobody_is_told(config: ConfigDirectory) -> None:
    assert config.problems(MINIMAL + 'ca_file = "~nobody-of-this-name/ca.pem"') == [
        "FILE: instances.prod.ca_file: begins with the home of a user who is unknown"
    ]


def test_a_key_beside_its_file_in_one_layer_is_refused(config: ConfigDirectory) -> None:
    assert config.problems(MINIMAL + 'api_key_file = "x"') == [
        "FILE: instances.prod.api_key_file: stands beside api_key; keep one of the two"
    ]
    assert config.problems(MINIMAL, PALETTE_SYNC_REDIS__URL="redis://x", PALETTE_SYNC_REDIS__URL_FILE="x") == [
        "variable PALETTE_SYNC_REDIS__URL_FILE: redis.url_file: stands beside url; keep one of the two"
    ]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        pytest.param(b"\xff\xfe", "is not UTF-8 text", id="no text"),
        pytest.param(b"a = 1\na = 2\n", "is not valid TOML: ", id="no TOML"),
    ],
)
def test_a_file_that_cannot_be_read_is_told(config: ConfigDirectory, content: bytes, problem: str) -> None:
    config.file.write_bytes(content)

    with pytest.raises(ConfigError) as caught:
        load(config.file, environ={})

    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].startswith(f"{config.file}: {problem}")


def test_a_missing_file_is_an_error_and_not_a_set_of_defaults(config: ConfigDirectory) -> None:
    with pytest.raises(ConfigError, match=r"there is no such file; copy config\.example\.toml there"):
        load(config.file, environ={})


def test_a_directory_is_no_configuration(config: ConfigDirectory) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(config.path, environ={})


def test_everything_that_is_wrong_is_told_at_once_and_each_thing_once(config: ConfigDirectory) -> None:
    text = (
        '[defaults]\nrefresh_interval = "soon"\nverify_intervall = "1h"\n'
        '[instances.a]\nurl = "http://a"\napi_key_file = "there-is-none"\n'
        '[instances.b]\napi_key = "key-b"\nrefresh_interval = "never"\n'
        '[service]\ngrace = "60s"\n'
    )

    problems = config.problems(text, PALETTE_SYNC_X="1", PALETTE_SYNC_REDIS__HISTORY="-1")

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


def test_a_file_that_is_nested_too_deeply_is_told(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("a = " + "[" * 20_000)

    with pytest.raises(ConfigError, match="is nested too deeply"):
        load(file, environ={})


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
    config = ConfigDirectory(tmp_path_factory.getbasetemp())
    try:
        config.load(MINIMAL, **environ)
    except ConfigError as error:
        assert error.problems  # noqa: PT017 - it may also load

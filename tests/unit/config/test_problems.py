"""All problems are reported at once, each once, with source, key and remedy."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palette_sync.config import ConfigError, load
from palette_sync.config.errors import NOT_JSON
from unit.config.configuration import DURATION, HTTPS, INSTANCE, MINIMAL, NO_SEAL, ConfigDirectory

CHECK_PATH = "correct the path or the permissions"
SEAL_SHAPE = 'seal: must be a table with keys or keys_file, or the word "none"'


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param(
            "",
            "instances: at least one instance is needed; add a table [instances.<name>] with url and api_key_file",
            id="an empty file",
        ),
        pytest.param(
            'seal = "none"\n[instances]',
            "instances: at least one instance is needed; add a table [instances.<name>] with url and api_key_file",
            id="no instance",
        ),
        pytest.param(
            'seal = "none"\n[[instances]]\nurl = "x"', "instances: must be a table", id="an array of instances"
        ),
        pytest.param(
            MINIMAL.replace("prod", '"Prod-EU"'),
            "instances: 'Prod-EU': is not an instance name; use [a-z][a-z0-9_]*, because it is a part of "
            "variables such as PALETTE_SYNC_INSTANCES__<NAME>__API_KEY",
            id="an invalid instance name",
        ),
        pytest.param(
            MINIMAL.replace('api_key = "some-key"', ""),
            "instances.prod.api_key: is missing; set it (or api_key_file, or instances__prod__api_key in "
            "PALETTE_SYNC_SECRETS_DIR)",
            id="no api key",
        ),
        pytest.param(
            MINIMAL + INSTANCE.replace("prod", "twin"),
            "instances: 'prod' and 'twin' have the same url and API key, so each cluster would be published twice; "
            "remove one of them",
            id="one instance twice",
        ),
        pytest.param(
            MINIMAL + "[instances.prod.cloud.aws]\nrole_arn = 'backstage'",
            "instances.prod.cloud.aws.role_arn: is not the ARN of a role; "
            'write for example "arn:aws:iam::123456789012:role/backstage"',
            id="a role without its ARN",
        ),
        pytest.param(
            MINIMAL + "[instances.prod.cloud.aws]\nenabled = true\nexternal_id = 'x'",
            "instances.prod.cloud.aws: external_id needs role_arn beside it",
            id="an external id without a role",
        ),
        pytest.param(
            MINIMAL + "[instances.prod.cloud.google]\nenabled = true",
            "instances.prod.cloud.google: projects is empty; "
            "name the Google Cloud projects whose clusters may get a token",
            id="no project of Google Cloud",
        ),
        pytest.param(
            MINIMAL + "[[instances.prod.cloud.azure.rules]]\n",
            'needs at least one of project, cluster, tag; cluster = "*" matches every cluster',
            id="a rule of a cloud without a glob",
        ),
        pytest.param(INSTANCE, NO_SEAL.removeprefix("FILE: seal: "), id="no seal"),
        pytest.param('seal = "nonsense"\n' + INSTANCE, SEAL_SHAPE, id="a word as seal"),
        pytest.param("seal = 5\n" + INSTANCE, SEAL_SHAPE, id="a number as seal"),
        pytest.param(INSTANCE + "[seal]\nkeys = 5", "seal.keys: must be a valid string", id="a number as key"),
    ],
)
def test_a_missing_or_repeated_setting_is_reported(config: ConfigDirectory, text: str, problem: str) -> None:
    (reported,) = config.problems(text)

    assert reported.endswith(problem)
    assert reported.startswith("FILE: ")


@pytest.mark.parametrize("keys", ['""', '" \\n "', "[]"], ids=["an empty text", "blank lines", "an empty list"])
def test_a_seal_without_a_key_is_refused(config: ConfigDirectory, keys: str) -> None:
    assert config.problems(f"{INSTANCE}[seal]\nkeys = {keys}") == [NO_SEAL]


@pytest.mark.parametrize(
    ("more", "key", "guess"),
    [
        pytest.param("refresh_intervall = '5m'", "instances.prod.refresh_intervall", "refresh_interval", id="instance"),
        pytest.param("api_key_fil = 'x'", "instances.prod.api_key_fil", "api_key_file", id="a file key"),
        pytest.param("rbac.namespaces = 'x'", "instances.prod.rbac.namespaces", "namespace", id="a nested table"),
        pytest.param(
            "auth.rules = [{ mode = 'oidc', tag = 'x', clusters = 'y' }]",
            "instances.prod.auth.rules.0.clusters",
            "cluster",
            id="a rule of authentication",
        ),
        pytest.param(
            "rbac.rules = [{ api_groups = ['x'], resources = ['x'], verbs = ['x'], verb = ['x'] }]",
            "instances.prod.rbac.rules.0.verb",
            "verbs",
            id="a rule of rights",
        ),
        pytest.param("[redis]\nurl_fiel = 'x'", "redis.url_fiel", "url_file", id="a section"),
        pytest.param("[defaults.token]\nvalidty = '1h'", "defaults.token.validty", "validity", id="the defaults"),
        pytest.param("[servcie]\ngrace = '1s'", "servcie", "service", id="the top level"),
        pytest.param("[http]\nxyzzy = 1", "http.xyzzy", None, id="nothing like any key"),
    ],
)
def test_an_unknown_key_is_refused_with_a_guess(
    config: ConfigDirectory, more: str, key: str, guess: str | None
) -> None:
    meant = f" (did you mean {guess!r}?)" if guess else ""

    assert config.problems(MINIMAL + more) == [f"FILE: {key}: is unknown{meant}; rename or remove it"]


def test_an_unknown_key_of_the_seal_is_refused_with_a_guess(config: ConfigDirectory) -> None:
    problems = config.problems(INSTANCE + "[seal]\nkeyfile = 'x'")

    assert problems == ["FILE: seal.keyfile: is unknown (did you mean 'keys_file'?); rename or remove it"]


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        pytest.param(
            "PALETTE_SYNC_REDISS__URL",
            "x",
            "variable PALETTE_SYNC_REDISS__URL: is unknown (did you mean 'redis'?); rename or unset it",
            id="an unknown section",
        ),
        pytest.param(
            "PALETTE_SYNC_LOG_LEVEL",
            "",
            "variable PALETTE_SYNC_LOG_LEVEL: is unknown; rename or unset it",
            id="an unknown variable that is empty",
        ),
        pytest.param(
            "PALETTE_SYNC_SERVICE__CONCURENCY",
            "5",
            "variable PALETTE_SYNC_SERVICE__CONCURENCY: service.concurency: is unknown (did you mean "
            "'concurrency'?); rename or remove it",
            id="an unknown key in a section",
        ),
        pytest.param(
            "PALETTE_SYNC_REDIS",
            "{bad",
            f"variable PALETTE_SYNC_REDIS: {NOT_JSON}",
            id="a section that is not JSON",
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
            "variable PALETTE_SYNC_DEFAULTS__AUTH__RULES: defaults.auth.rules.0.tags: is unknown "
            "(did you mean 'tag'?); rename or remove it",
            id="an unknown key inside a list",
        ),
        pytest.param(
            "PALETTE_SYNC_REDIS__URL_FILE",
            "/there/is/none",
            "variable PALETTE_SYNC_REDIS__URL_FILE: redis.url_file: "
            f"the file cannot be read: No such file or directory; {CHECK_PATH}",
            id="a file that is not there",
        ),
        pytest.param(
            "CREDENTIALS_DIRECTORY",
            "/there/is/none",
            f"variable CREDENTIALS_DIRECTORY: is not the path of a directory that can be read; {CHECK_PATH}",
            id="a directory that is not there",
        ),
        pytest.param(
            "PALETTE_SYNC_SECRETS_DIR",
            "a\0b",
            f"variable PALETTE_SYNC_SECRETS_DIR: is not the path of a directory that can be read; {CHECK_PATH}",
            id="an invalid path of a directory",
        ),
    ],
)
def test_a_wrong_variable_is_reported_by_its_name(config: ConfigDirectory, name: str, value: str, problem: str) -> None:
    assert config.problems(MINIMAL, **{name: value}) == [problem]


def test_a_wrong_secret_is_reported_by_the_name_of_its_file(config: ConfigDirectory) -> None:
    config.write("secrets/redis__urll", "x")
    config.write("secrets/service__grace", "x")
    config.write("secrets/redis__prefix", b"\xff")

    assert sorted(config.problems(MINIMAL, PALETTE_SYNC_SECRETS_DIR=str(config.path / "secrets"))) == [
        (
            f"secret redis__prefix: the file {config.path}/secrets/redis__prefix is not UTF-8 text; "
            "correct the path or the encoding"
        ),
        "secret redis__urll: redis.urll: is unknown (did you mean 'url'?); rename or remove it",
        f"secret service__grace: service.grace: {DURATION}",
    ]


@pytest.mark.parametrize(
    ("given_value", "problem"),
    [
        pytest.param(
            "'there-is-none'", f"the file cannot be read: No such file or directory; {CHECK_PATH}", id="not there"
        ),
        pytest.param("'.'", f"the file FOLDER cannot be read: Is a directory; {CHECK_PATH}", id="a directory"),
        pytest.param("'binary'", "the file is not UTF-8 text; correct the path or the encoding", id="not text"),
        pytest.param(
            "'large'", "the file is larger than 64 KiB, too large for a secret; correct the path", id="too large"
        ),
        pytest.param(
            "'/dev/zero'",
            "the file /dev/zero is larger than 64 KiB, too large for a secret; correct the path",
            id="without end",
        ),
        pytest.param("5", "must be the path of a file", id="a number"),
        pytest.param('"a\\u0000b"', "must be the path of a file", id="an invalid path"),
    ],
)
def test_a_secret_file_that_cannot_be_used_is_reported_once(
    config: ConfigDirectory, given_value: str, problem: str
) -> None:
    config.write("binary", b"\xff\xfe")
    config.write("large", "x" * (64 * 1024 + 1))
    text = MINIMAL.replace('api_key = "some-key"', f"api_key_file = {given_value}")

    assert [one.replace(str(config.path), "FOLDER") for one in config.problems(text)] == [
        f"FILE: instances.prod.api_key_file: {problem}"
    ]


@pytest.mark.parametrize("given_value", ["prod.api-key", "keys/prod", "/proc/none", "./seal.keys"])
def test_the_path_of_a_file_that_cannot_be_read_is_named(config: ConfigDirectory, given_value: str) -> None:
    config.write("keys/another", "x")

    (problem,) = config.problems(MINIMAL.replace('api_key = "some-key"', f"api_key_file = '{given_value}'"))

    assert f"api_key_file: the file {config.path / given_value} cannot be read" in problem


@pytest.mark.parametrize(
    "secret",
    [
        "c2VjcmV0LWtleS1pbi1iYXNlNjQ",
        "ab/cd+ef/gh==",
        "/abcd+efgh==",
        "redis://user:hush@cache.example:6379/0",
        "k1 l-O5v34wPApCc9WJuSC_vUtiU4HdI4vJG6vcB71cT2U",
        "eyJhbGciOiJkaXIifQ.eyJpc3MiOiJwYWxldHRlIn0.c2lnbmF0dXJl",
    ],
)
def test_a_secret_in_place_of_a_path_is_not_shown(config: ConfigDirectory, secret: str) -> None:
    for text in (
        MINIMAL.replace('api_key = "some-key"', f"api_key_file = '{secret}'"),
        MINIMAL + f"[redis]\nurl_file = '{secret}'\n",
    ):
        assert secret not in " ".join(config.problems(text))


@pytest.mark.parametrize(
    ("text", "environ", "problem"),
    [
        pytest.param(
            INSTANCE + '[seal]\nkeys_file = "there-is-none"',
            {},
            f"FILE: seal.keys_file: the file cannot be read: No such file or directory; {CHECK_PATH}",
            id="the seal keys",
        ),
        pytest.param(
            'seal = "none"\n[defaults]\napi_key_file = "there-is-none"\n[instances.a]\nurl = "https://a.example"',
            {},
            f"FILE: defaults.api_key_file: the file cannot be read: No such file or directory; {CHECK_PATH}",
            id="an inherited key",
        ),
        pytest.param(
            'seal = "none"',
            {"PALETTE_SYNC_INSTANCES__PROD__INCLUDE_TAGS": "[", "PALETTE_SYNC_INSTANCES": "{"},
            f"variable PALETTE_SYNC_INSTANCES: {NOT_JSON}; "
            f"variable PALETTE_SYNC_INSTANCES__PROD__INCLUDE_TAGS: {NOT_JSON}",
            id="a whole table",
        ),
        pytest.param(
            INSTANCE.replace('api_key = "some-key"', ""),
            {"CREDENTIALS_DIRECTORY": "/there/is/none"},
            f"variable CREDENTIALS_DIRECTORY: is not the path of a directory that can be read; {CHECK_PATH}",
            id="a directory of secrets",
        ),
    ],
)
def test_a_value_that_could_not_be_read_is_not_reported_as_missing_too(
    config: ConfigDirectory, text: str, environ: dict[str, str], problem: str
) -> None:
    assert "; ".join(config.problems(text, **environ)) == problem


def test_the_home_of_an_unknown_user_is_reported(config: ConfigDirectory) -> None:
    assert config.problems(MINIMAL + 'ca_file = "~nobody-of-this-name/ca.pem"') == [
        "FILE: instances.prod.ca_file: names the home of an unknown user; write the full path"
    ]


def test_a_key_and_its_file_key_in_one_layer_are_refused(config: ConfigDirectory) -> None:
    assert config.problems(MINIMAL + 'api_key_file = "x"') == [
        "FILE: instances.prod.api_key_file: is set together with api_key; keep one of the two"
    ]
    assert config.problems(MINIMAL, PALETTE_SYNC_REDIS__URL="redis://x", PALETTE_SYNC_REDIS__URL_FILE="x") == [
        "variable PALETTE_SYNC_REDIS__URL_FILE: redis.url_file: is set together with url; keep one of the two"
    ]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        pytest.param(b"\xff\xfe", "is not UTF-8 text", id="not text"),
        pytest.param(b"a = 1\na = 2\n", "is not valid TOML: ", id="not TOML"),
    ],
)
def test_a_file_with_invalid_content_is_reported(config: ConfigDirectory, content: bytes, problem: str) -> None:
    config.file.write_bytes(content)

    with pytest.raises(ConfigError) as caught:
        load(config.file, environ={})

    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].startswith(f"{config.file}: {problem}")


def test_a_missing_file_is_an_error(config: ConfigDirectory) -> None:
    with pytest.raises(ConfigError, match=r"there is no such file; write one with `palette-sync config init`"):
        load(config.file, environ={})


def test_a_directory_in_place_of_the_file_is_an_error(config: ConfigDirectory) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(config.path, environ={})


def test_all_problems_are_reported_at_once_and_each_once(config: ConfigDirectory) -> None:
    text = (
        '[defaults]\nrefresh_interval = "soon"\nverify_intervall = "1h"\n'
        '[instances.a]\nurl = "http://a"\napi_key_file = "there-is-none"\n'
        '[instances.b]\napi_key = "key-b"\nrefresh_interval = "never"\n'
        '[service]\ngrace = "60s"\n'
    )

    problems = config.problems(text, PALETTE_SYNC_X="1", PALETTE_SYNC_REDIS__HISTORY="-1")

    assert problems == [
        "variable PALETTE_SYNC_X: is unknown; rename or unset it",
        f"FILE: instances.a.api_key_file: the file cannot be read: No such file or directory; {CHECK_PATH}",
        f"FILE: instances.a.url: {HTTPS}",
        f"FILE: instances.b.refresh_interval: {DURATION}",
        "FILE: instances.b.url: is missing; set it",
        "variable PALETTE_SYNC_REDIS__HISTORY: redis.history: must be greater than or equal to 0",
        "FILE: service: grace must be shorter than deadline",
        f"FILE: defaults.refresh_interval: {DURATION}",
        "FILE: defaults.verify_intervall: is unknown (did you mean 'verify_interval'?); rename or remove it",
    ]


def test_a_file_that_is_nested_too_deeply_is_reported(tmp_path: Path) -> None:
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
def test_any_variables_give_settings_or_a_config_error(
    tmp_path_factory: pytest.TempPathFactory, environ: dict[str, str]
) -> None:
    config = ConfigDirectory(tmp_path_factory.getbasetemp())
    try:
        config.load(MINIMAL, **environ)
    except ConfigError as error:
        assert error.problems  # noqa: PT017 - it may also load

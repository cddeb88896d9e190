"""The part of the configuration that diagnosis needs, from files that are not valid as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from palette_sync.config.layers import TABLES as TABLE_NAMES
from palette_sync.config.partial import load_partial, read_usual
from palette_sync.config.partial_settings import Hidden, PartialRedis, PartialSettings
from palette_sync.config.salvaged import salvage
from palette_sync.config.settings import HttpSettings, RedisSettings, Settings

if TYPE_CHECKING:
    from pathlib import Path

KEY = "k1 l-O5v34wPApCc9WJuSC_vUtiU4HdI4vJG6vcB71cT2U"
TABLES = """
[redis]
url = "redis://cache:6380/1"
prefix = "mine"

[http]
listen = "127.0.0.1:7"

[seal]
keys = ["{key}"]
""".replace("{key}", KEY)
INSTANCE = """
[instances.alpha]
url = "https://palette.example"
api_key = "x"
"""


def read(path: Path, text: str | None, environ: dict[str, str] | None = None, **given: str) -> PartialSettings:
    file = path / "config.toml"
    if text is not None:
        file.write_text(text)
    return load_partial(file, environ=environ or {}, **given)


def found(settings: PartialSettings) -> dict[str, Any]:
    keys = settings.seal.get_secret_value() if isinstance(settings.seal, Hidden) else None
    return {
        "url": settings.redis.url.get_secret_value(),
        "prefix": settings.redis.prefix,
        "listen": settings.listen,
        "keys": keys,
    }


WHOLE = {"url": "redis://cache:6380/1", "prefix": "mine", "listen": "127.0.0.1:7", "keys": KEY}


@pytest.mark.parametrize(
    "rest",
    [
        pytest.param(INSTANCE, id="a valid file"),
        pytest.param("", id="no instance"),
        pytest.param('[instances.alpha]\nurl = "http://x"\nspeed = 1\n', id="an instance that is not valid"),
        pytest.param('[instances.alpha]\napi_key_file = "missing"\n', id="an API key that cannot be read"),
        pytest.param('[service]\ngrace = "1h"\n', id="a service that is not valid"),
        pytest.param("[instances.alpha\nurl = 1\n", id="no TOML any more"),
        pytest.param("[instances.alpha]\nurl =\n[defaults]\nurl = 'x'\n", id="no TOML in the middle"),
    ],
)
def test_where_redis_and_the_daemon_are_does_not_depend_on_the_rest(tmp_path: Path, rest: str) -> None:
    assert found(read(tmp_path, TABLES + rest)) == WHOLE
    assert found(read(tmp_path, rest + TABLES)) == WHOLE


def test_the_instances_are_known_only_if_the_file_can_be_read(tmp_path: Path) -> None:
    assert read(tmp_path, TABLES + INSTANCE).instances == {"alpha"}
    assert read(tmp_path, TABLES).instances == frozenset()
    broken = read(tmp_path, TABLES + "[x")
    assert broken.instances is None
    assert "is not valid TOML" in broken.problems["file"][0]


def test_without_a_file_variables_are_read(tmp_path: Path) -> None:
    settings = read(tmp_path, None, {"PALETTE_SYNC_REDIS__URL": "redis://other", "PALETTE_SYNC_REDIS__PREFIX": "p"})

    assert found(settings)["url"] == "redis://other"
    assert settings.instances is None
    assert "there is no such file" in settings.problems["file"][0]


def test_the_command_line_wins(tmp_path: Path) -> None:
    settings = read(tmp_path, TABLES, redis_url="rediss://reader:secret@far:1/2", prefix="theirs")

    assert found(settings) == WHOLE | {"url": "rediss://reader:secret@far:1/2", "prefix": "theirs"}
    assert "secret" not in repr(settings)


@pytest.mark.parametrize(
    ("text", "table", "words"),
    [
        pytest.param('[redis]\nurl = "file:///x"\n', "redis", "redis.url: must start with", id="redis"),
        pytest.param("[redis]\nspeed = 1\n", "redis", "redis.speed", id="an unknown key of redis"),
        pytest.param('[http]\nlisten = "nowhere"\n', "http", "http.listen: must be", id="http"),
        pytest.param("seal = 5\n", "seal", "seal", id="seal"),
        pytest.param(
            '[seal]\nkeys_file = "missing.keys"\n', "seal", "missing.keys cannot be read", id="a file of keys"
        ),
    ],
)
def test_a_table_that_is_not_valid_has_its_defaults_and_a_problem(
    tmp_path: Path, text: str, table: str, words: str
) -> None:
    settings = read(tmp_path, text)

    assert words in settings.problems[table][0]
    assert settings.problems.keys() == {table}
    assert found(settings) == {
        "url": "redis://127.0.0.1:6379/0",
        "prefix": "palette-sync",
        "listen": "127.0.0.1:9464",
        "keys": None,
    }


@pytest.mark.parametrize(
    ("text", "seal"),
    [
        pytest.param('seal = "none"\n', "none", id="off"),
        pytest.param('seal = "none"\n[broken\n', "none", id="off, in a file that is no TOML"),
        pytest.param("", None, id="no key"),
        pytest.param('[seal]\nkeys = [""]\n', None, id="an empty key"),
        pytest.param("[broken\n", None, id="nothing to be found"),
    ],
)
def test_the_seal_is(tmp_path: Path, text: str, seal: str | None) -> None:
    assert read(tmp_path, text).seal == seal


def test_a_file_that_is_not_text_has_nothing_to_be_salvaged(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_bytes(b"\xff\xfe")

    settings = read(tmp_path, None)

    assert settings.problems["file"]
    assert found(settings)["prefix"] == "palette-sync"


USUAL = [
    pytest.param(TABLES + INSTANCE, {}, id="a valid file"),
    pytest.param(TABLES + "[instances.alpha]\nurl = 5\n", {}, id="an instance that is not valid"),
    pytest.param(INSTANCE, {}, id="defaults only"),
    pytest.param('seal = "none"\n', {}, id="not sealed"),
    pytest.param(
        '[redis]\nhistory = 3\nca_file = "ca.pem"\ncert_file = "c.pem"\nkey_file = "/k.pem"\n'
        'timeout = 3\nconnect_timeout = "1m30s"\n[http]\nlisten = ""\nhosts = ["x"]\n',
        {},
        id="every key",
    ),
    pytest.param(
        TABLES,
        {
            "PALETTE_SYNC_REDIS__URL": "redis://other",
            "palette_sync_redis__timeout": "250ms",
            "PALETTE_SYNC_SEAL__KEYS": "k A",
            "PALETTE_SYNC_HTTP__LISTEN": "[::1]:8",
            "PALETTE_SYNC_INSTANCES__BRAVO__API_KEY": "x",
            "PALETTE_SYNC_DEFAULTS__INCLUDE_TAGS": "not JSON",
            "PALETTE_SYNC_REDIS__PREFIX": "",
            "PALETTE_SYNC_UNKNOWN": "1",
            "OTHER": "1",
        },
        id="variables",
    ),
]


@pytest.mark.parametrize(("text", "environ"), USUAL)
def test_without_the_models_the_same_is_read(tmp_path: Path, text: str, environ: dict[str, str]) -> None:
    file = tmp_path / "config.toml"
    file.write_text(text)

    usual = read_usual(file, environ)

    assert usual is not None, "it takes the short way"
    assert usual == salvage(file, environ)


@pytest.mark.parametrize(
    ("text", "environ"),
    [
        pytest.param("redis = 5\n", {}, id="no table"),
        pytest.param("[redis]\nhistory = -1\n", {}, id="a number out of range"),
        pytest.param("[redis]\ntimeout = 0\n", {}, id="no time"),
        pytest.param("[redis]\ntimeout = 'soon'\n", {}, id="no duration"),
        pytest.param("[redis]\nurl_file = 'missing'\n", {}, id="a file that is missing"),
        pytest.param("[http]\ntoken_file = 'missing'\n", {}, id="a token that is missing"),
        pytest.param("[http]\nspeed = 5\n", {}, id="an unknown key"),
        pytest.param("[http]\nlisten = 5\n", {}, id="no address"),
        pytest.param("[seal]\nkeys = 5\n", {}, id="no keys"),
        pytest.param("[seal]\nkeys = ['a']\nmore = 1\n", {}, id="more than keys"),
        pytest.param("[broken\n", {}, id="no TOML"),
        pytest.param("", {"PALETTE_SYNC_SEAL": "none"}, id="a table as a variable"),
        pytest.param("", {"PALETTE_SYNC_REDIS__HISTORY": "7"}, id="a number as a variable"),
        pytest.param("", {"PALETTE_SYNC_HTTP__HOSTS": '["x"]'}, id="a list as a variable"),
    ],
)
def test_whatever_is_unusual_is_left_to_the_models(tmp_path: Path, text: str, environ: dict[str, str]) -> None:
    file = tmp_path / "config.toml"
    file.write_text(text)

    assert read_usual(file, environ) is None
    assert load_partial(file, environ=environ) == salvage(file, environ)


def test_names_and_defaults_are_those_of_the_models() -> None:
    redis = dict(RedisSettings())
    shown = {name: getattr(PartialRedis(), name) for name in redis}

    assert PartialRedis.__slots__ == tuple(redis)
    assert shown.pop("url").get_secret_value() == redis.pop("url").get_secret_value()
    assert shown == redis
    assert PartialSettings().listen == HttpSettings().listen
    assert set(TABLE_NAMES) == set(Settings.model_fields)

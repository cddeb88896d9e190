"""The configuration that `config init` writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from palette_sync.config.starter import DEFAULT_REDIS, DEFAULT_URL, MODES, Starter, problem_with, starter_text
from palette_sync.store.seal import SealKeys
from unit.config.configuration import key_of

if TYPE_CHECKING:
    from unit.config.configuration import ConfigDirectory


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("redis_url_file", ["", "redis.url"])
def test_it_loads_once_the_secrets_are_there(config: ConfigDirectory, mode: str, redis_url_file: str) -> None:
    config.write("prod.api-key", "some-key-1\n")
    config.write("seal.keys", SealKeys.generate_line())
    config.write("redis.url", "redis://user:hush@cache/1")
    starter = Starter("prod", DEFAULT_URL, mode, "prod.api-key", "seal.keys", DEFAULT_REDIS, redis_url_file)

    settings = config.load(starter_text(starter))

    assert key_of(settings) == "some-key-1"
    assert settings.instances["prod"].auth.mode == mode
    assert settings.instances["prod"].url == DEFAULT_URL
    url = settings.redis.url.get_secret_value()
    assert url == ("redis://user:hush@cache/1" if redis_url_file else DEFAULT_REDIS)


def test_a_name_with_quotes_is_written_as_toml_has_it(config: ConfigDirectory) -> None:
    config.write('odd "name\\.key', "some-key-1")
    config.write("seal.keys", SealKeys.generate_line())

    assert key_of(config.load(starter_text(Starter("prod", DEFAULT_URL, "oidc", 'odd "name\\.key', "seal.keys"))))


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("instance", "Prod-1", "is not an instance name"),
        ("url", "http://palette.example", "https://HOST"),
        ("redis_url", "http://cache", "must start with one of redis://"),
        ("mode", "magic", "must be 'service-account', 'oidc' or 'auto'"),
        ("api_key", "canary wrong", "holds characters"),
    ],
)
def test_a_wrong_answer_is_explained_and_not_quoted(field: str, value: str, words: str) -> None:
    problem = problem_with(field, value)

    assert problem is not None
    assert words in problem
    assert "canary" not in problem


@pytest.mark.parametrize(
    ("field", "value"),
    [("instance", "prod_2"), ("url", DEFAULT_URL), ("redis_url", DEFAULT_REDIS), ("mode", "auto"), ("api_key", "abcd")],
)
def test_a_right_answer_has_no_problem(field: str, value: str) -> None:
    assert problem_with(field, value) is None

"""No value of the configuration is ever shown: not in an error, not in a repr."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from palette_sync.config import ConfigError, Settings
from palette_sync.config.settings import InstanceSettings, RedisSettings, SealSettings
from unit.config.configuration import CANARY, FILE_KEYS, INSTANCE, TABLES, ConfigDirectory


def shapes_of(value: str) -> list[str]:
    """Return the value in TOML as each type that a key can have."""
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
    """Return all texts of an error that a log or a traceback could show."""
    texts = [str(error), repr(error), repr(error.args), *getattr(error, "problems", [])]
    return "\n".join(texts + ([shown_by(error.__cause__)] if error.__cause__ else []))


@pytest.mark.parametrize("key", EVERY_KEY)
def test_a_value_under_a_wrong_key_of_the_file_is_never_shown(config: ConfigDirectory, key: str) -> None:
    *tables, last = key.split(".")
    for value in shapes_of(CANARY):
        line = f"{last} = {value}\n"
        text = f"[{'.'.join(tables)}]\n{line}" if tables else line
        if tables != ["instances", "prod"] and key != "instances":
            text += INSTANCE
        with pytest.raises(ConfigError) as caught:
            config.load(text, PALETTE_SYNC_UNKNOWN=CANARY)

        assert CANARY not in shown_by(caught.value)
        assert caught.value.__cause__ is None


@pytest.mark.parametrize("key", EVERY_KEY)
def test_a_value_in_a_wrong_variable_is_never_shown(config: ConfigDirectory, key: str) -> None:
    name = f"PALETTE_SYNC_{key.upper().replace('.', '__')}"
    for value in (CANARY, f"[{CANARY}", f'{{"{CANARY[:3]}": "{CANARY}"}}', f'["{CANARY}"]'):
        with pytest.raises(ConfigError) as caught:
            config.load(INSTANCE, **{name: value}, PALETTE_SYNC_UNKNOWN=CANARY)

        assert CANARY not in shown_by(caught.value)


@pytest.mark.parametrize("key", EVERY_KEY)
def test_a_value_in_a_wrong_secret_is_never_shown(config: ConfigDirectory, key: str) -> None:
    config.write(f"secrets/{key.replace('.', '__')}", CANARY)

    with pytest.raises(ConfigError) as caught:
        config.load(INSTANCE + "[service]\ngrace = '1d'", PALETTE_SYNC_SECRETS_DIR=str(config.path / "secrets"))

    assert CANARY not in shown_by(caught.value)


@pytest.mark.parametrize(
    "line",
    [
        f'api_key "{CANARY}"',
        f"api_key = {CANARY}",
        f'api_key = "{CANARY}',
        f'api_key = "{CANARY}" "{CANARY}"',
        f'api_key = "key-a"\napi_key = "{CANARY}"',
        f'api_key = """{CANARY}',
        f"api_key = [{CANARY}",
        f'x = {{ api_key = "{CANARY}", api_key = "{CANARY}" }}',
        f'api_key = "\\q{CANARY}"',
    ],
)
def test_a_value_in_broken_toml_is_never_shown(config: ConfigDirectory, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load(line)

    assert "is not valid TOML" in str(caught.value)
    assert CANARY not in shown_by(caught.value)


def test_no_secret_shows_in_the_settings(config: ConfigDirectory) -> None:
    text = (
        f'[defaults]\napi_key = "{CANARY}-0"\n'
        f'[instances.prod]\nurl = "https://api.example.com"\napi_key = "{CANARY}-1"\n'
        f'http_proxy = "http://user:{CANARY}@proxy.example:3128"\n'
        f'[redis]\nurl = "redis://:{CANARY}@redis:6379/0"\n[seal]\nkeys = "one {CANARY}"\n'
    )

    settings = config.load(text)

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

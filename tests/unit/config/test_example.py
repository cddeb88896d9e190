"""config.example.toml: every key, with its real default."""

from __future__ import annotations

import re
import tomllib

import pytest
from pydantic import BaseModel

from palette_sync.config import Settings, load
from palette_sync.config.settings import DefaultsSettings
from palette_sync.store.seal import SealKeys
from unit.config.configuration import EXAMPLE, FILE_KEYS, SUBTABLES, TABLES, ConfigDirectory, key_of

# Keys without a default that every configuration sets.
REQUIRED = {
    ("instances.prod", "url"),
    ("instances.prod", "api_key"),
    ("instances.prod", "api_key_file"),
    ("seal", "keys"),
    ("seal", "keys_file"),
}
# Commented out although they have a default, because their `<key>_file` may be set instead.
TWINS = {("redis", "url")}
# The example has these keys in [instances.prod] instead, where they are required.
ELSEWHERE = {("defaults", "url"), ("defaults", "api_key")}


def documented() -> dict[tuple[str, str], tuple[bool, str]]:
    """Map every (table, key) of the example to whether it is active, and to the text of its value.

    Where a key is both active and commented out, the comment is an example and the active line counts.
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


@pytest.fixture
def copied(config: ConfigDirectory) -> ConfigDirectory:
    """A copy of the example, with the secrets that it names beside it."""
    config.file.write_text(EXAMPLE.read_text())
    config.write("prod.api-key", "some-key")
    config.write("seal.keys", SealKeys.generate_line())
    return config


def test_a_copy_of_the_example_needs_only_the_two_secrets_that_it_names(copied: ConfigDirectory) -> None:
    settings = load(copied.file, environ={})

    assert list(settings.instances) == ["prod"]
    assert key_of(settings) == "some-key"


def test_every_file_key_of_a_copy_can_be_set(copied: ConfigDirectory) -> None:
    copied.write("redis-url", "rediss://user:word@cache/1")
    copied.write("page-token", "t" * 20)
    text = copied.file.read_text()
    for key, file in (("url_file", "redis-url"), ("token_file", "page-token")):
        text, count = re.subn(rf'(?m)^# {key} = "[^"]*"', f'{key} = "{file}"', text)
        assert count == 1

    settings = copied.load(text)

    assert settings.redis.url.get_secret_value() == "rediss://user:word@cache/1"
    assert settings.http.token is not None


def test_the_key_of_the_example_replaces_its_file_key(copied: ConfigDirectory) -> None:
    text = re.sub(r"(?m)^api_key_file = .*$", "", copied.file.read_text())

    assert key_of(copied.load(re.sub("(?m)^# api_key = ", "api_key = ", text))) == "replace-me"


def test_the_example_has_every_key_and_no_unknown_one() -> None:
    wanted = {
        (table, key)
        for table, model in TABLES.items()
        for key in model.model_fields
        if key not in SUBTABLES and not inherited_by_instance(table, key)
    }

    assert documented().keys() == (wanted - ELSEWHERE) | FILE_KEYS


def test_these_tests_cover_every_table() -> None:
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
def test_a_default_in_the_example_is_the_real_default(table: str, key: str) -> None:
    written = tomllib.loads(EXAMPLE.read_text())
    for part in table.split("."):
        written = written[part]
    model = TABLES[table]

    real = getattr(model(), key)

    assert getattr(model.model_validate({key: written[key]}), key) == real


@pytest.mark.parametrize(
    ("table", "key"),
    [
        pytest.param(table, key, id=f"{table}.{key}")
        for (table, key), (active, _) in documented().items()
        if not active and (table, key) not in FILE_KEYS | REQUIRED
    ],
)
def test_a_key_that_is_commented_out_has_no_default_and_a_valid_example(
    table: str, key: str, copied: ConfigDirectory
) -> None:
    assert (table, key) in TWINS or TABLES[table].model_fields[key].default is None
    before, _, after = EXAMPLE.read_text().partition(f"[{table}]")
    text = before + f"[{table}]" + re.sub(rf"(?m)^# {key} = ", f"{key} = ", after, count=1)

    copied.load(text)

    assert text != EXAMPLE.read_text()


def test_the_rules_that_are_commented_out_are_valid(copied: ConfigDirectory) -> None:
    text = re.sub(r"(?m)^rules = \[\]$", "", EXAMPLE.read_text())
    text = re.sub(r"(?m)^# (rules = \[.*|  \{.*|\])$", r"\1", text)

    settings = copied.load(text).instances["prod"]

    assert [rule.mode for rule in settings.auth.rules] == ["service-account", "oidc", "auto"]
    assert settings.rbac.rules[0].api_groups == ("core", "apps")
    assert settings.trust.rules[0].ca_file == copied.path / "edge-ca.pem", "relative to the file"

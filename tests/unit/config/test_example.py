"""config.example.toml: every key, with its real default."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel

from palette_sync.config import Settings, load
from palette_sync.config.settings import DefaultsSettings
from unit.config.configuration import EXAMPLE, FILE_KEYS, SUBTABLES, TABLES, ConfigDirectory

# Keys without a default that every configuration sets.
REQUIRED = {("instances.prod", "url"), ("instances.prod", "api_key"), ("seal", "keys")}
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


def test_the_example_loads_as_it_stands() -> None:
    settings = load(EXAMPLE, environ={})

    assert list(settings.instances) == ["prod"]


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
    [pytest.param(table, key, id=f"{table}.{key}") for (table, key), (active, _) in documented().items() if not active],
)
def test_a_key_that_is_commented_out_has_no_default_and_a_valid_example(table: str, key: str, tmp_path: Path) -> None:
    model, copy = TABLES[table], tmp_path / "config.toml"
    if (table, key) in FILE_KEYS:
        secret = {
            "api_key_file": "some-key",
            "url_file": "redis://127.0.0.1",
            "keys_file": "k A",
            "token_file": "t" * 20,
        }[key]
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


def test_the_rules_that_are_commented_out_are_valid(config: ConfigDirectory) -> None:
    text = re.sub(r"(?m)^rules = \[\]$", "", EXAMPLE.read_text())
    text = re.sub(r"(?m)^# (rules = \[.*|  \{.*|\])$", r"\1", text)

    settings = config.load(text).instances["prod"]

    assert [rule.mode for rule in settings.auth.rules] == ["service-account", "oidc", "auto"]
    assert settings.rbac.rules[0].api_groups == ("core", "apps")
    assert settings.trust.rules[0].ca_file == config.path / "edge-ca.pem", "relative to the file"

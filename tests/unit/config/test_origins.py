"""Where each value comes from, and what is shown of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from palette_sync.config.effective import MASK, effective, masked_url
from palette_sync.config.loading import load_with_layers
from palette_sync.config.origins import Origins, lines_of
from palette_sync.config.settings import Settings
from unit.growth import growth

if TYPE_CHECKING:
    from unit.config.configuration import ConfigDirectory

TEXT = '''\
seal = "none"  # line 1
[defaults]
title = "all"
api_key_file = "shared.key"
rbac.labels = { "example.com/a" = "b" }

[instances.prod]
url = "https://api.example.com"
include_projects = [
  "title = not a key",
]
[instances.prod.auth]
rules = [{ project = "x", mode = "oidc" }]

[instances."lab"]
url = "https://lab.example.com"
title = """
peek_interval = "not a key either"
"""
api_key = "lab-key-1"

[redis]
url = "redis://user:hush@cache:6379/0"
'''


def origins(config: ConfigDirectory, **environ: str) -> tuple[Settings, Origins]:
    config.write("shared.key", "shared-key-1")
    config.file.write_text(TEXT)
    settings, layers = load_with_layers(config.file, environ=environ)
    return settings, Origins(layers, TEXT)


@pytest.mark.parametrize(
    ("key", "origin"),
    [
        ("seal", "FILE:1"),
        ("instances.prod.url", "FILE:8"),
        ("instances.prod.title", "FILE:3, defaults.title"),
        ("instances.prod.api_key", "FILE:4, defaults.api_key_file, read from FOLDER/shared.key"),
        ("instances.prod.include_projects", "FILE:9"),
        ("instances.prod.auth.rules", "FILE:13"),
        ("instances.prod.auth.mode", "default"),
        ("instances.prod.rbac.labels", "FILE:5, defaults.rbac.labels"),
        ("instances.lab.title", "FILE:17"),
        ("instances.lab.api_key", "FILE:20"),
        ("instances.lab.peek_interval", "variable PALETTE_SYNC_DEFAULTS__PEEK_INTERVAL, defaults.peek_interval"),
        ("redis.prefix", "secret redis__prefix"),
        ("http.listen", "variable PALETTE_SYNC_HTTP__LISTEN"),
        ("service.grace", "default"),
    ],
)
def test_the_origin_of(config: ConfigDirectory, key: str, origin: str) -> None:
    config.write("secrets/redis__prefix", "mine")
    _, found = origins(
        config,
        PALETTE_SYNC_DEFAULTS__PEEK_INTERVAL="1m",
        PALETTE_SYNC_HTTP__LISTEN="127.0.0.1:1",
        PALETTE_SYNC_SECRETS_DIR=str(config.path / "secrets"),
    )

    shown = str(found.of(tuple(key.split("."))))

    assert shown.replace(str(config.file), "FILE").replace(str(config.path), "FOLDER") == origin


def test_a_line_is_where_an_entry_begins_and_not_where_a_text_looks_like_one() -> None:
    text = 'a.b = 1\n[[c]]\nd = 1\n[e]\n"f g" = """\nh = 2\n"""\n[i] # j = 3\n'

    assert lines_of(text) == {("a", "b"): 1, ("e",): 4, ("e", "f g"): 5, ("i",): 8}


@pytest.mark.explore
def test_finding_lines_grows_with_the_length_of_the_file() -> None:
    instance = '[instances.i{}]\nurl = "https://api.example.com"\ninclude_projects = [\n  "a-*",\n  "b-*",\n]\n\n'

    assert growth(lambda number: lines_of("".join(map(instance.format, range(number)))), 100, times=8) < 24


def test_a_statement_of_several_lines_hides_what_looks_like_one() -> None:
    text = "a = [\n  \"b = 1\",\n  # c = 2\n]\n\n# d = 3\ne = '''\n[f]\n'''\n[g.h]\ni = {j = 1, k = [\"l = 1\"]}\n"

    assert lines_of(text) == {("a",): 1, ("e",): 7, ("g", "h"): 10, ("g", "h", "i"): 11}


def test_every_setting_has_a_value_and_no_secret_shows(config: ConfigDirectory) -> None:
    settings, _ = origins(config, PALETTE_SYNC_INSTANCES__PROD__HTTP_PROXY="http://me:hush@proxy:3128")

    shown = {".".join(keys): value for keys, value in effective(settings)}

    assert shown["instances.prod.api_key"] == shown["instances.lab.api_key"] == MASK
    assert shown["redis.url"] == f"redis://{MASK}@cache:6379/0"
    assert shown["instances.prod.http_proxy"] == f"http://{MASK}@proxy:3128"
    assert shown["instances.prod.prune_hold"] == "24h"
    assert shown["instances.prod.auth.rules"] == [{"project": "x", "mode": "oidc"}]
    assert shown["instances.prod.tenant"] is None
    assert shown["seal"] == "none"
    assert not any(secret in str(shown) for secret in ("hush", "shared-key-1", "lab-key-1"))
    assert {key.split(".")[0] for key in shown} == set(Settings.model_fields) - {"defaults"}


def test_a_hold_for_ever_is_never(config: ConfigDirectory) -> None:
    settings, _ = origins(config, PALETTE_SYNC_DEFAULTS__PRUNE_HOLD="never")

    assert dict(effective(settings))["instances", "prod", "prune_hold"] == "never"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://cache:1/0", "redis://cache:1/0"),
        ("redis://:p@ss:word@cache:1/0", f"redis://{MASK}@cache:1/0"),
        ("unix:///run/redis.sock", "unix:///run/redis.sock"),
        ("unix:///run/redis.sock?db=2", "unix:///run/redis.sock?db=2"),
        ("redis://cache:1/0?password=hush", f"redis://cache:1/0?{MASK}"),
        ("redis://cache:1/0?db=1&password=hush", f"redis://cache:1/0?{MASK}"),
    ],
)
def test_a_url_is_shown_without_its_login(url: str, shown: str) -> None:
    assert masked_url(url) == shown

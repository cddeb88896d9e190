"""Where a value comes from: the layers, what instances inherit, and what paths are relative to."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from palette_sync.assembly.files import read_pem
from palette_sync.config import load
from palette_sync.config.settings import DefaultsSettings, SealSettings
from unit.config.configuration import INSTANCE, MINIMAL, ConfigDirectory, key_of

PEM = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


def test_a_minimal_file_has_every_default(config: ConfigDirectory) -> None:
    settings = config.load(MINIMAL)

    assert settings.defaults == DefaultsSettings()
    assert settings.redis.prefix == "palette-sync"
    assert settings.instances["prod"].token.validity == timedelta(hours=24)


def test_secret_files_win_over_the_file_and_variables_over_both(config: ConfigDirectory) -> None:
    config.write("secrets/instances__prod__api_key", "from-directory\n")
    directory = str(config.path / "secrets")

    assert key_of(config.load(MINIMAL)) == "some-key"
    assert key_of(config.load(MINIMAL, PALETTE_SYNC_SECRETS_DIR=directory)) == "from-directory"
    assert (
        key_of(
            config.load(MINIMAL, PALETTE_SYNC_SECRETS_DIR=directory, PALETTE_SYNC_INSTANCES__PROD__API_KEY="variable")
        )
        == "variable"
    )


def test_a_file_key_gives_the_content_of_the_file(config: ConfigDirectory) -> None:
    config.write("api.key", "from-file\n")
    config.write("redis.url", "rediss://:password@redis:6380/1\n")
    config.write("seal.keys", "one AAAA\n")
    text = INSTANCE.replace('api_key = "some-key"', 'api_key_file = "api.key"')

    settings = config.load(text + '[redis]\nurl_file = "redis.url"\n[seal]\nkeys_file = "seal.keys"\n')

    assert key_of(settings) == "from-file"
    assert settings.redis.url.get_secret_value() == "rediss://:password@redis:6380/1"
    assert settings.seal != "none"
    assert settings.seal.keys == SecretStr("one AAAA")


def test_a_byte_order_mark_at_the_beginning_of_a_file_means_nothing(config: ConfigDirectory) -> None:
    """Editors on Windows write one."""
    config.write("api.key", "from-file\n".encode("utf-8-sig"))
    config.write("seal.keys", "one AAAA\n".encode("utf-8-sig"))
    text = INSTANCE.replace('api_key = "some-key"', 'api_key_file = "api.key"')

    settings = load(config.write("config.toml", f'{text}[seal]\nkeys_file = "seal.keys"\n'.encode("utf-8-sig")))

    assert key_of(settings) == "from-file"
    assert settings.seal != "none"
    assert settings.seal.keys == SecretStr("one AAAA")


def test_a_byte_order_mark_does_not_hide_a_certificate(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text(PEM, encoding="utf-8-sig")

    assert read_pem("instances.prod.ca_file", file) == PEM


@pytest.mark.parametrize(
    ("variable", "content", "key"),
    [
        pytest.param(
            "PALETTE_SYNC_INSTANCES__PROD__API_KEY_FILE", "from-file", "from-file", id="a file key replaces a key"
        ),
        pytest.param("PALETTE_SYNC_INSTANCES__PROD__API_KEY", "", "some-key", id="an empty variable is not set"),
    ],
)
def test_a_later_layer_can_replace_a_key_by_a_file_key(
    config: ConfigDirectory, variable: str, content: str, key: str
) -> None:
    path = config.write("elsewhere.key", content)

    assert key_of(config.load(MINIMAL, **{variable: str(path) if content else ""})) == key


def test_a_later_layer_can_replace_a_file_key_by_a_key(config: ConfigDirectory) -> None:
    text = MINIMAL.replace('api_key = "some-key"', 'api_key_file = "there-is-none"')

    assert key_of(config.load(text, PALETTE_SYNC_INSTANCES__PROD__API_KEY="variable")) == "variable"


def test_systemd_credentials_are_read_and_the_secrets_directory_wins(config: ConfigDirectory) -> None:
    config.write("systemd/instances__prod__api_key", "systemd")
    config.write("systemd/redis__prefix", "systemd")
    config.write("ours/instances__prod__api_key", "ours")
    directories = {
        "CREDENTIALS_DIRECTORY": str(config.path / "systemd"),
        "PALETTE_SYNC_SECRETS_DIR": str(config.path / "ours"),
    }

    settings = config.load(MINIMAL, **directories)

    assert (key_of(settings), settings.redis.prefix) == ("ours", "systemd")


def test_other_files_in_a_secrets_directory_are_ignored(config: ConfigDirectory) -> None:
    config.write("secrets/tls.key", "x")
    config.write("secrets/redis", "x")
    config.write("secrets/INSTANCES__PROD__API_KEY", "upper")
    (config.path / "secrets" / "redis__data").mkdir()

    assert key_of(config.load(MINIMAL, PALETTE_SYNC_SECRETS_DIR=str(config.path / "secrets"))) == "upper"


def test_variables_give_lists_and_tables_as_json_and_strings_as_they_are(config: ConfigDirectory) -> None:
    settings = config.load(
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


def test_an_instance_can_come_from_variables_alone(config: ConfigDirectory) -> None:
    settings = config.load(
        MINIMAL,
        PALETTE_SYNC_INSTANCES__EDGE_EU__URL="https://edge.example.com",
        PALETTE_SYNC_INSTANCES__EDGE_EU__API_KEY="edge",
    )

    assert list(settings.instances) == ["prod", "edge_eu"]
    assert key_of(settings, "edge_eu") == "edge"


def test_the_environment_of_the_process_is_the_default(
    config: ConfigDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.file.write_text(MINIMAL)
    for name in ("PALETTE_SYNC_SHARED", "PALETTE_SYNC_REDIS__PREFIX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PALETTE_SYNC_REDIS__PREFIX", "mine")

    assert load(config.file).redis.prefix == "mine"


def test_every_instance_inherits_the_defaults_key_by_key(config: ConfigDirectory) -> None:
    settings = config.load(
        'seal = "none"\n'
        '[defaults]\ntitle = "Ours"\nurl = "https://api.example.com"\nrefresh_interval = "5m"\n'
        '[defaults.rbac]\nnamespace = "portal"\npreset = "view"\n'
        '[instances.a]\napi_key = "key-a"\n'
        '[instances.b]\napi_key = "key-b"\ntitle = "B"\nurl = "https://b.example.com"\n'
        '[instances.b.rbac]\npreset = "read-only"\n'
    )
    a, b = settings.instances["a"], settings.instances["b"]

    assert (a.title, a.url, a.refresh_interval) == ("Ours", "https://api.example.com", timedelta(minutes=5))
    assert (a.rbac.namespace, a.rbac.preset) == ("portal", "view")
    assert (b.title, b.url, b.refresh_interval) == ("B", "https://b.example.com", timedelta(minutes=5))
    assert (b.rbac.namespace, b.rbac.preset) == ("portal", "read-only")


def test_a_variable_for_the_defaults_does_not_change_what_an_instance_sets_itself(config: ConfigDirectory) -> None:
    text = MINIMAL + 'title = "Mine"\n[defaults]\nverify_interval = "2h"\n'

    settings = config.load(text, PALETTE_SYNC_DEFAULTS__VERIFY_INTERVAL="3h", PALETTE_SYNC_DEFAULTS__TITLE="Default")

    assert settings.instances["prod"].verify_interval == timedelta(hours=3)
    assert settings.instances["prod"].title == "Mine"


def test_an_api_key_file_is_inherited_and_an_instances_own_key_replaces_it(config: ConfigDirectory) -> None:
    config.write("shared.key", "shared")
    text = (
        'seal = "none"\n[defaults]\napi_key_file = "shared.key"\n'
        '[instances.a]\nurl = "https://a.example.com"\n'
        '[instances.b]\nurl = "https://b.example.com"\napi_key = "own-key"\n'
    )

    settings = config.load(text)

    assert (key_of(settings, "a"), key_of(settings, "b")) == ("shared", "own-key")


def test_relative_paths_are_relative_to_the_file_not_to_the_working_directory(
    config: ConfigDirectory, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    monkeypatch.setenv("HOME", "/home/somebody")
    config.write("api.key", "some-key")
    text = (
        'seal = "none"\n[instances.prod]\nurl = "https://api.example.com"\n'
        'api_key_file = "api.key"\nca_file = "tls/ca.pem"\n'
        '[redis]\nca_file = "/etc/redis-ca.pem"\nkey_file = "~/redis.key"\n'
    )

    settings = config.load(text)

    assert key_of(settings) == "some-key"
    assert settings.instances["prod"].ca_file == config.path / "tls/ca.pem"
    assert settings.redis.ca_file == Path("/etc/redis-ca.pem")
    assert settings.redis.key_file == Path("/home/somebody/redis.key")

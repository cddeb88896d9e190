"""Secret files that other users of the machine can read are reported, or refused."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from palette_sync.config import ConfigError, load
from palette_sync.config.loading import EXPOSED

if TYPE_CHECKING:
    from collections.abc import Iterator

CONFIG = """
[instances.prod]
url = "https://palette.example"
api_key_file = "prod.api-key"
[redis]
url_file = "redis.url"
key_file = "client.key"
cert_file = "client.crt"
[seal]
keys_file = "seal.keys"
"""
FILES = {
    "prod.api-key": "instances.prod.api_key_file",
    "redis.url": "redis.url_file",
    "client.key": "redis.key_file",
    "seal.keys": "seal.keys_file",
}
CONTENT = {"redis.url": "redis://127.0.0.1:6379/0"}


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user can enter, as /etc is; pytest's own is private."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o755)
        for file in FILES:
            (path / file).write_text(CONTENT.get(file, "some-secret"))
            (path / file).chmod(0o640)
        (path / "config.toml").write_text(CONFIG)
        (path / "config.toml").chmod(0o644)
        yield path


def exposed(folder: Path, **environ: str) -> tuple[str, ...]:
    return load(folder / "config.toml", environ=environ).exposed_secrets


def test_private_files_are_not_reported(folder: Path) -> None:
    assert exposed(folder) == ()


@pytest.mark.parametrize("file", sorted(FILES))
def test_a_secret_file_that_everybody_can_read_is_reported_and_refused_on_demand(folder: Path, file: str) -> None:
    (folder / file).chmod(0o644)
    where = f"{folder / 'config.toml'}: {FILES[file]}"

    assert exposed(folder) == (where,)
    with pytest.raises(ConfigError) as caught:
        exposed(folder, PALETTE_SYNC_SERVICE__STRICT_PERMISSIONS="true")
    assert caught.value.problems == [f"{where}: {EXPOSED}"]


def test_a_folder_that_nobody_else_can_enter_protects_its_files(folder: Path) -> None:
    (folder / "seal.keys").chmod(0o644)
    folder.chmod(0o700)

    assert exposed(folder) == ()


def test_a_file_in_a_secrets_directory_is_looked_at_too(folder: Path) -> None:
    secret = folder / "instances__prod__api_key"
    secret.write_text("another-secret")
    secret.chmod(0o644)

    assert exposed(folder, PALETTE_SYNC_SECRETS_DIR=str(folder)) == ("secret instances__prod__api_key",)


@pytest.mark.parametrize(
    "inline",
    [
        ('api_key_file = "prod.api-key"', 'api_key = "some-secret"'),
        ('keys_file = "seal.keys"', 'keys = "some-secret"'),
        ('url_file = "redis.url"', 'url = "redis://user:some-secret@127.0.0.1:6379/0"'),
        ("[redis]", '[defaults]\napi_key = "some-secret"\n[redis]'),
        ("[redis]", '[http]\ntoken = "some-secret-of-the-page"\n[redis]'),
    ],
    ids=["api key", "seal keys", "redis url", "defaults", "token of the page"],
)
def test_a_configuration_file_that_holds_secrets_must_be_private_itself(folder: Path, inline: tuple[str, str]) -> None:
    config = folder / "config.toml"
    config.write_text(CONFIG.replace(*inline))

    assert exposed(folder) == (f"{config}: holds secrets",)
    config.chmod(0o600)
    assert exposed(folder) == ()

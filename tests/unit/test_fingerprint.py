"""Two processes compare the fingerprints of their configurations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from palette_sync.assembly.fingerprint import fingerprint
from palette_sync.config import load
from palette_sync.store.seal import SealKeys, Unsealed

if TYPE_CHECKING:
    from pathlib import Path

KEYS = SealKeys.from_lines(SealKeys.generate_line("k1"))
TEXT = """seal = "none"
[instances.alpha]
url = "https://palette.example"
api_key = "canary-one"
include_tags = ["a", "b"]
"""


def of(directory: Path, text: str = TEXT, *, sealed: bool = True, **variables: str) -> str:
    config = directory / "config.toml"
    config.write_text(text)
    settings = load(config, environ={f"PALETTE_SYNC_{name}": value for name, value in variables.items()})
    return fingerprint(settings, KEYS if sealed else Unsealed())


def test_the_same_configuration_has_the_same_fingerprint(tmp_path: Path) -> None:
    assert of(tmp_path) == of(tmp_path)


def test_what_a_process_does_changes_it_and_secrets_do_too(tmp_path: Path) -> None:
    texts = [
        TEXT,
        TEXT.replace('"b"', '"c"'),
        TEXT.replace("canary-one", "canary-two"),
        TEXT + '[service]\nlease_ttl = "9s"\n',
        TEXT + '[defaults]\nrefresh_interval = "7m"\n',
    ]
    assert len({of(tmp_path, text) for text in texts}) == len(texts)


def test_the_address_of_a_process_and_its_log_do_not_count(tmp_path: Path) -> None:
    other = of(tmp_path, HTTP__LISTEN="127.0.0.1:9999", SERVICE__LOG_LEVEL="debug", REDIS__URL="redis://b:1")

    assert other == of(tmp_path)


def test_without_seal_keys_secrets_do_not_count(tmp_path: Path) -> None:
    """A hash without a key would let others try API keys."""
    other = TEXT.replace("canary-one", "canary-two")

    assert of(tmp_path, sealed=False) == of(tmp_path, other, sealed=False)
    assert of(tmp_path, sealed=False) != of(tmp_path, TEXT.replace('"b"', '"c"'), sealed=False)

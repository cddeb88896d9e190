"""The form of the log is known even if the rest of the configuration is not valid."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from palette_sync.config.layers import log_format_of

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "environ", "found"),
    [
        pytest.param('[service]\nlog_format = "json"\nspeed = 1\n', {}, "json", id="the file"),
        pytest.param(
            '[service]\nlog_format = "json"\n',
            {"palette_sync_service__log_format": "console"},
            "console",
            id="a variable",
        ),
        pytest.param("[service]\nlog_format = 5\n", {}, "auto", id="no text"),
        pytest.param("service = 5\n", {}, "auto", id="no table"),
        pytest.param("[broken\n", {}, "auto", id="no TOML"),
        pytest.param(None, {}, "auto", id="no file"),
    ],
)
def test_the_form_of_the_log(tmp_path: Path, text: str | None, environ: dict[str, str], found: str) -> None:
    if text is not None:
        (tmp_path / "config.toml").write_text(text)

    assert log_format_of(tmp_path / "config.toml", environ) == found

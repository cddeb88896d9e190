"""The fixture of the tests of the configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from unit.config.configuration import ConfigDirectory


@pytest.fixture
def config(tmp_path: Path) -> ConfigDirectory:
    return ConfigDirectory(tmp_path)

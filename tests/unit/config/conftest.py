"""What every test of the configuration gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from unit.config.configuration import ConfigDirectory


@pytest.fixture
def config(tmp_path: Path) -> ConfigDirectory:
    return ConfigDirectory(tmp_path)

"""Where a command looks when it is not given a place."""

from __future__ import annotations

from pathlib import Path

DEFAULT_CONFIG = Path("/etc/palette-sync/config.toml")

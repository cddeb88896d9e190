"""Where the files of `deploy/` are, and how the tests read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


def documents(path: Path) -> list[Any]:
    """Every document of a YAML file."""
    with path.open(encoding="utf-8") as stream:
        return [one for one in yaml.load_all(stream, yaml.CSafeLoader) if one is not None]

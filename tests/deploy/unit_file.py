"""The systemd unit and its drop-in as keys and values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploy.places import DEPLOY

if TYPE_CHECKING:
    from pathlib import Path

UNIT = DEPLOY / "systemd/palette-sync.service"
DROP_IN = DEPLOY / "systemd/notify-reload.conf"


def section(path: Path, name: str) -> dict[str, str]:
    """A section's keys; those that are given more than once have one value a line."""
    found: dict[str, list[str]] = {}
    current = ""
    for line in path.read_text().splitlines():
        if line.startswith("["):
            current = line.strip("[]")
        elif current == name and line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return {key: "\n".join(values) for key, values in found.items()}

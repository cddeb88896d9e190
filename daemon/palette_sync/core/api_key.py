"""What a Palette API key looks like. One rule for the configuration and for the client. Pure."""

from __future__ import annotations

import re

SHORTEST = 4  # characters; Palette's keys are longer, and a shorter one could not be redacted from foreign text


def api_key_problem(key: str) -> str | None:
    """Why this cannot be an API key, without quoting it; None where it can be one."""
    if not key:
        return "is empty"
    if not re.fullmatch(r"[\x21-\x7e]+", key):
        return "holds characters that no HTTP header can carry"
    if len(key) < SHORTEST:
        return f"is shorter than {SHORTEST} characters, which no API key is"
    return None

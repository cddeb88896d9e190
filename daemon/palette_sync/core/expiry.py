"""When to warn that an API key ends. Pure."""

from __future__ import annotations

from datetime import timedelta

WARN_BEFORE = (timedelta(days=1), timedelta(days=7), timedelta(days=14))


def warning_due(left: timedelta) -> timedelta | None:
    """The closest of the moments before the end at which to warn that has passed; None where the end is far."""
    return next((before for before in WARN_BEFORE if left <= before), None)

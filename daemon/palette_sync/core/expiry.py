"""When to warn that an API key ends. Pure."""

from __future__ import annotations

from datetime import timedelta

WARN_BEFORE = (timedelta(days=1), timedelta(days=7), timedelta(days=14))


def warning_due(left: timedelta) -> timedelta | None:
    """The nearest warning time before the expiry that has passed; None if the expiry is far away."""
    return next((before for before in WARN_BEFORE if left <= before), None)

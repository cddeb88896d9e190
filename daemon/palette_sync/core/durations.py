"""Lengths of time as people read them. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime


def short_duration(seconds: int) -> str:
    """Format seconds in the two largest units: `3d04h`, `2h05m`, `7m03s`, `12s`."""
    for large, small, unit in ((86400, 3600, "dh"), (3600, 60, "hm"), (60, 1, "ms")):
        if seconds >= large:
            return f"{seconds // large}{unit[0]}{seconds % large // small:02}{unit[1]}"
    return f"{seconds}s"


def ago(moment: datetime | None, now: datetime) -> str:
    """How long ago a moment was, without the word; "-" for none."""
    return "-" if moment is None else short_duration(max(0, int((now - moment).total_seconds())))


def until(moment: datetime | None, now: datetime) -> str:
    """`in 5m00s`, or `now` for what is due; "-" for none."""
    if moment is None:
        return "-"
    seconds = int((moment - now).total_seconds())
    return f"in {short_duration(seconds)}" if seconds > 0 else "now"

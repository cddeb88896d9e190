"""Lengths of time as people read and write them. Pure."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

_DAY = 86_400_000  # milliseconds
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


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


def written_duration(span: timedelta) -> str:
    """A duration as the configuration has it: `90s` as `1m30s`, `24h`, `30d`, `250ms`."""
    milliseconds = round(span.total_seconds() * 1000)
    text = ""
    for unit, length in (("d", _DAY), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)):
        if unit == "d" and (milliseconds < 2 * _DAY or milliseconds % _DAY):
            continue  # "24h" and "36h" read better than "1d" and "1d12h"
        number, milliseconds = divmod(milliseconds, length)
        text += f"{number}{unit}" if number else ""
    return text or "0s"


def parse_duration(value: object) -> timedelta:
    """Read a duration as the configuration has it: seconds (90), or text with units ("90s", "1h30m", "250ms").

    Raises ValueError, without the value in its text.
    """
    if isinstance(value, timedelta):
        return value
    seconds = seconds_in(value)
    if seconds is not None:
        # `timedelta` raises for infinity, NaN and what is too long, with a text that quotes the value.
        with suppress(OverflowError, ValueError):
            return timedelta(seconds=seconds)
    raise ValueError('is not a duration; write for example "90s", "10m" or "1h"')


def seconds_in(value: object) -> float | None:
    """The seconds of a number, or of a text with units; None for everything else."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    if isinstance(value, str):
        text = value.strip().replace(" ", "")
        if re.fullmatch("[0-9]+", text):
            return float(text)
        if text and _DURATION.sub("", text) == "":
            return sum(float(n) * _UNITS[unit] for n, unit in _DURATION.findall(text))
    return None


def time_for_people(moment: datetime) -> str:
    """Write a time as `2026-01-31 09:30:00 UTC`."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"

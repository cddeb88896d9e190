"""Cron expressions of five fields, in UTC, with the rules of Debian's cron(8).

The library cronsim knows these rules: 0 and 7 are Sunday; where both the day and the weekday are restricted, either is
enough; where one of the two begins with a star, both must match. It also accepts `L` (the last day of the month), `LW`
and `MON#2`, which cron does not know. This module adds the limit of five fields: cronsim would read a sixth as seconds.
"""

from __future__ import annotations

from datetime import UTC, datetime

from cronsim import CronSim, CronSimError

FIELDS = 5  # minute, hour, day of the month, month, weekday
_ANY_MOMENT = datetime(2000, 1, 1, tzinfo=UTC)


def check_cron(expression: str) -> None:
    """Raises ValueError if the expression is malformed, or names a day that no month has."""
    _read(expression, _ANY_MOMENT)


def next_run(expression: str, after: datetime) -> datetime | None:
    """The first moment after `after` that the expression names; None if there is none within 50 years.

    Raises ValueError as `check_cron` does.
    """
    return next(_read(expression, after), None)


def _read(expression: str, after: datetime) -> CronSim:
    if len(expression.split()) != FIELDS:
        raise ValueError(f"a cron expression has {FIELDS} fields")
    try:
        return CronSim(expression, after.astimezone(UTC))
    except CronSimError as error:
        raise ValueError(str(error)) from None

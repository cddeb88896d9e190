"""Cron expressions mean what they mean to cron, whatever the library behind them does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from palette_sync.core.cron import check_cron, next_run

WEDNESDAY = datetime(2026, 11, 25, tzinfo=UTC)


@pytest.mark.parametrize(
    ("expression", "days"),
    [
        pytest.param("0 6 * * 0", "29", id="0 is Sunday"),
        pytest.param("0 6 * * 7", "29", id="7 is Sunday too"),
        pytest.param("0 6 * * 1-5", "25 26 27 30", id="working days by number"),
        pytest.param("0 6 * * MON-FRI", "25 26 27 30", id="working days by name"),
        pytest.param("0 6 * * mon-fri", "25 26 27 30", id="names in lower case"),
        pytest.param("0 6 * * 5-7", "27 28 29", id="a range that ends on Sunday"),
        pytest.param("0 6 * * 1,3", "25 30", id="two weekdays"),
        pytest.param("0 6 * * */2", "26 28 29", id="every second weekday from Sunday"),
        pytest.param("0 6 * * 2/2", "26 28", id="every second weekday from Tuesday"),
        pytest.param("0 6 27 * 1", "27 30", id="day and weekday: either is enough"),
        pytest.param("0 6 */2 * 1", "", id="a day with a star and a weekday: both must match"),
        pytest.param("0 6 * * *", "25 26 27 28 29 30", id="every day"),
        pytest.param("0 6 L * *", "30", id="the last day of the month"),
    ],
)
def test_days_and_weekdays(expression: str, days: str) -> None:
    found, at = [], WEDNESDAY
    while (run := next_run(expression, at)) is not None and run.month == WEDNESDAY.month:
        found.append(str(run.day))
        at = run

    assert " ".join(found) == days


def test_the_next_run_is_later_than_the_given_moment_and_in_utc() -> None:
    at_six = WEDNESDAY.replace(hour=6)
    berlin = timezone(timedelta(hours=1))

    assert next_run("0 6 * * *", at_six) == at_six + timedelta(days=1)
    assert next_run("0 6 * * *", at_six - timedelta(microseconds=1)) == at_six
    assert next_run("0 6 * * *", datetime(2026, 11, 25, 6, 30, tzinfo=berlin)) == at_six


def test_an_expression_may_be_well_formed_and_still_name_no_moment() -> None:
    assert next_run("0 0 */30 2 MON#5", WEDNESDAY) is None, "the 1st of February is never a fifth Monday"


@pytest.mark.parametrize(
    "expression",
    [
        pytest.param("* * * *", id="four fields"),
        pytest.param("0 * * * * *", id="six fields: cronsim would read seconds"),
        pytest.param("61 * * * *", id="no such minute"),
        pytest.param("0 0 30 2 *", id="no such day in any year"),
        *(f"0 6 * * {weekday}" for weekday in ("8", "5-2", "*-3", "xyz", "1,", "*/0", "1--2", "1-", "mon-xyz")),
    ],
)
def test_a_malformed_expression_is_refused(expression: str) -> None:
    with pytest.raises(ValueError, match=r"fields|Bad (minute|day-of-(week|month))"):
        check_cron(expression)

"""Moments as people read them, relative to now."""

from __future__ import annotations

from datetime import datetime, timezone

from builders import HOUR, MINUTE, NOW
from palette_sync.core.durations import ago, time_for_people, until


def test_a_moment_is_shown_by_its_distance() -> None:
    assert (ago(NOW - HOUR, NOW), until(NOW + 5 * MINUTE, NOW)) == ("1h00m", "in 5m00s")


def test_a_past_moment_is_due_and_a_future_one_was_just_now() -> None:
    assert (until(NOW - HOUR, NOW), ago(NOW + HOUR, NOW)) == ("now", "0s")


def test_a_time_for_people_is_utc_and_has_no_letters_between_day_and_hour() -> None:
    assert time_for_people(datetime(2026, 1, 31, 10, 30, tzinfo=timezone(HOUR))) == "2026-01-31 09:30:00 UTC"


def test_no_moment_is_a_dash() -> None:
    assert (ago(None, NOW), until(None, NOW)) == ("-", "-")

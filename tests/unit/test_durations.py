"""Moments as people read them, relative to now."""

from __future__ import annotations

from builders import HOUR, MINUTE, NOW
from palette_sync.core.durations import ago, until


def test_a_moment_is_shown_by_its_distance() -> None:
    assert (ago(NOW - HOUR, NOW), until(NOW + 5 * MINUTE, NOW)) == ("1h00m", "in 5m00s")


def test_a_past_moment_is_due_and_a_future_one_was_just_now() -> None:
    assert (until(NOW - HOUR, NOW), ago(NOW + HOUR, NOW)) == ("now", "0s")


def test_no_moment_is_a_dash() -> None:
    assert (ago(None, NOW), until(None, NOW)) == ("-", "-")

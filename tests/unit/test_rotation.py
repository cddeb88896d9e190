"""Renewals, retries and verifications are spread by hashes, and never come later than documented."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palette_sync.core.model import ClusterKey
from palette_sync.core.reasons import Reason
from palette_sync.core.rotation import (
    CLOCK_TOLERANCE,
    FIRST_BACKOFF,
    LONGEST_BACKOFF,
    SETTLED,
    backoff,
    longest_backoff,
    renew_at,
    rotate_at,
    spread,
    token_due,
    verify_due,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
KEY = ClusterKey("prod", "a1")
HOUR = timedelta(hours=1)

keys = st.builds(ClusterKey, st.just("prod"), st.text("0123456789abcdef", min_size=1, max_size=24))
moments = st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
lives = st.timedeltas(timedelta(seconds=3), timedelta(days=400))


@given(keys, moments, lives)
def test_a_token_is_renewed_on_a_whole_second_between_one_and_two_thirds_of_its_life(
    key: ClusterKey, issued: datetime, life: timedelta
) -> None:
    due = renew_at(key, issued_at=issued, expires_at=issued + life)

    assert issued + life / 3 <= due <= issued + life * 2 / 3
    assert due.microsecond == 0


@given(keys, moments, st.timedeltas(timedelta(0), timedelta(seconds=3)))
def test_even_a_token_that_lives_no_time_is_not_renewed_after_two_thirds_of_it(
    key: ClusterKey, issued: datetime, life: timedelta
) -> None:
    assert renew_at(key, issued_at=issued, expires_at=issued + life) <= issued + life * 2 / 3


@given(keys, moments, lives)
def test_a_secret_generation_ends_in_the_last_third_of_the_rotation_interval(
    key: ClusterKey, issued: datetime, every: timedelta
) -> None:
    due = rotate_at(key, issued_at=issued, rotate_every=every)

    assert issued + every * 2 / 3 <= due <= issued + every


def test_the_renewal_time_is_the_same_after_a_restart_and_differs_for_the_next_token() -> None:
    first = renew_at(KEY, issued_at=NOW, expires_at=NOW + 24 * HOUR)
    later = NOW + timedelta(seconds=1)

    assert first == renew_at(KEY, issued_at=NOW, expires_at=NOW + 24 * HOUR)
    assert first - NOW != renew_at(KEY, issued_at=later, expires_at=later + 24 * HOUR) - later


def test_tokens_issued_together_do_not_renew_together() -> None:
    clusters = [ClusterKey("prod", f"{number:04}") for number in range(800)]
    hours = [(renew_at(key, issued_at=NOW, expires_at=NOW + 24 * HOUR) - NOW) // HOUR for key in clusters]

    assert sorted(set(hours)) == list(range(8, 16))
    assert max(hours.count(hour) for hour in set(hours)) < 150


def test_the_spread_depends_on_all_of_its_parts_and_stays_below_one() -> None:
    values = {spread("a", "b"), spread("a", "c"), spread("b", "b"), spread(KEY, 1), spread(KEY, 2)}

    assert len(values) == 5
    assert all(0 <= value < 1 for value in values)


@pytest.mark.parametrize(
    ("issued", "renew", "expected"),
    [
        pytest.param(NOW - HOUR, NOW, True, id="due at its renewal time"),
        pytest.param(NOW - HOUR, NOW + timedelta(seconds=1), False, id="not due a second before"),
        pytest.param(NOW + CLOCK_TOLERANCE, NOW + HOUR, False, id="a little clock skew is no leap"),
        pytest.param(
            NOW + CLOCK_TOLERANCE + timedelta(seconds=1), NOW + HOUR, True, id="issued in the future shows a leap"
        ),
    ],
)
def test_a_token_is_due_at_its_renewal_time_or_after_a_clock_leap(
    issued: datetime, renew: datetime, *, expected: bool
) -> None:
    assert token_due(issued_at=issued, renew_at=renew, now=NOW) is expected


def test_a_cluster_that_was_never_verified_is_due() -> None:
    assert verify_due(KEY, None, NOW, HOUR)


def test_a_verification_in_the_future_is_due() -> None:
    assert verify_due(KEY, NOW + CLOCK_TOLERANCE + timedelta(seconds=1), NOW, HOUR)
    assert not verify_due(KEY, NOW, NOW, HOUR)


@given(keys, moments)
def test_a_cluster_is_verified_once_in_each_interval(key: ClusterKey, at: datetime) -> None:
    assert verify_due(key, at, at + HOUR, HOUR)
    due = [minute for minute in range(61) if verify_due(key, at, at + timedelta(minutes=minute), HOUR)]
    assert due == list(range(due[0], 61))
    turned = at + timedelta(minutes=due[0])
    assert not verify_due(key, turned, turned + timedelta(minutes=58), HOUR)


def test_clusters_that_were_verified_together_are_next_verified_at_different_times() -> None:
    clusters = [ClusterKey("prod", f"{number:04}") for number in range(600)]
    soon = sum(verify_due(key, NOW, NOW + timedelta(minutes=6), HOUR) for key in clusters)

    assert 30 < soon < 90  # a tenth of the interval, about a tenth of the clusters


def test_the_backoff_doubles_up_to_its_limit_and_no_cluster_waits_less_than_three_quarters_of_it() -> None:
    for failures in range(1, 60):
        full = min(FIRST_BACKOFF * 2 ** min(failures - 1, 20), LONGEST_BACKOFF)
        pause = backoff(failures, KEY)
        assert full * 0.75 - timedelta(seconds=1) <= pause <= full
        assert pause.microseconds == 0
    assert len({backoff(3, ClusterKey("prod", str(number))) for number in range(50)}) > 10


@given(keys, st.integers(1, 1000), st.sampled_from(sorted(SETTLED)))
def test_what_only_a_change_can_end_is_looked_at_every_few_hours(key: ClusterKey, failures: int, why: Reason) -> None:
    assert 4 * HOUR < backoff(failures, key, why) <= longest_backoff(why) == 6 * HOUR


def test_what_may_pass_by_itself_is_tried_sooner() -> None:
    assert backoff(100, KEY, Reason.UNREACHABLE) <= longest_backoff(Reason.UNREACHABLE) == LONGEST_BACKOFF


def test_a_generation_is_not_due_within_the_overlap_in_which_none_can_be_made() -> None:
    due = rotate_at(KEY, issued_at=NOW, rotate_every=HOUR, overlap=timedelta(minutes=59))

    assert NOW + timedelta(minutes=59) <= due <= NOW + HOUR

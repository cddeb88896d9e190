"""The arithmetic of the benchmark: verdicts, floors, and how evenly renewals are spread."""

from __future__ import annotations

from datetime import timedelta

import pytest

from bench.figure import Panel, draw
from bench.probe import PERIOD, percentile, summary
from bench.rotation import renewals, spread_row
from bench.rows import Row, limits_floor, pages, serial_floor, shown


@pytest.mark.parametrize(
    ("row", "verdict", "ok"),
    [
        (Row("a", 2.0, "s", 3.0), "met", True),
        (Row("a", 3.0, "s", 3.0), "met", True),
        (Row("a", 4.5, "s", 3.0), "missed by 1.50 s (50 %)", False),
        (Row("a", 2.0, "x", 1.5, floor=1.56), "missed by 0.50 x (33 %); floor 1.56 x", False),
        (Row("a", 2.0, "", 0.0), "missed by 2", False),
        (Row("a", 0.0, "", 0.0), "met", True),
        (Row("a", None, "", 0.0, note="no Node"), "not measured", None),
    ],
)
def test_a_verdict_gives_the_difference_to_the_budget_and_the_floor(row: Row, verdict: str, ok: object) -> None:
    assert row.verdict == verdict
    assert row.ok is ok
    assert row.document()["ok"] is ok


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(1234.5, "B", "1,234 B"), (12.345, "s", "12.3 s"), (1.2345, "x", "1.23 x"), (0, "", "0"), (43.0, "", "43")],
)
def test_figures_are_shown_with_three_digits(value: float, unit: str, text: str) -> None:
    assert shown(value, unit) == text


def test_the_serial_floor_is_calls_times_latency_divided_by_concurrency() -> None:
    assert serial_floor(13_000, latency=0.05, concurrency=32) == pytest.approx(20.3125)


@pytest.mark.parametrize(("requests", "seconds"), [(0, 0), (50, 0), (51, 0.1), (1000, 95)])
def test_the_limits_floor_counts_requests_beyond_the_burst(requests: int, seconds: float) -> None:
    assert limits_floor(requests, per_second=10, burst=50) == pytest.approx(seconds)


@pytest.mark.parametrize(("rows", "number"), [(0, 1), (1, 1), (50, 1), (51, 2), (10_000, 200)])
def test_an_empty_listing_is_one_page(rows: int, number: int) -> None:
    assert pages(rows) == number


def test_a_long_lag_is_weighted_by_its_duration() -> None:
    quiet = [0.0] * 99

    assert percentile([*quiet, 1.0], 0.5) == 1.0
    assert percentile([0.0] * 100, 0.99) == 0.0
    assert percentile([], 0.99) == 0.0


def test_only_samples_within_the_measured_span_count() -> None:
    samples = [[1.0, 0.5, 0.4], [2.0, PERIOD, 0.0], [3.0, 0.7, 0.6]]

    found = summary(samples, 1.5, 2.5)

    assert found["lag_max"] == pytest.approx(PERIOD * 1000)
    assert found["own_max"] == 0.0


def test_tokens_are_renewed_as_often_as_their_lifetime_requires() -> None:
    found = renewals(500, validity=timedelta(hours=24), during=timedelta(hours=48))

    # Each token is renewed after 8 to 16 hours, so two to five times in 48 hours.
    assert 2 * 500 <= sum(found.values()) <= 5 * 500


def test_the_renewals_of_ten_thousand_clusters_are_spread() -> None:
    row = spread_row()

    assert row.ok
    assert row.value is not None
    assert row.value > 1


def test_the_figure_draws_every_size_within_its_panel() -> None:
    sizes = (1000, 10_000)
    facts = {"cold_by_size": {str(size): {"cpu_s": size / 200} for size in sizes}} | {
        f"quiet_{size}": {"clusters": size, "cpu_ms": size / 12, "rss_mb": 120 + size / 80} for size in sizes
    }

    drawn = draw(facts)

    assert drawn.count("<circle") == 3 * len(sizes)
    assert "prefers-color-scheme: dark" in drawn


@pytest.mark.parametrize(("largest", "top"), [(64.6, 80), (245, 250), (0.9, 1), (811, 1000), (10, 10)])
def test_a_scale_ends_with_a_round_number(largest: float, top: float) -> None:
    assert Panel("a", "s", [(1000, largest)]).top == pytest.approx(top)

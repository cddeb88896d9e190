"""How evenly tokens that were issued together are renewed later. Pure: simulates two days without waiting."""

from __future__ import annotations

import heapq
from collections import Counter
from datetime import UTC, datetime, timedelta

from bench.rows import Row
from palette_sync.core.due import RENEW_AHEAD
from palette_sync.core.model import ClusterKey
from palette_sync.core.rotation import renew_at

START = datetime(2026, 3, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def renewals(clusters: int, *, validity: timedelta, during: timedelta) -> Counter[int]:
    """Count renewals by minute, after all tokens were issued within one hour. A pass also renews what is due soon."""
    queue: list[tuple[datetime, int]] = []
    for number in range(clusters):
        issued = START - timedelta(hours=1) * (number / clusters)
        queue.append((_renewal(number, issued, validity), number))
    heapq.heapify(queue)
    found: Counter[int] = Counter()
    while queue[0][0] < START + during:
        now = queue[0][0]
        while queue[0][0] <= now + min(RENEW_AHEAD, validity / 12):
            _, number = queue[0]
            found[int((now - START) / MINUTE)] += 1
            heapq.heapreplace(queue, (_renewal(number, now, validity), number))
    return found


def _renewal(number: int, issued: datetime, validity: timedelta) -> datetime:
    issued = issued.replace(microsecond=0)
    return renew_at(ClusterKey("bench", f"{number:024x}"), issued_at=issued, expires_at=issued + validity)


def spread_row(clusters: int = 10_000) -> Row:
    """The busiest minute against the mean, from the first renewal on."""
    validity, during = timedelta(hours=24), timedelta(hours=48)
    found = renewals(clusters, validity=validity, during=during)
    first, last = min(found), int(during / MINUTE)
    mean = sum(found.values()) / (last - first)
    return Row(
        f"token rotation of {clusters:,} clusters at 24 h validity: busiest minute",
        max(found.values()) / mean,
        "x mean",
        3.0,
        floor=1.0,
        note=f"48 h simulated: {sum(found.values()):,} renewals, {mean:.1f} a minute on average",
    )

"""Palette's documented rate limits: token buckets per endpoint prefix, shared by all callers.

Palette counts per source IP; on loopback there is only one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_BURST_FACTOR = 5
_RATES = (
    (re.compile(r"/v1/spectroclusters/[^/]+/(assets|download)(/|$)"), 10.0),
    (re.compile(r"/v1/spectroclusters(/|$)"), 50.0),
    (re.compile(r"/v1/events/components(/|$)"), 50.0),
    (re.compile(r"/v1/(cloudconfigs|clusterprofiles)(/|$)"), 50.0),
    (re.compile(r"/v1/auth/user/password/reset(/|$)"), 2.0),
    (re.compile(r"/v1/[^/]+"), 10.0),
)


@dataclass(slots=True)
class _Bucket:
    rate: float
    tokens: float
    filled_at: float

    def take(self, now: float) -> bool:
        capacity = self.rate * _BURST_FACTOR
        self.tokens = min(capacity, self.tokens + (now - self.filled_at) * self.rate)
        self.filled_at = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


class RateLimiter:
    """`clock` returns monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}

    def admit(self, path: str) -> bool:
        """Return whether a request for `path` is within the limits, and count it if it is."""
        prefix, rate = _prefix(path)
        now = self._clock()
        bucket = self._buckets.get(prefix)
        if bucket is None:
            bucket = self._buckets[prefix] = _Bucket(rate, rate * _BURST_FACTOR, now)
        return bucket.take(now)


def _prefix(path: str) -> tuple[str, float]:
    """Return the name of the bucket for `path`, and its requests per second."""
    for pattern, rate in _RATES:
        match = pattern.match(path)
        if match is not None:
            kind = match.groups()[0] if "assets" in pattern.pattern else ""
            name = f"/v1/spectroclusters/:uid/{kind}" if kind else match.group(0).rstrip("/")
            return name, rate
    return "", 10.0

"""Palette's rate limits, kept on the client's side: token buckets per documented endpoint prefix, for each host.

Palette counts per source IP (API introduction in its documentation), so all instances on one host share its buckets.
Requests of other tools behind the same address are not visible here; they lead to 429s, which the client retries.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiolimiter import AsyncLimiter

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Rate:
    """The rate of one endpoint prefix. `pattern` matches the start of a path; the match without uids names the bucket.

    `burst` requests may be sent at once after an idle time, and `per_second` in the long run.
    """

    pattern: str
    per_second: float
    burst: int


# The first match counts. Every prefix that is not listed has its own bucket at the default rate.
DOCUMENTED_RATES = (
    Rate(r"/v1/spectroclusters/(?P<uid>[^/]+)/(?:assets|download)(?=/|$)", 10, 50),
    Rate(r"/v1/spectroclusters/(?P<uid>[^/]+)/profiles(?=/|$)", 50, 250),
    Rate(r"/v1/(?:spectroclusters|cloudconfigs|clusterprofiles|events/components)(?=/|$)", 50, 250),
    Rate(r"/v1/auth/user/password/reset(?=/|$)", 2, 10),
    Rate(r"/v1/[^/]+", 10, 50),
    Rate(r"", 10, 50),
)


class _Bucket:
    """One bucket that serves its waiters first come, first served.

    AsyncLimiter alone is not fair: a new caller may take the slot for which a waiter was just woken, and that waiter
    queues at the end again. So only one caller waits inside the limiter; the others wait for the lock, which asyncio
    grants in order.
    """

    __slots__ = ("_limiter", "_turn")

    def __init__(self, rate: Rate) -> None:
        self._limiter = AsyncLimiter(rate.burst, rate.burst / rate.per_second)
        self._turn = asyncio.Lock()

    async def acquire(self) -> None:
        async with self._turn:
            await self._limiter.acquire()


class HostLimits:
    """The buckets of one Palette host. Belongs to one event loop."""

    def __init__(self, rates: Sequence[Rate] = DOCUMENTED_RATES, *, enabled: bool = True) -> None:
        self._rates = [(re.compile(rate.pattern), rate) for rate in rates]
        self._buckets: dict[str, _Bucket] = {}
        self._enabled = enabled

    async def acquire(self, path: str) -> None:
        """Wait until a request for `path` (without query) is within the limits, and count it."""
        if not self._enabled:
            return
        found = self.rate_of(path)
        if found is None:
            return
        name, rate = found
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets[name] = _Bucket(rate)
        await bucket.acquire()

    def rate_of(self, path: str) -> tuple[str, Rate] | None:
        """Return the name and the rate of the bucket for `path`; None if its rate is not limited."""
        for pattern, rate in self._rates:
            match = pattern.match(path)
            if match is None:
                continue
            name = match.group(0)
            if "uid" in pattern.groupindex:
                start, end = match.span("uid")
                name = name[:start] + ":uid" + name[end:]
            return name, rate
        return None


class Limits:
    """The limits of all Palette hosts of one process. Belongs to one event loop."""

    def __init__(self, *, enabled: bool = True, rates: Sequence[Rate] = DOCUMENTED_RATES) -> None:
        self._enabled = enabled
        self._rates = tuple(rates)
        self._hosts: dict[str, HostLimits] = {}

    def of(self, host: str) -> HostLimits:
        """Return the limits of `host` (name and port), the same object for every caller."""
        key = host.lower()
        if key not in self._hosts:
            self._hosts[key] = HostLimits(self._rates, enabled=self._enabled)
        return self._hosts[key]

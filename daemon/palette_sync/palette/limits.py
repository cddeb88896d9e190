"""Palette's rate limits, kept on our side: token buckets per documented endpoint prefix, for each Palette host.

The limits count per source IP (API introduction in Palette's documentation), so all instances of the process that talk
to one host share its buckets. Other tools behind the same address are not seen; what they use up shows as 429, which
the client bears.
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
    """`pattern` is matched at the start of a path; the part it matches, uids apart, names the bucket.

    `burst` requests may be made at once after a rest, `per_second` in the long run.
    """

    pattern: str
    per_second: float
    burst: int


# First match wins. A prefix that is not listed by name has a bucket of its own at the common rate.
DOCUMENTED_RATES = (
    Rate(r"/v1/spectroclusters/(?P<uid>[^/]+)/(?:assets|download)(?=/|$)", 10, 50),
    Rate(r"/v1/spectroclusters/(?P<uid>[^/]+)/profiles(?=/|$)", 50, 250),
    Rate(r"/v1/(?:spectroclusters|cloudconfigs|clusterprofiles|events/components)(?=/|$)", 50, 250),
    Rate(r"/v1/auth/user/password/reset(?=/|$)", 2, 10),
    Rate(r"/v1/[^/]+", 10, 50),
    Rate(r"", 10, 50),
)


class _Bucket:
    """One bucket whose waiters are served in the order in which they came.

    AsyncLimiter alone is not fair: a newcomer may take what a woken waiter was promised, and that waiter then queues
    at the end. So only one waits inside the limiter, and the others for the lock, which asyncio hands on in order.
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
        """Wait until a request for `path` (without query) is within the limits; it counts from then on."""
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
        """The name of the bucket that `path` counts against, and its rate; None where nothing limits it."""
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
        """The limits of `host` (name and port), the same object for every caller."""
        key = host.lower()
        if key not in self._hosts:
            self._hosts[key] = HostLimits(self._rates, enabled=self._enabled)
        return self._hosts[key]

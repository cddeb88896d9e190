"""When a token is renewed, a failure retried and a healthy cluster verified again. Pure: time is an argument.

What looks random is a hash: it stays the same after a restart, and it spreads clusters that were set up together.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from palette_sync.core.reasons import Reason

if TYPE_CHECKING:
    from palette_sync.core.model import ClusterKey, ClusterMemory

FIRST_BACKOFF = timedelta(seconds=30)
LONGEST_BACKOFF = timedelta(minutes=30)
SETTLED_BACKOFF = timedelta(hours=6)
CLOCK_TOLERANCE = timedelta(minutes=5)
# Failures that only a change of the cluster or of the configuration ends. Trying soon again would find the same.
SETTLED = frozenset(
    {
        Reason.EXEC_REFUSED,
        Reason.AUTH_PROVIDER_REFUSED,
        Reason.NEEDS_AWS_CREDENTIALS,
        Reason.NEEDS_GOOGLE_CREDENTIALS,
        Reason.NEEDS_AZURE_CREDENTIALS,
        Reason.CLOUD_SERVER_REFUSED,
    }
)


def spread(*words: object) -> float:
    """A number in [0, 1) that depends only on the words."""
    text = "|".join(map(str, words)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8]) / 2**64


def renew_at(key: ClusterKey, *, issued_at: datetime, expires_at: datetime) -> datetime:
    """Place the renewal between 1/3 and 2/3 of the granted life, which may be shorter than the requested one."""
    life = expires_at - issued_at
    return _place(key, issued_at, issued_at + life / 3, issued_at + life * 2 / 3)


def rotate_at(
    key: ClusterKey, *, issued_at: datetime, rotate_every: timedelta, overlap: timedelta = timedelta(0)
) -> datetime:
    """Place the end of a Secret generation between 2/3 of `rotate_every` and all of it, never within the overlap."""
    first = max(rotate_every * 2 / 3, min(overlap, rotate_every))
    return _place(key, issued_at, issued_at + first, issued_at + rotate_every)


def token_due(*, issued_at: datetime, renew_at: datetime, now: datetime) -> bool:
    """Whether a token is renewed now. An issue time in the future means that a clock jumped: renew, do not wait."""
    return now >= renew_at or issued_at > now + CLOCK_TOLERANCE


def verify_due(key: ClusterKey, verified_at: datetime | None, now: datetime, interval: timedelta) -> bool:
    """Whether the verification interval has passed since `verified_at`.

    Each cluster has its own phase, so that clusters that were verified together drift apart.
    """
    if verified_at is None or verified_at > now + CLOCK_TOLERANCE:
        return True
    phase = interval * spread(key, "verify")
    return _slot(now, phase, interval) > _slot(verified_at, phase, interval)


def backoff(failures: int, key: ClusterKey, reason: Reason | None = None) -> timedelta:
    """The pause after `failures` failures in a row: 30 s doubling to 30 min, each up to a quarter shorter by hash.

    After a failure in `SETTLED` it is 6 hours from the first time.
    """
    doubled = FIRST_BACKOFF * 2 ** min(failures - 1, 16)
    longest = SETTLED_BACKOFF if reason in SETTLED else min(doubled, LONGEST_BACKOFF)
    pause = longest * (1 - spread(key, failures, "backoff") / 4)
    return timedelta(seconds=int(pause.total_seconds()))


def longest_backoff(reason: Reason | None) -> timedelta:
    """The longest pause after a failure with this reason."""
    return SETTLED_BACKOFF if reason in SETTLED else LONGEST_BACKOFF


def rests(memory: ClusterMemory, now: datetime, reason: Reason | None) -> bool:
    """Whether the pause after the last failure is not over yet. `reason` is that of the failure."""
    if memory.failures == 0 or memory.retry_at is None:
        return False
    # An end beyond any possible backoff means that the clock jumped: retry now.
    return now < memory.retry_at <= now + longest_backoff(reason) + CLOCK_TOLERANCE


def next_verification(key: ClusterKey, verified_at: datetime | None, interval: timedelta) -> datetime | None:
    """When `verify_due` becomes true; None if it is true already."""
    if verified_at is None:
        return None
    phase = interval * spread(key, "verify")
    return _EPOCH + phase + (_slot(verified_at, phase, interval) + 1) * interval


def _slot(moment: datetime, phase: timedelta, interval: timedelta) -> int:
    return (moment - _EPOCH - phase) // interval


_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)


def _place(key: ClusterKey, issued_at: datetime, first: datetime, last: datetime) -> datetime:
    """A whole second (the value is stored and compared) between `first` and `last`, never after `last`."""
    seconds = (last - first) * spread(key, issued_at.isoformat())
    placed = (first + seconds).replace(microsecond=0)
    if placed < first and placed + _SECOND <= last:
        return placed + _SECOND
    return placed

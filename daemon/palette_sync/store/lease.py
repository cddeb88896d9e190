"""Who may write an instance: a lease in Redis that is renewed while its holder lives, and an epoch that never repeats.

The lease keeps two daemons from working on the same clusters at once. The epoch keeps a daemon that lost its lease
without noticing from publishing. Only the epoch is a guarantee.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self

import structlog

from palette_sync.core.documents import DocumentError, decode_object, encode_document, format_time
from palette_sync.core.snapshot_codec import HEAD_FIELDS, head_from_fields, text_of_version
from palette_sync.store.connect import milliseconds
from palette_sync.store.errors import LeaseHeld, LeaseLost, StoreError, StoreUnavailable
from palette_sync.store.scripts import Script

if TYPE_CHECKING:
    from types import TracebackType

    from palette_sync.store.connect import Link
    from palette_sync.store.keys import Keys
    from palette_sync.store.seal import Sealer

log = structlog.get_logger(__name__)

EPOCH_AHEAD_MS = 24 * 3600 * 1000
RENEWALS = 3  # per time to live
RETRY = 0.2  # of the time between two renewals, after a failed one

_ACQUIRE_SCRIPT = Script.load("lease_acquire.lua")
_RENEW_SCRIPT = Script.load("lease_renew.lua")
_RELEASE_SCRIPT = Script.load("lease_release.lua")


class Lease:
    """A lease that was acquired. `async with` renews it; `lost` is set once another process may hold it.

    `value` is what stands in Redis while this lease holds, and `epoch` the number under which its holder may write.
    """

    def __init__(
        self, link: Link, keys: Keys, instance: str, *, value: bytes, ttl: float, epoch: int, expires: float
    ) -> None:
        self.value = value
        self.epoch = epoch
        self.lost = asyncio.Event()
        self._why_lost = "it is not renewed any more"
        self._link = link
        self._keys = keys
        self._instance = instance
        self._ttl = ttl
        self._expires = expires  # on the monotonic clock
        self._renewal_failed = False
        self._task: asyncio.Task[None] | None = None

    @classmethod
    async def acquire(
        cls,
        link: Link,
        keys: Keys,
        instance: str,
        *,
        ttl: float,
        holder: str,
        former: Lease | None = None,
        sealer: Sealer | None = None,
    ) -> Lease:
        """Take the lease for `ttl` seconds. `holder`, as `host:pid`, is reported to other processes that ask for it.

        `former` is a lease that this process held before: it is replaced even if it has not expired. `sealer` tells an
        authentic head from a forged one; without it, no epoch far ahead of the server's time counts.

        Raises LeaseHeld, StoreUnavailable, StoreError.
        """
        since = format_time(datetime.now(UTC))
        value = encode_document("lease", {"holder": holder, "id": secrets.token_hex(8), "since": since})
        names = [keys.lease(instance), keys.epoch(instance), keys.head(instance)]
        published = await _authentic_epoch(link, keys, instance, sealer) if sealer is not None else ""
        arguments = [value, milliseconds(ttl), former.value if former else b"", published, EPOCH_AHEAD_MS]
        asked = time.monotonic()
        try:
            word, detail, *ignored = await link.run(
                _what(instance), lambda: _ACQUIRE_SCRIPT(link.client, names, arguments)
            )
        except asyncio.CancelledError:
            with suppress(StoreError):  # it may have been taken; the next process should not have to wait for its end
                await _release(link, keys, instance, value)
            raise
        if word == b"HELD":
            raise _held(instance, detail)
        if ignored == [b"1"]:
            reason = "far ahead of the Redis server's time, and no authentic head carries it; somebody else wrote it"
            log.warning("epoch_ignored", instance=instance, reason=reason)
        return cls(link, keys, instance, value=value, ttl=ttl, epoch=int(detail), expires=asked + ttl)

    @property
    def sound(self) -> bool:
        """Whether this process holds it, and Redis answered the last renewal."""
        return not (self._renewal_failed or self.lost.is_set())

    def check(self) -> None:
        """Raises LeaseLost."""
        if self.lost.is_set():
            raise LeaseLost(f"the lease of {self._instance} is lost: {self._why_lost}")

    async def renew(self) -> bool:
        """Extend it by its time to live. False: another process holds it. Raises StoreUnavailable, StoreError."""
        names = [self._keys.lease(self._instance), self._keys.epoch(self._instance)]
        arguments = [self.value, milliseconds(self._ttl), self.epoch]
        return bool(
            await self._link.once(_what(self._instance), lambda: _RENEW_SCRIPT(self._link.client, names, arguments))
        )

    async def release(self) -> bool:
        """Delete it if this process still holds it. Raises StoreUnavailable, StoreError."""
        return await _release(self._link, self._keys, self._instance, self.value)

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._keep(), name=f"lease:{self._instance}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task])
        # A lease that cannot be released expires by itself.
        with suppress(StoreError):
            await self.release()

    async def _keep(self) -> None:
        """Renew until the lease is lost; whatever ends this task ends the lease."""
        try:
            pause = self._ttl / RENEWALS
            while True:
                await asyncio.sleep(pause)
                pause = self._ttl / RENEWALS
                self._renewal_failed = not await self._renewed()
                if self._renewal_failed:
                    pause *= RETRY
        except LeaseLost as error:
            self._why_lost = str(error)
            log.warning("lease_lost", instance=self._instance, reason=str(error))
        finally:
            self.lost.set()

    async def _renewed(self) -> bool:
        """Renew once. False: Redis did not answer, but the lease has not expired. Raises LeaseLost."""
        asked = time.monotonic()
        try:
            async with asyncio.timeout(self._expires - asked):
                ours = await self.renew()
        except (StoreUnavailable, TimeoutError):
            if time.monotonic() >= self._expires:
                raise LeaseLost("Redis did not answer until the lease had expired") from None
            return False
        except StoreError as error:
            raise LeaseLost(str(error)) from None
        if not ours:
            raise LeaseLost(await self._whose())
        self._expires = asked + self._ttl
        return True

    async def _whose(self) -> str:
        """Why a renewal was refused. Another palette-sync is named only where its lease stands in Redis."""
        with suppress(StoreError):
            value = await self._link.command(_what(self._instance), "GET", self._keys.lease(self._instance))
            if isinstance(value, bytes) and value != self.value:
                return f"another palette-sync is at work, {_held(self._instance, value)}"
        return "its epoch is not in force any more"


async def _authentic_epoch(link: Link, keys: Keys, instance: str, sealer: Sealer) -> str:
    """Return the epoch of the published head if its mac is good, else ""."""
    if not sealer.authenticates:
        return ""
    command = ("HMGET", keys.head(instance), *HEAD_FIELDS)
    values = await link.command(_what(instance), *command)
    try:
        fields = {name: value.decode() for name, value in zip(HEAD_FIELDS, values, strict=True) if value is not None}
        head = head_from_fields(fields)
        good = sealer.mac_matches(text_of_version(keys.prefix, instance, head), head.mac)
    except (DocumentError, UnicodeDecodeError):
        return ""
    return str(head.epoch) if good else ""


def _what(instance: str) -> str:
    return f"lease {instance}"


async def _release(link: Link, keys: Keys, instance: str, value: bytes) -> bool:
    names = [keys.lease(instance)]
    return bool(await link.once(_what(instance), lambda: _RELEASE_SCRIPT(link.client, names, [value])))


def _held(instance: str, value: bytes) -> LeaseHeld:
    try:
        document = decode_object("lease", value)
        holder, since = str(document.get("holder", "?")), str(document.get("since", "?"))
    except DocumentError:
        holder, since = "?", "?"
    host, _, pid = holder[:200].rpartition(":")
    process = f"process {pid} on {host}" if host else holder[:200]
    return LeaseHeld(f"{instance} is held by {process} since {since[:40]}")

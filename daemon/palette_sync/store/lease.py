"""Who may write an instance: a lease in Redis that is renewed while its holder lives, and an epoch that never repeats.

The lease keeps two daemons from working on the same clusters; the epoch keeps one that lost the lease without noticing
from publishing. Only the epoch is a guarantee.
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
from palette_sync.store.errors import LeaseHeld, LeaseLost, StoreError, StoreUnavailable

if TYPE_CHECKING:
    from types import TracebackType

    from palette_sync.store.redis import Store

log = structlog.get_logger(__name__)

RENEWALS = 3  # per time to live
RETRY = 0.2  # of the time between two renewals, after a failed one


class Lease:
    """A lease that was acquired. Inside `async with` it is renewed; `lost` is set once it may be somebody else's."""

    def __init__(self, store: Store, instance: str, *, value: bytes, ttl: float, epoch: int, until: float) -> None:
        self.epoch = epoch
        self.lost = asyncio.Event()
        self._store = store
        self._instance = instance
        self.value = value
        self._ttl = ttl
        self._until = until
        self._doubtful = False
        self._task: asyncio.Task[None] | None = None

    @classmethod
    async def acquire(
        cls, store: Store, instance: str, *, ttl: float, holder: str, former: Lease | None = None
    ) -> Lease:
        """Take the lease for `ttl` seconds. `holder`, as `host:pid`, is told to whoever finds it taken.

        `former`: the asker's own of before, which needs not run out first.

        Raises LeaseHeld, StoreUnavailable, StoreError.
        """
        since = format_time(datetime.now(UTC))
        value = encode_document("lease", {"holder": holder, "id": secrets.token_hex(8), "since": since})
        asked = time.monotonic()
        try:
            word, detail = await store.take_lease(instance, value, ttl, former=former.value if former else b"")
        except asyncio.CancelledError:
            with suppress(StoreError):  # it may be ours by now; the next process should not have to wait for its end
                await store.give_lease_back(instance, value)
            raise
        if word == b"HELD":
            raise _held(instance, detail)
        return cls(store, instance, value=value, ttl=ttl, epoch=int(detail), until=asked + ttl)

    @property
    def sound(self) -> bool:
        """Whether it is ours and Redis answered when it was last renewed."""
        return not (self._doubtful or self.lost.is_set())

    def check(self) -> None:
        """Raises LeaseLost."""
        if self.lost.is_set():
            raise LeaseLost(f"the lease of {self._instance} is lost; another palette-sync may be at work")

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._keep(), name=f"lease:{self._instance}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task])
        # What cannot be given back runs out by itself.
        with suppress(StoreError):
            await self._store.give_lease_back(self._instance, self.value)

    async def _keep(self) -> None:
        """Renew until it fails for good; whatever ends this ends the lease."""
        try:
            pause = self._ttl / RENEWALS
            while True:
                await asyncio.sleep(pause)
                pause = self._ttl / RENEWALS
                self._doubtful = not await self._renewed()
                if self._doubtful:
                    pause *= RETRY
        except LeaseLost as error:
            log.warning("lease_lost", instance=self._instance, reason=str(error))
        finally:
            self.lost.set()

    async def _renewed(self) -> bool:
        """Renew once. False: Redis is away, but the lease still runs. Raises LeaseLost."""
        asked = time.monotonic()
        try:
            async with asyncio.timeout(self._until - asked):
                ours = await self._store.renew_lease(self._instance, self.value, self._ttl, self.epoch)
        except (StoreUnavailable, TimeoutError):
            if time.monotonic() >= self._until:
                raise LeaseLost("Redis was away for longer than the lease lasts") from None
            return False
        except StoreError as error:
            raise LeaseLost(str(error)) from None
        if not ours:
            raise LeaseLost("somebody else has it, or Redis lost it")
        self._until = asked + self._ttl
        return True


def _held(instance: str, value: bytes) -> LeaseHeld:
    try:
        document = decode_object("lease", value)
        holder, since = str(document.get("holder", "?")), str(document.get("since", "?"))
    except DocumentError:
        holder, since = "?", "?"
    host, _, pid = holder[:200].rpartition(":")
    process = f"process {pid} on {host}" if host else holder[:200]
    return LeaseHeld(f"{instance} is held by {process} since {since[:40]}")

"""Publish results during a pass, so that the first clusters of a cold start appear within seconds."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from palette_sync.reconcile.ports import Unpublished
from palette_sync.store.redis import StoreError, StoreUnavailable
from palette_sync.tracing import span

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime

    from palette_sync.core.model import (
        ClusterMemory,
        ClusterRecord,
        Credential,
        IssuerMetadata,
        ScopeStatus,
    )
    from palette_sync.store.publisher import Publisher

log = structlog.get_logger(__name__)

INTERVAL = 2.0  # seconds between versions of one pass, at least
LAST_TRIES = (0.2, 0.5, 1.0, 2.0)  # pauses in seconds between the last attempts to publish what was issued


@dataclass(frozen=True, slots=True)
class FinalWrite:
    """What the end of a pass writes besides clusters. `complete` None leaves the head's flag as it is."""

    drop: Collection[str] = ()
    complete: bool | None = None
    memory: Mapping[str, ClusterMemory | None] = field(default_factory=dict)
    scopes: Mapping[str, ScopeStatus | None] = field(default_factory=dict)
    issuers: Mapping[str, IssuerMetadata | None] = field(default_factory=dict)
    status: Mapping[str, object] = field(default_factory=dict)


class Publishing:
    """Collects records, credentials and memory by uid; a later entry of the same uid replaces the earlier one.

    While Redis is down, entries stay collected for the next attempt. `away` is True then, and no token is issued.
    """

    def __init__(self, publisher: Publisher, *, instance: str, now: datetime) -> None:
        self._publisher = publisher
        self._instance = instance
        self._now = now
        self._put: dict[str, ClusterRecord] = {}
        self._rotated: dict[str, Credential | None] = {}
        self._memory: dict[str, ClusterMemory | None] = {}
        self._something = asyncio.Event()
        self._closed = asyncio.Event()
        self.away = False

    def add(
        self,
        uid: str,
        *,
        record: ClusterRecord | None = None,
        credential: Credential | None = None,
        revoked: bool = False,
        memory: ClusterMemory | None = None,
    ) -> None:
        """Add the results for one cluster. `revoked` removes its credential, unless a new one is given."""
        if record is not None:
            self._put[uid] = record
        if credential is not None or revoked:
            self._rotated[uid] = credential
        if memory is not None:
            self._memory[uid] = memory
        self._something.set()

    async def run(self) -> None:
        """Publish at most every `INTERVAL` seconds until closed. Raises Fenced and other StoreErrors."""
        while not self._closed.is_set():
            await self._something.wait()
            if self._closed.is_set():
                return
            await self.flush()
            try:
                async with asyncio.timeout(INTERVAL):
                    await self._closed.wait()
            except TimeoutError:
                continue

    def close(self) -> None:
        self._closed.set()
        self._something.set()

    async def flush(self) -> None:
        """Publish what is collected; put it back if Redis is down."""
        put, rotated, memory = self._put, self._rotated, self._memory
        self._put, self._rotated, self._memory = {}, {}, {}
        self._something.clear()
        try:
            with span("publish", instance=self._instance, records=len(put)):
                await self._publisher.publish(put=put, rotated=rotated, memory=memory, now=self._now)
        except StoreError as error:
            self._put, self._rotated, self._memory = put | self._put, rotated | self._rotated, memory | self._memory
            if not isinstance(error, StoreUnavailable):
                raise
            self.away = True
            self._something.set()
            log.warning("store_away", instance=self._instance, waiting=len(put), reason=str(error))
        else:
            self.away = False

    @property
    def unpublished(self) -> Unpublished:
        """What was collected and not published, after an error of the store."""
        return Unpublished(self._put, self._rotated, self._memory)

    async def finish(self, closing: FinalWrite) -> None:
        """Publish the rest together with the final write of the pass, in one last version.

        Retries a few times, because issued tokens would be lost. Raises StoreUnavailable if Redis stays down.
        """
        with span("publish", instance=self._instance, records=len(self._put), dropped=len(closing.drop)):
            await self._finish(closing)

    async def _finish(self, closing: FinalWrite) -> None:
        for pause in (*LAST_TRIES, None):
            try:
                await self._publisher.publish(
                    put={uid: record for uid, record in self._put.items() if uid not in closing.drop},
                    rotated={uid: token for uid, token in self._rotated.items() if uid not in closing.drop},
                    drop=closing.drop,
                    complete=closing.complete,
                    memory={**self._memory, **closing.memory},
                    scopes=closing.scopes,
                    issuers=closing.issuers,
                    status=closing.status,
                    now=self._now,
                )
            except StoreUnavailable:
                if pause is None:
                    raise
                await asyncio.sleep(pause)
            else:
                return

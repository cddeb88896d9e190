"""Redis came back empty, older or tampered with: publish again what this process knows, instead of issuing anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from palette_sync.core.model import Credential
from palette_sync.store.seal import SealError

if TYPE_CHECKING:
    from datetime import datetime

    from palette_sync.core.model import InstanceState
    from palette_sync.store.redis import Publisher
    from palette_sync.store.seal import Sealer

log = structlog.get_logger(__name__)


def lost_something(found: InstanceState, memory: InstanceState) -> bool:
    """Whether what was found in the store is worth less than what this process remembers.

    Order is (epoch, version). Something newer was published by another writer, which then knew more.
    """
    if memory.head is None or not memory.trusted:
        return False
    if found.head is None or not found.trusted:
        return True
    return (found.head.epoch, found.head.version) < (memory.head.epoch, memory.head.version)


async def refill(publisher: Publisher, memory: InstanceState, *, instance: str, sealer: Sealer, now: datetime) -> None:
    """Publish `memory`. A token that no key opens any more is left out, and issued anew. Raises StoreError."""
    tokens: dict[str, Credential | None] = {}
    for uid, sealed in memory.credentials.items():
        try:
            token = sealer.open(instance, uid, sealed.sealed)
        except SealError:
            tokens[uid] = None
        else:
            tokens[uid] = Credential(token, sealed.issued_at, sealed.renew_at, sealed.expires_at)
    await publisher.publish(
        now=now,
        put=memory.records,
        drop=publisher.state.records.keys() - memory.records.keys(),
        rotated=tokens,
        complete=bool(memory.head and memory.head.complete),
        work=memory.work,
        scopes=memory.scopes,
        issuers=memory.issuers,
        status=memory.status,
    )
    log.warning("store_refilled", instance=instance, clusters=len(memory.records), credentials=len(tokens))

"""What a writer puts right in the store before it passes, without asking any cluster.

Redis came back empty, older or tampered with: what this process knows is published again, instead of issuing anew. The
seal keys were exchanged: what lies there is sealed and signed with the new one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from palette_sync.core.model import Credential
from palette_sync.store.seal import SealError

if TYPE_CHECKING:
    from datetime import datetime

    from palette_sync.core.model import InstanceState, SealedCredential
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
    tokens: dict[str, Credential | None] = {
        uid: _opened(instance, uid, sealed, sealer)
        for uid, sealed in memory.credentials.items()
        if uid in memory.records  # whoever can write Redis can put a credential beside no record
    }
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


async def reseal(publisher: Publisher, *, instance: str, sealer: Sealer, now: datetime) -> None:
    """Seal with the present key what an older one sealed. Raises StoreError."""
    state = publisher.state
    if state.head is None or not state.trusted:
        return
    opened = {
        uid: _opened(instance, uid, sealed, sealer)
        for uid, sealed in state.credentials.items()
        if uid in state.records and not sealer.current(sealed.sealed)
    }
    tokens = {uid: credential for uid, credential in opened.items() if credential is not None}
    if tokens:
        await publisher.publish(now=now, rotated=tokens)
        log.info("tokens_resealed", instance=instance, credentials=len(tokens))


def _opened(instance: str, uid: str, sealed: SealedCredential, sealer: Sealer) -> Credential | None:
    try:
        token = sealer.open(instance, uid, sealed.sealed)
    except SealError:
        return None
    return Credential(token, sealed.issued_at, sealed.renew_at, sealed.expires_at)

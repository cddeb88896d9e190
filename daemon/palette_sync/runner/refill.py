"""What a writer puts right in the store before it passes, without asking any cluster.

Redis came back empty, older or tampered with: what this process knows is published again, instead of issuing anew. The
seal keys were exchanged: what lies there is sealed and signed with the new one.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from palette_sync.core.model import Credential, SealedCredential
from palette_sync.store.seal import SealError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from palette_sync.core.model import InstanceState
    from palette_sync.reconcile.ports import Unpublished
    from palette_sync.store.redis import Publisher
    from palette_sync.store.seal import Sealer

log = structlog.get_logger(__name__)


def lost_something(found: InstanceState, remembered: InstanceState) -> bool:
    """Whether what was found in the store is worth less than what this process remembers.

    Order is (epoch, version). Something newer was published by another writer, which then knew more.
    """
    if remembered.head is None or not remembered.trusted:
        return False
    if found.head is None or not found.trusted:
        return True
    return (found.head.epoch, found.head.version) < (remembered.head.epoch, remembered.head.version)


def lost_versions(found: InstanceState, remembered: InstanceState, *, epoch: int) -> bool:
    """Whether the store lost versions of this `epoch`, which readers have seen: their numbers must not come again."""
    if remembered.head is None or remembered.head.epoch != epoch:
        return False
    return found.head is None or (found.head.epoch, found.head.version) < (epoch, remembered.head.version)


def joined(remembered: InstanceState, rest: Unpublished, *, instance: str, sealer: Sealer) -> InstanceState:
    """The memory with what a pass could not publish, as if it had."""
    credentials = dict(remembered.credentials)
    for uid, one in rest.rotated.items():
        if one is None:
            credentials.pop(uid, None)
        else:
            sealed = sealer.seal(instance, uid, one.token)
            credentials[uid] = SealedCredential(one.issued_at, one.renew_at, one.expires_at, sealed)
    memory = {uid: one for uid, one in rest.memory.items() if one is not None}
    return replace(
        remembered,
        records={**remembered.records, **rest.put},
        credentials=credentials,
        memory={**remembered.memory, **memory},
    )


async def refill(
    publisher: Publisher, remembered: InstanceState, *, instance: str, sealers: Sequence[Sealer], now: datetime
) -> None:
    """Publish `memory`. A token that none of the `sealers` opens is left out, and issued anew. Raises StoreError."""
    tokens = _opened(instance, remembered, sealers)
    await publisher.publish(
        now=now,
        put=remembered.records,
        drop=publisher.state.records.keys() - remembered.records.keys(),
        rotated=tokens,
        complete=bool(remembered.head and remembered.head.complete),
        memory=remembered.memory,
        scopes=remembered.scopes,
        issuers=remembered.issuers,
        status=remembered.status,
    )
    log.warning("store_refilled", instance=instance, clusters=len(remembered.records), credentials=len(tokens))


async def reseal(publisher: Publisher, *, instance: str, sealers: Sequence[Sealer], now: datetime) -> None:
    """Seal with the present key, that of `sealers[0]`, what an older one sealed. Raises StoreError.

    What no key opens is removed, and issued anew: a reader that has the present keys could not open it either.
    """
    state = publisher.state
    if state.head is None or not state.trusted:
        return
    older = {uid: one for uid, one in state.credentials.items() if not sealers[0].current(one.sealed)}
    tokens = _opened(instance, replace(state, credentials=older), sealers)
    if tokens:
        await publisher.publish(now=now, rotated=tokens)
        lost = sum(one is None for one in tokens.values())
        log.info("tokens_resealed", instance=instance, credentials=len(tokens) - lost, not_opened=lost)


def _opened(instance: str, state: InstanceState, sealers: Sequence[Sealer]) -> dict[str, Credential | None]:
    """The tokens of all records, None where none of the sealers opens it.

    A credential without a record is left out: anybody who can write Redis may have put it there.
    """
    found: dict[str, Credential | None] = {}
    for uid, sealed in state.credentials.items():
        if uid not in state.records:
            continue
        found[uid] = None
        for sealer in sealers:
            with suppress(SealError):
                token = sealer.open(instance, uid, sealed.sealed)
                found[uid] = Credential(token, sealed.issued_at, sealed.renew_at, sealed.expires_at)
                break
    return found

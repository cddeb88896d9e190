"""Repairs of the store before a pass. They publish what this process still knows, and contact no cluster.

`refill`: Redis came back empty, older or changed by others; what this process remembers is published again, so that no
token has to be issued again. `reseal`: the seal keys were exchanged; what older keys sealed is sealed with the new one.
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
    """Whether the store holds less than this process remembers.

    The order is (epoch, version). Anything newer was published by another writer, which knew more.
    """
    if remembered.head is None or not remembered.trusted:
        return False
    if found.head is None or not found.trusted:
        return True
    return (found.head.epoch, found.head.version) < (remembered.head.epoch, remembered.head.version)


def lost_versions(found: InstanceState, remembered: InstanceState, *, epoch: int) -> bool:
    """Whether the store lost versions of this `epoch`.

    Readers have seen them, so their numbers must not be used again.
    """
    if remembered.head is None or remembered.head.epoch != epoch:
        return False
    return found.head is None or (found.head.epoch, found.head.version) < (epoch, remembered.head.version)


def joined(remembered: InstanceState, rest: Unpublished, *, instance: str, sealer: Sealer) -> InstanceState:
    """`remembered` as it would be if the pass had published `rest`."""
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
    """Publish `remembered`. A token that no sealer opens is left out; a pass issues a new one. Raises StoreError."""
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
    """Seal with the newest key of `sealers[0]` what an older key sealed. Raises StoreError.

    What no sealer opens is removed, and a pass issues a new token: readers with the present keys could not open it.
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
    """The tokens of all records, None for a token that no sealer opens.

    A credential without a record is left out: anybody who can write to Redis may have put it there.
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

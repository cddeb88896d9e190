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
from palette_sync.core.snapshot_codec import sealed_for
from palette_sync.store.seal import SealError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from palette_sync.core.model import ClusterRecord, InstanceState
    from palette_sync.reconcile.ports import Unpublished
    from palette_sync.store.publisher import Publisher
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

    Readers have seen them, so their numbers must not be used again. A snapshot that does not verify does not tell which
    numbers were used.
    """
    if remembered.head is None or remembered.head.epoch != epoch:
        return False
    return (
        found.head is None
        or not found.trusted
        or (found.head.epoch, found.head.version) < (epoch, remembered.head.version)
    )


def joined(remembered: InstanceState, rest: Unpublished, *, prefix: str, sealer: Sealer) -> InstanceState:
    """`remembered` as it would be if the pass had published `rest`."""
    records = {**remembered.records, **rest.put}
    credentials = dict(remembered.credentials)
    moved = {
        uid: token
        for uid in (rest.put.keys() & credentials.keys() & remembered.records.keys()) - rest.rotated.keys()
        if remembered.records[uid].server != records[uid].server
        and (token := opened(prefix, remembered.records[uid], credentials[uid], (sealer,))) is not None
    }
    for uid, one in {**moved, **rest.rotated}.items():
        if one is None:
            credentials.pop(uid, None)
        else:
            sealed = sealer.seal(sealed_for(prefix, records[uid], one), one.token)
            credentials[uid] = SealedCredential(one.issued_at, one.renew_at, one.expires_at, sealed)
    memory = {uid: one for uid, one in rest.memory.items() if one is not None}
    return replace(
        remembered,
        records=records,
        credentials=credentials,
        memory={**remembered.memory, **memory},
    )


async def refill(
    publisher: Publisher, remembered: InstanceState, *, instance: str, sealers: Sequence[Sealer], now: datetime
) -> None:
    """Publish `remembered`. A token that no sealer opens is left out; a pass issues a new one. Raises StoreError.

    A token that only the store holds is removed: it was withdrawn later, for example because the API server refused it.
    Beside a remembered record it would count as a token that lives.

    Records that this process only read, and has not seen in Palette yet, stay unconfirmed. There is a new version even
    if the store holds the same content under an older number: readers hold a newer one, and refuse older ones.
    """
    tokens = _opened(publisher.prefix, remembered, sealers)
    await publisher.publish(
        now=now,
        put=remembered.records,
        drop=publisher.state.records.keys() - remembered.records.keys(),
        rotated={**dict.fromkeys(remembered.records), **tokens},
        complete=bool(remembered.head and remembered.head.complete),
        memory=remembered.memory,
        scopes=remembered.scopes,
        issuers=remembered.issuers,
        status=remembered.status,
        unseen=publisher.unconfirmed_of(remembered.records),
        anew=True,
    )
    log.warning("store_refilled", instance=instance, clusters=len(remembered.records), credentials=len(tokens))


async def reseal(publisher: Publisher, *, instance: str, sealers: Sequence[Sealer], now: datetime) -> None:
    """Seal with the newest key of `sealers[0]` what an older key sealed, and sign anew what an older key signed.

    Raises StoreError.

    What no sealer opens is removed, and a pass issues a new token: readers with the present keys could not open it.
    """
    state = publisher.state
    if state.head is None or not state.trusted:
        return
    older = {uid: one for uid, one in state.credentials.items() if not sealers[0].current(one.sealed)}
    tokens = _opened(publisher.prefix, replace(state, credentials=older), sealers)
    if tokens or publisher.older_macs:
        await publisher.publish(
            now=now,
            rotated=tokens,
            memory=state.memory,
            scopes=state.scopes,
            issuers=state.issuers,
            status=state.status,
            unseen=publisher.unconfirmed_of(tokens),
        )
    if tokens:
        lost = sum(one is None for one in tokens.values())
        log.info("tokens_resealed", instance=instance, credentials=len(tokens) - lost, not_opened=lost)


def opened(
    prefix: str, record: ClusterRecord, sealed: SealedCredential, sealers: Sequence[Sealer]
) -> Credential | None:
    """The token of a record; None if no sealer opens it."""
    for sealer in sealers:
        with suppress(SealError):
            token = sealer.open(sealed_for(prefix, record, sealed), sealed.sealed)
            return Credential(token, sealed.issued_at, sealed.renew_at, sealed.expires_at)
    return None


def _opened(prefix: str, state: InstanceState, sealers: Sequence[Sealer]) -> dict[str, Credential | None]:
    """The tokens of all records, None for a token that no sealer opens.

    A credential without a record is left out: anybody who can write to Redis may have put it there.
    """
    return {
        uid: opened(prefix, state.records[uid], sealed, sealers)
        for uid, sealed in state.credentials.items()
        if uid in state.records
    }

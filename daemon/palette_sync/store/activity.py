"""The activity of an instance in Redis: a hash with one slot per five minutes of the last 24 hours.

It is for people only, so it is written outside of the versions and without the fence: in the worst case two processes
that lead one after the other count in the same slot, and the later one wins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from palette_sync.core.activity import SLOTS, Slot, decode_slot, encode_slot, is_of_day
from palette_sync.core.documents import DocumentError, Fields, format_time
from palette_sync.store.bounds import BOUNDS
from palette_sync.store.errors import StoreTooMuch
from palette_sync.store.signed_value import ValueSigner

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from palette_sync.store.redis import Store
    from palette_sync.store.seal import Sealer

KIND = "activity"
MOST = 4 * SLOTS  # fields that are read


async def read_activity(store: Store, sealer: Sealer, instance: str, *, now: datetime) -> dict[datetime, Slot]:
    """The authentic slots of the last 24 hours, by when they begin. Raises StoreError."""
    key = store.keys.activity(instance)
    number = await store.link.command(f"read {key}", "HLEN", key)
    if number > MOST:
        raise StoreTooMuch(f"{key} holds {number} fields, and at most {MOST} are read; delete the key")
    signer = ValueSigner(sealer, store.keys.prefix, instance)
    found = {}
    for field, value in (await store.link.command(f"read {key}", "HGETALL", key)).items():
        slot = _slot(signer, field.decode(errors="replace"), value)
        if slot is not None and is_of_day(slot.begins, now):
            found[slot.begins] = slot
    return found


async def write_activity(
    store: Store, sealer: Sealer, instance: str, slots: Iterable[Slot], *, drop: Iterable[datetime] = ()
) -> None:
    """Write the slots, and remove those that are too old. Raises StoreError."""
    key, signer = store.keys.activity(instance), ValueSigner(sealer, store.keys.prefix, instance)
    pairs: list[str | bytes] = []
    for slot in slots:
        name = format_time(slot.begins)
        value = signer.sign(KIND, name, encode_slot(slot))
        pairs += [name, value] if value is not None else []
    if pairs:
        await store.link.command(f"write {key}", "HSET", key, *pairs)
    if old := [format_time(begins) for begins in drop]:
        await store.link.command(f"write {key}", "HDEL", key, *old)


def _slot(signer: ValueSigner, name: str, value: bytes) -> Slot | None:
    content = signer.verified(KIND, name, value) if len(value) <= BOUNDS.document else None
    if content is None:
        return None
    try:
        return decode_slot(Fields(KIND, {"begins": name}).time("begins"), content)
    except DocumentError:
        return None

"""Redis streams, appended to and read on: what `control` speaks over."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from palette_sync.store.connect import milliseconds

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Mapping

    from palette_sync.store.cluster import Words
    from palette_sync.store.connect import Link


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the stream `key`. Bytes that are not UTF-8 are replaced."""

    key: str
    id: str
    fields: Mapping[str, str]


async def append(link: Link, key: str, fields: Mapping[str, str], *, keep: int) -> str:
    """Append an entry, shorten the stream to about `keep` entries, and return the new entry's id.

    Raises StoreUnavailable, StoreError; the entry may have been appended although the answer was lost.
    """
    parts = [part for pair in fields.items() for part in pair]

    async def add() -> bytes:
        return bytes(await link.client.execute_command("XADD", key, "MAXLEN", "~", keep, "*", *parts))

    return (await link.once(f"append to {key}", add)).decode()


async def read_on(link: Link, after: Mapping[str, str], *, wait: float, most: int = 100) -> list[Entry]:
    """Return the entries after the given id of each key, and wait for the first one if there are none.

    At most `most` entries of each key are read at once. Waits up to `wait` seconds, or half of the connection's timeout
    if that is less. In a Redis Cluster each slot is read by itself. If one cannot be read, the others are read first.

    Raises StoreUnavailable, StoreError.
    """
    block = milliseconds(min(wait, link.timeout / 2))

    async def read(keys: list[str]) -> list[Entry]:
        ids = [after[key] for key in keys]
        words: Words = ("XREAD", "COUNT", most, "BLOCK", block, "STREAMS", *keys, *ids)
        return _entries(await link.once("read requests", lambda: link.send(keys[0], *words)))

    slots = link.by_slot(after)
    return await read(slots[0]) if len(slots) == 1 else await _first([read(keys) for keys in slots])


async def _first(reads: Iterable[Coroutine[Any, Any, list[Entry]]]) -> list[Entry]:
    """Return what the first reads find, and cancel the others: reading takes nothing out of a stream.

    Raises the error of a read if none finds anything.
    """
    pending = {asyncio.create_task(one, name="read-streams") for one in reads}
    errors: list[BaseException] = []
    found: list[Entry] = []
    try:
        while pending and not found:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            errors += [error for one in done if (error := one.exception()) is not None]
            found += [entry for one in done if one.exception() is None for entry in one.result()]
    finally:
        for one in pending:
            one.cancel()
        if pending:
            await asyncio.wait(pending)
    if errors and not found:
        raise errors[0]
    return found


def _entries(reply: Any) -> list[Entry]:
    """Decode redis-py's form of the answer to XREAD (protocol 2)."""
    return [
        Entry(key.decode(), entry_id.decode(), {_text(name): _text(value) for name, value in (fields or {}).items()})
        for key, entries in reply or ()
        for entry_id, fields in entries
    ]


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace")

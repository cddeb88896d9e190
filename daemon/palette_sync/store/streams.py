"""Redis streams, appended to and read on: what `control` speaks over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from palette_sync.store.connect import milliseconds

if TYPE_CHECKING:
    from collections.abc import Mapping

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
    if that is less.

    Raises StoreUnavailable, StoreError.
    """
    block = milliseconds(min(wait, link.timeout / 2))

    async def read() -> object:
        return await link.client.execute_command(
            "XREAD", "COUNT", most, "BLOCK", block, "STREAMS", *after, *after.values()
        )

    return _entries(await link.once("read requests", read))


def _entries(reply: Any) -> list[Entry]:
    """Decode redis-py's form of the answer to XREAD (protocol 2)."""
    return [
        Entry(key.decode(), entry_id.decode(), {_text(name): _text(value) for name, value in (fields or {}).items()})
        for key, entries in reply or ()
        for entry_id, fields in entries
    ]


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace")

"""Reads the streams of an instance: its former versions (`history`) and what each version touched (`changes`).

XREAD is used for all of it, because it is the one command on streams that readers' users are permitted.
"""

from __future__ import annotations

import zlib
from functools import partial
from typing import TYPE_CHECKING, Any

import orjson

from palette_sync.core.documents import DocumentError, Fields
from palette_sync.core.history import FormerVersion, VersionChange
from palette_sync.core.mac_texts import history_text
from palette_sync.store.streams import read_on

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from palette_sync.store.redis import Store
    from palette_sync.store.seal import Sealer
    from palette_sync.store.streams import Entry

PAGE = 500  # entries per command
LARGEST = 64 * 1024 * 1024  # bytes of one entry of the history, decompressed
WAIT = 4.0  # seconds that one look for new changes waits at most


async def read_history(store: Store, sealer: Sealer, instance: str, *, after: int = 0) -> list[FormerVersion]:
    """All authentic entries of versions beyond `after`, in the order of versions.

    Raises StoreUnavailable, StoreError, StoreDenied.
    """
    found = []
    for entry_id, fields in await _all(store, store.keys.history(instance), after):
        entry = _former(store, sealer, instance, entry_id, fields)
        if entry is not None:
            found.append(entry)
    return found


async def read_changes(store: Store, instance: str, *, after: int = 0) -> list[VersionChange]:
    """All entries of versions beyond `after` that can be read, in the order of versions.

    Raises StoreUnavailable, StoreError, StoreDenied.
    """
    found = []
    for entry_id, fields in await _all(store, store.keys.changes(instance), after):
        change = _change(
            entry_id, {name.decode(errors="replace"): value.decode(errors="replace") for name, value in fields.items()}
        )
        if change is not None:
            found.append(change)
    return found


async def former_version(store: Store, sealer: Sealer, instance: str, version: int) -> FormerVersion | None:
    """The history's entry of one version, if there is one. Raises as `read_history`."""
    page = await _page(store, store.keys.history(instance), f"{version - 1}-0", 1)
    found = (_former(store, sealer, instance, entry_id, fields) for entry_id, fields in page)
    return next((entry for entry in found if entry is not None and entry.version == version), None)


def _former(
    store: Store, sealer: Sealer, instance: str, entry_id: str, fields: Mapping[bytes, bytes]
) -> FormerVersion | None:
    """An entry of the history; None if it is not authentic, or not what palette-sync writes."""
    version, at, raw = _version(entry_id), _time(fields.get(b"at", b"")), fields.get(b"was", b"")
    text = history_text(store.keys.prefix, instance, version, raw)
    if not version or at is None or not sealer.mac_matches(text, fields.get(b"mac", b"").decode(errors="replace")):
        return None
    was = _was(raw)
    return None if was is None else FormerVersion(version, at, was)


class ChangeReader:
    """Waits for new versions of some instances, from now on."""

    def __init__(self, store: Store, last: Mapping[str, int]) -> None:
        """`last`: the version after which an instance is read, by instance."""
        self._store = store
        self._instance_of = {store.keys.changes(instance): instance for instance in last}
        self._after = {store.keys.changes(instance): f"{version}-0" for instance, version in last.items()}

    async def wait(self) -> list[tuple[str, VersionChange]]:
        """Wait some seconds; return new versions with their instance. Raises StoreUnavailable, StoreError."""
        found = []
        for entry in await read_on(self._store.link, self._after, wait=WAIT):
            self._after[entry.key] = entry.id
            if (change := _change_of(entry)) is not None:
                found.append((self._instance_of[entry.key], change))
        return found


async def _all(store: Store, key: str, after: int) -> list[tuple[str, Mapping[bytes, bytes]]]:
    found: list[tuple[str, Mapping[bytes, bytes]]] = []
    last = f"{after}-0"
    while page := await _page(store, key, last, PAGE):
        found += page
        last = page[-1][0]
    return found


async def _page(store: Store, key: str, after: str, count: int) -> list[tuple[str, Mapping[bytes, bytes]]]:
    command = partial(store.link.send, key, "XREAD", "COUNT", count, "STREAMS", key, after)
    reply: Any = await store.link.run(f"read {key}", command)
    return [
        (entry_id.decode(errors="replace"), fields or {}) for _, entries in reply or () for entry_id, fields in entries
    ]


def _change_of(entry: Entry) -> VersionChange | None:
    return _change(entry.id, entry.fields)


def _change(entry_id: str, fields: Mapping[str, str]) -> VersionChange | None:
    version, at = _version(entry_id), _time(fields.get("at", "").encode())
    if not version or at is None:
        return None
    return VersionChange(version, at, *(_uids(fields.get(name, "[]")) for name in ("put", "drop", "rotated")))


def _version(entry_id: str) -> int:
    number = entry_id.partition("-")[0]
    return int(number) if number.isascii() and number.isdecimal() else 0


def _time(raw: bytes) -> datetime | None:
    try:
        return Fields("entry", {"at": raw.decode(errors="replace")}).maybe_time("at")
    except DocumentError:
        return None


def _uids(text: str) -> frozenset[str]:
    try:
        uids = orjson.loads(text)
    except orjson.JSONDecodeError:
        return frozenset()
    return frozenset(map(str, uids)) if isinstance(uids, list) else frozenset()


def _was(raw: bytes) -> dict[str, dict[str, Any] | None] | None:
    """The former records, or None where the bytes are not what palette-sync writes."""
    reader = zlib.decompressobj()
    try:
        document = orjson.loads(reader.decompress(raw, LARGEST))
    except (zlib.error, orjson.JSONDecodeError):
        return None
    if not isinstance(document, dict) or not all(one is None or isinstance(one, dict) for one in document.values()):
        return None
    return document

"""Which clusters the versions touched that came after one that is known, from the stream of changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from palette_sync.core.model import UID
from palette_sync.store.streams import read_on

if TYPE_CHECKING:
    from palette_sync.store.connect import Link
    from palette_sync.store.keys import Keys
    from palette_sync.store.read import Loaded
    from palette_sync.store.streams import Entry

MOST_VERSIONS = 100  # that are followed one by one; after more, everything is read
MOST_CLUSTERS = 1000
_WAIT = 0.001  # seconds: what is not there yet is read the next time


async def touched_since(link: Link, keys: Keys, instance: str, last: Loaded) -> set[str] | None:
    """Return the uids that the versions after `last` touched; None if only reading everything shows them.

    That is so if `last` is not good as a whole, or if the stream has a gap, another epoch or foreign entries.
    Raises StoreUnavailable, StoreError.
    """
    head = last.state.head
    if head is None or not last.state.trusted or last.state.problems or last.unreadable or last.refused:
        return None
    after = {keys.changes(instance): f"{head.version}-0"}
    entries = await read_on(link, after, wait=_WAIT, most=MOST_VERSIONS)
    if not 0 < len(entries) < MOST_VERSIONS:
        return None
    found: set[str] = set()
    for number, entry in enumerate(entries, start=head.version + 1):
        uids = _touched(entry, number, head.epoch)
        if uids is None:
            return None
        found |= uids
    return found if 0 < len(found) <= MOST_CLUSTERS else None


def _touched(entry: Entry, version: int, epoch: int) -> set[str] | None:
    """The uids of one entry; None if it is not the given version of the epoch, or does not confirm all records."""
    fields = entry.fields
    if entry.id != f"{version}-0" or fields.get("epoch") != str(epoch) or fields.get("unconfirmed"):
        return None
    try:
        lists = [orjson.loads(fields[name]) for name in ("put", "drop", "rotated")]
        uids = {uid for one in lists for uid in one}
        return uids if all(UID.fullmatch(uid) for uid in uids) else None
    except (KeyError, TypeError, ValueError):
        return None

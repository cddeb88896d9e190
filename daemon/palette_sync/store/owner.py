"""The owner ids of this installation: what tells its objects in a cluster from those of another palette-sync.

`p:owner` holds them with a mac, the one in use first. Without a good mac they count as absent. Without a configured id
the first is derived from the seal keys, the prefix and the address of Redis: a Redis that lost its data brings the same
id back, and another installation has another one. Without seal keys it is random.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from palette_sync.core.mac_texts import owner_seed, owner_text
from palette_sync.store.errors import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from palette_sync.store.connect import Link
    from palette_sync.store.keys import Keys
    from palette_sync.store.seal import Sealer

MOST = 16  # ids that are remembered


@dataclass(frozen=True, slots=True)
class Owner:
    """`id` is put on objects; `former` are ids that this installation used before, or would use without `id`."""

    id: str
    former: frozenset[str]


class OwnerBook:
    """Reads the ids, and writes them where Redis has none. Keeps what it read, so that a lost key comes back."""

    def __init__(self, link: Link, keys: Keys, place: str) -> None:
        self._link = link
        self._key = keys.owner
        self._prefix = keys.prefix
        self._place = place
        self._known: tuple[str, ...] = ()

    async def read(self, sealer: Sealer, configured: str, *, write: bool) -> Owner:
        """Return the ids; `configured` goes first if it is not empty. Raises StoreError.

        In a Redis Cluster the server of this key may be away while that of an instance answers: then what was read
        before counts.
        """
        try:
            return await self._read(sealer, configured, write=write)
        except StoreUnavailable:
            if not (self._known and self._link.clustered):
                raise
            return _owner(self._known, self._derived(sealer), configured)

    async def _read(self, sealer: Sealer, configured: str, *, write: bool) -> Owner:
        derived = self._derived(sealer)
        stored = self._ids(sealer, await self._raw())
        if not stored and write:
            first = self._known or ((configured,) if configured else derived[:1] or (secrets.token_hex(8),))
            await self._link.command("owner", "SET", self._key, self._signed(sealer, first), "NX")
            stored = self._ids(sealer, await self._raw()) or first
        stored = stored or self._known or derived
        ids = tuple(dict.fromkeys([*([configured] if configured else []), *stored]))
        signed = self._signed(sealer, ids[:MOST])
        if write and await self._raw() != signed:  # also where the mac is that of a former key
            await self._link.command("owner", "SET", self._key, signed)
        self._known = ids
        return _owner(stored, derived, configured)

    async def _raw(self) -> str:
        raw = await self._link.command("owner", "GET", self._key)
        return raw.decode(errors="replace") if raw else ""

    def _ids(self, sealer: Sealer, raw: str) -> tuple[str, ...]:
        mac, _, ids = raw.partition(" ")
        if "\n" in ids or not sealer.mac_matches(owner_text(self._prefix, ids), mac):
            return ()
        return tuple(filter(None, ids.split(",")))

    def _signed(self, sealer: Sealer, ids: Iterable[str]) -> str:
        text = ",".join(ids)
        return f"{sealer.mac(owner_text(self._prefix, text))} {text}"

    def _derived(self, sealer: Sealer) -> tuple[str, ...]:
        """One id per seal key, so that an id survives the replacement of a key."""
        return tuple(mac[:16] for mac in sealer.macs(owner_seed(self._prefix, self._place)) if mac)


def _owner(ids: Iterable[str], derived: Iterable[str], configured: str) -> Owner:
    first, *others = dict.fromkeys([*([configured] if configured else []), *ids]) or [""]
    return Owner(first, frozenset({*others, *derived}) - {first})


def place_of(url: str) -> str:
    """The address in a Redis URL, without user, password and options."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2].partition('?')[0].rstrip('/')}"

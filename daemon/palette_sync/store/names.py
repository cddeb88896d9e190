"""Claims of published names, so that no two processes give the same name to two clusters.

`p:names` maps a name in lower case to its claim: a mac, a space, and `<instance>/<uid>/<when it was claimed>`. A claim
without a good mac counts as absent. A name is claimed before it is published. A claim whose record is gone is released,
once it is old enough that its owner cannot be about to publish it.

With the claims of an instance, a mark is written (field `/<instance>`, a random word). While Redis holds the mark that
this process wrote last, it has lost none of the claims that this process has made.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from palette_sync.core.mac_texts import name_text
from palette_sync.core.model import ClusterKey
from palette_sync.store.errors import StoreError, StoreUnavailable
from palette_sync.store.scripts import Script

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from palette_sync.store.connect import Link
    from palette_sync.store.keys import Keys
    from palette_sync.store.seal import Sealer

SETTLED_MS = 600_000  # a claim younger than this may belong to a record that is about to be published
SWEEP_MS = 600_000  # between two looks for claims whose record is gone
MOST = 500  # names in one command
MOST_CLAIMS = 200_000  # fields that a look for old claims reads at most
ROUNDS = 5
MARK = "/"  # before an instance; no name begins with it
_CLAIM = re.compile(r"([a-z][a-z0-9_]{0,63})/([A-Za-z0-9_-]{1,64})/([1-9][0-9]{0,14})", re.ASCII)
_SCRIPT = Script.load("names_claim.lua")


@dataclass(frozen=True, slots=True)
class _Claim:
    """`raw` is what stands in Redis; `owner` is None where it is not authentic. `at` is the server's time in ms."""

    raw: bytes = b""
    owner: ClusterKey | None = None
    at: int = 0


class NameClaims:
    """Claims and releases names. Remembers what it claimed, and makes claims again that Redis has lost."""

    def __init__(self, link: Link, keys: Keys) -> None:
        self._link = link
        self._keys = keys
        self._claimed: dict[str, set[str]] = {}  # by instance
        self._marks: dict[str, bytes] = {}  # by instance
        self._swept: dict[str, int] = {}

    async def taken(self, sealer: Sealer, instance: str, names: Iterable[str]) -> set[str]:
        """Those of `names` that a cluster of another instance has claimed. Changes nothing. Raises StoreError."""
        found = await self._read(sealer, {name.casefold() for name in names})
        return {name for name, claim in found.items() if claim.owner is not None and claim.owner.instance != instance}

    async def claim(self, sealer: Sealer, instance: str, names: Mapping[str, str]) -> set[str]:
        """Claim `names` (uid to name) for an instance; return the names, in lower case, that somebody else has.

        Raises StoreError.
        """
        wanted = {name.casefold(): ClusterKey(instance, uid) for uid, name in names.items()}
        known = self._claimed.setdefault(instance, set())
        mark = f"{MARK}{instance}"
        marked = await self._link.command("names", "HGET", self._keys.names, mark) or b""
        if marked != self._marks.get(instance):
            known.clear()  # Redis has lost claims, or another process has led meanwhile
        left = wanted.keys() - known
        if not left:
            return set()
        now = await self._link.server_time(self._keys.names)
        refused: set[str] = set()
        for _ in range(ROUNDS):
            found = await self._read(sealer, left)
            refused |= {name for name in left if await self._belongs_to_another(found[name], wanted[name], now)}
            left -= refused
            edits = {
                name: (found[name].raw, self._signed(sealer, name, wanted[name], now))
                for name in left
                if found[name].owner != wanted[name]
            }
            known |= left - edits.keys()
            done = await self._write(edits)
            known |= done
            left = edits.keys() - done
            if not left:
                await self._set_mark(instance, mark, marked)
                return refused
        raise StoreError(f"the names of {instance} could not be claimed: others kept changing {self._keys.names}")

    async def _set_mark(self, instance: str, mark: str, before: bytes) -> None:
        """Write a new mark where Redis holds the former one: then it has lost nothing since that was read."""
        word = secrets.token_hex(8).encode()
        self._marks.pop(instance, None)
        if await self._write({mark: (before, word)}):
            self._marks[instance] = word

    async def release(self, sealer: Sealer, instance: str, names: Mapping[str, str]) -> None:
        """Release the names (by uid) of records that have just been dropped. Raises StoreError."""
        owners = {name.casefold(): ClusterKey(instance, uid) for uid, name in names.items()}
        found = await self._read(sealer, owners)
        ours = {name: (claim.raw, b"") for name, claim in found.items() if claim.owner == owners[name]}
        self._claimed.get(instance, set()).difference_update(await self._write(ours))

    async def sweep(self, sealer: Sealer, instance: str, uids: Collection[str]) -> None:
        """Release the claims of an instance for clusters beside `uids`, at most every 10 minutes. Raises StoreError."""
        now = await self._link.server_time(self._keys.names)
        if now - self._swept.get(instance, 0) < SWEEP_MS:
            return
        self._swept[instance] = now
        if await self._link.command("names", "HLEN", self._keys.names) > MOST_CLAIMS:
            return
        raw = await self._link.command("names", "HGETALL", self._keys.names)
        claims = {name.decode(errors="replace"): value for name, value in raw.items()}
        gone = {}
        for name, value in claims.items():
            claim = self._parsed(sealer, name, value)
            ours = claim.owner is not None and claim.owner.instance == instance and claim.owner.uid not in uids
            if ours and now - claim.at >= SETTLED_MS:
                gone[name] = (value, b"")
        self._claimed.get(instance, set()).difference_update(await self._write(gone))

    async def _belongs_to_another(self, claim: _Claim, wanted: ClusterKey, now: int) -> bool:
        if claim.owner is None or claim.owner == wanted:
            return False
        if now - claim.at < SETTLED_MS:
            return True
        key = self._keys.clusters(claim.owner.instance)
        try:
            return bool(await self._link.command("names", "HSTRLEN", key, claim.owner.uid))
        except StoreUnavailable:
            if not self._link.clustered:
                raise
            return True  # the server of that instance is away, so its record may exist

    async def _read(self, sealer: Sealer, names: Collection[str]) -> dict[str, _Claim]:
        found: dict[str, _Claim] = {}
        ordered = sorted(names)
        for start in range(0, len(ordered), MOST):
            part = ordered[start : start + MOST]
            values = await self._link.command("names", "HMGET", self._keys.names, *part)
            found.update(
                {name: self._parsed(sealer, name, value) for name, value in zip(part, values, strict=True) if value}
            )
        return {name: found.get(name, _Claim()) for name in ordered}

    async def _write(self, edits: Mapping[str, tuple[bytes, bytes]]) -> set[str]:
        """Return the names that were changed; the claim of each other one is not what was read any more."""
        done: set[str] = set()
        ordered = sorted(edits)
        for start in range(0, len(ordered), MOST):
            part = ordered[start : start + MOST]
            arguments: list[Any] = [word for name in part for word in (name, *edits[name])]
            answers = await self._link.run("names", partial(_SCRIPT, self._link.client, [self._keys.names], arguments))
            done.update(name for name, answer in zip(part, answers, strict=True) if answer == 1)
        return done

    def _signed(self, sealer: Sealer, name: str, owner: ClusterKey, at: int) -> bytes:
        text = f"{owner.instance}/{owner.uid}/{at}"
        return f"{sealer.mac(name_text(self._keys.prefix, name, text))} {text}".encode()

    def _parsed(self, sealer: Sealer, name: str, raw: bytes) -> _Claim:
        mac, _, text = raw.decode(errors="replace").partition(" ")
        found = _CLAIM.fullmatch(text)
        if "\n" in name or found is None or not sealer.mac_matches(name_text(self._keys.prefix, name, text), mac):
            return _Claim(raw)
        return _Claim(raw, ClusterKey(found.group(1), found.group(2)), int(found.group(3)))

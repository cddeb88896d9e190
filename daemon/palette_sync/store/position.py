"""Where the snapshot in Redis stands, as a writer left or found it, and what an edit makes of it. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from palette_sync.core.snapshot_codec import record_hash
from palette_sync.store.read import NO_INTRUDERS, Intruders

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True, slots=True)
class Position:
    """The snapshot in Redis as this writer left or found it.

    `version` is the head's text ("" = nothing published), the hashes are those of the bytes of records and credentials.
    `unverified` are the uids of records that cannot be decoded, or that were found in a snapshot that failed
    verification; while there are any, versions carry no mac. `signed`: the head carries the mac that this writer would
    write. `unconfirmed`: the head's field. `intruders` are fields of another program, which the next version removes.
    `refused` are the keys that hold more than is read; the next write empties them.
    """

    version: str
    digest: str
    credentials_digest: str
    hashes: dict[str, str]
    credential_hashes: dict[str, str]
    unverified: frozenset[str]
    signed: bool
    complete: bool
    unconfirmed: frozenset[str]
    intruders: Intruders = NO_INTRUDERS
    refused: frozenset[str] = frozenset()

    @property
    def strays(self) -> set[str]:
        """The uids of credentials without a record."""
        return self.credential_hashes.keys() - self.hashes.keys()

    @property
    def fields(self) -> tuple[int | str, int | str]:
        """How many fields the keys of records and credentials have; "" for a key that is refused, which has any."""
        clusters = len(self.hashes) + len(self.intruders.clusters)
        credentials = len(self.credential_hashes) + len(self.intruders.credentials)
        return (
            "" if "clusters" in self.refused else clusters,
            "" if "credentials" in self.refused else credentials,
        )

    def readable(self, what: str, uids: list[str]) -> list[str]:
        """Those of `uids` whose field of the key `what` may be read: not what is refused, and no intruder."""
        if what in self.refused:
            return []
        intruders = self.intruders.clusters if what == "clusters" else self.intruders.credentials
        others = {name.decode(errors="replace") for name in intruders}
        return [uid for uid in uids if uid not in others] if others else uids


def with_deletions(
    edits: Mapping[str, bytes | None], drop: Iterable[str], intruders: Iterable[bytes]
) -> dict[Any, bytes | None]:
    """The edits with what is deleted. An intruder under a name that is written is replaced, and not deleted."""
    others = [name for name in intruders if name.decode(errors="replace") not in edits]
    deleted: dict[Any, bytes | None] = dict.fromkeys((*drop, *others))
    return {**edits, **deleted}


def edited(hashes: Mapping[str, str], edits: Mapping[str, bytes | None], drop: Iterable[str]) -> dict[str, str]:
    """The hashes of a Redis hash after these edits."""
    found = dict(hashes)
    for uid, raw in edits.items():
        if raw is None:
            found.pop(uid, None)
        else:
            found[uid] = record_hash(raw)
    for uid in drop:
        found.pop(uid, None)
    return found

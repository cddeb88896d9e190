"""What Redis keeps of former versions, read: transitions of records, the records of a version, differences. Pure.

The history has the record *before* each version. Walking back from the records of today gives every version that it
reaches. Records are JSON objects here, as the history holds them (the CA is replaced by its hash).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class FormerVersion:
    """An entry of the history: the records before `version`, by uid; None where there was none."""

    version: int
    at: datetime
    was: Mapping[str, Record | None]


@dataclass(frozen=True, slots=True)
class VersionChange:
    """An entry of the changes: the uids that a version touched."""

    version: int
    at: datetime
    put: frozenset[str] = frozenset()
    drop: frozenset[str] = frozenset()
    rotated: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Transition:
    """What one version did to one cluster. `before` or `after` is None where there was or is no record.

    `known`: the history has the record before; otherwise only that it was touched is known.
    """

    version: int
    at: datetime
    uid: str
    before: Record | None
    after: Record | None
    rotated: bool = False
    known: bool = True

    @property
    def name(self) -> str:
        return str((self.after or self.before or {}).get("name", self.uid))

    @property
    def what(self) -> str:
        """`published`, `removed`, `paused`, `resumed`, `new token`, or the state of access where that changed."""
        if self.known and self.before is None and self.after is not None:
            return "published"
        if self.after is None:
            return "removed"
        if self.known and self.before is not None:
            before, after = _state(self.before), _state(self.after)
            if before != after:
                return f"{before} → {after}"
            was, pause = self.before.get("pause"), self.after.get("pause")
            if was != pause:
                return "resumed" if pause is None else "paused"
            if self.before == self.after:
                return "new token"
        return "changed" if not self.rotated or self.known else "new token"

    @property
    def reason(self) -> str:
        """The reason of the access that the record has since then, or had last."""
        return _access(self.after or self.before or {})[1]

    @property
    def details(self) -> str:
        """The message of the access, or the members that differ."""
        if self.after is None or self.before is None:
            return access_message(self.after or {})
        if _access(self.before) != _access(self.after):
            return access_message(self.after)
        if (was := member(self.before, "pause")) != (pause := member(self.after, "pause")):
            return str((pause or was).get("reason", ""))
        changed = [path for path, _, _ in differences(self.before, self.after)]
        return ", ".join(changed)

    @property
    def explanation(self) -> str:
        """Reason and details in one text for people.

        Of a pause only the words of who asked for it; of a removal nothing, because the reason of the access that it
        had last is not why it was removed.
        """
        reason = "" if self.what in {"paused", "resumed", "removed"} else self.reason
        return ": ".join(filter(None, (reason, self.details)))


def transitions(
    entries: Sequence[FormerVersion], changes: Sequence[VersionChange], current: Mapping[str, Record]
) -> list[Transition]:
    """Every known transition of every cluster, newest first.

    `entries` and `changes` are in the order of versions. A version that only rotated tokens is in `changes` alone.
    """
    by_version = {one.version: one for one in changes}
    former = {one.version: one for one in entries}
    records: dict[str, Record] = dict(current)
    found: list[Transition] = []
    for version in sorted({*by_version, *former}, reverse=True):
        entry, change = former.get(version), by_version.get(version)
        rotated = change.rotated if change else frozenset()
        was = entry.was if entry else {}
        at = entry.at if entry else change.at if change else None
        assert at is not None
        touched = {*was, *rotated, *(change.put | change.drop if change else ())}
        for uid in sorted(touched):
            after = records.get(uid)
            known = uid in was or (change is not None and uid not in change.put | change.drop)
            before = was.get(uid, after if known else None)
            found.append(Transition(version, at, uid, before, after, rotated=uid in rotated, known=known))
        for uid, record in was.items():
            if record is None:
                records.pop(uid, None)
            else:
                records[uid] = record
    return found


class TooOld(ValueError):
    """The history does not reach back to that version. `oldest` is the first version that it gives."""

    def __init__(self, version: int, oldest: int) -> None:
        self.oldest = oldest
        super().__init__(f"version {version} is older than what the history keeps; the oldest is {oldest}")


def at_version(
    entries: Sequence[FormerVersion], current: Mapping[str, Record], *, version: int, newest: int
) -> dict[str, Record]:
    """The records as they were in `version`, by uid. `newest` is the version of `current`.

    Raises TooOld, or ValueError for a version that does not exist yet.
    """
    if version > newest or version < 1:
        raise ValueError(f"there is no version {version}; the newest is {newest}")
    oldest = oldest_version(entries, newest=newest)
    if version < oldest:
        raise TooOld(version, oldest)
    records = dict(current)
    for entry in sorted(entries, key=lambda one: -one.version):
        if entry.version <= version:
            break
        for uid, record in entry.was.items():
            if record is None:
                records.pop(uid, None)
            else:
                records[uid] = record
    return records


def oldest_version(entries: Sequence[FormerVersion], *, newest: int) -> int:
    """The first version whose records are still known."""
    return max(1, min(entry.version for entry in entries) - 1) if entries else newest


def differences(before: Record | None, after: Record | None, path: str = "") -> list[tuple[str, Any, Any]]:
    """The members that differ: path, value before and after; None for a missing value."""
    if isinstance(before, dict) and isinstance(after, dict):
        found: list[tuple[str, Any, Any]] = []
        for key in sorted({*before, *after}):
            found += differences(before.get(key), after.get(key), f"{path}.{key}" if path else key)
        return found
    return [] if before == after else [(path, before, after)]


def compared(
    before: Mapping[str, Record], after: Mapping[str, Record]
) -> Iterator[tuple[str, Record | None, Record | None]]:
    """The clusters whose record differs between two versions: uid, record before and after, ordered by name."""

    def name(uid: str) -> str:
        return str((after.get(uid) or before.get(uid) or {}).get("name", uid))

    for uid in sorted({*before, *after}, key=name):
        if before.get(uid) != after.get(uid):
            yield uid, before.get(uid), after.get(uid)


def of_cluster(found: Iterable[Transition], wanted: str) -> list[Transition]:
    """The transitions of the cluster with that name, title or uid, under whatever name it had."""
    found = list(found)
    named = {
        one.uid
        for one in found
        for record in (one.before, one.after)
        if one.uid == wanted or (record and wanted in (record.get("name"), record.get("title")))
    }
    return [one for one in found if one.uid in named]


def member(record: Record, name: str) -> Record:
    """An object inside of a record; empty if it is missing. Another version may have written the record."""
    found = record.get(name)
    return found if isinstance(found, dict) else {}


def access_message(record: Record) -> str:
    return str(member(record, "access").get("message", ""))


def _access(record: Record) -> tuple[str, str]:
    access = member(record, "access")
    return str(access.get("state", "")), str(access.get("reason", ""))


def _state(record: Record) -> str:
    return _access(record)[0]

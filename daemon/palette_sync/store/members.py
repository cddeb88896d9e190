"""The living processes, as they announce themselves to each other in `p:members`.

A value carries one mac per seal key of its process, so that processes with different newest keys understand each other.
All times are the Redis server's. What a process has seen counts until it is too old, also if Redis loses it: a Redis
that comes back empty must not make the others look dead.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from palette_sync.core.documents import DocumentError, decode_object, encode_document, format_time
from palette_sync.core.leadership import Member, Share
from palette_sync.core.mac_texts import UnclearText, member_text
from palette_sync.store.errors import StoreTooMuch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from palette_sync.store.connect import Link
    from palette_sync.store.keys import Keys
    from palette_sync.store.seal import Sealer

OUTAGE = 0.5  # of a life without an exchange: Redis could not be asked, or this process was stopped
FORGOTTEN = 10  # lives after which the entry of a dead process is removed
MOST = 1000  # entries that are read
MOST_MACS = 16
_UNREADABLE = (DocumentError, UnclearText, ValueError, KeyError, TypeError, AttributeError, OverflowError)
_LIFE = timedelta(seconds=15)  # of a process that does not say how long its announcement counts
_MILLISECOND = timedelta(milliseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Company:
    """The living processes at the server's time `now`.

    `unheard` are ids of those which were seen before, and whose newest announcement Redis does not hold (any more).
    `strangers` are the ids of living processes with other seal keys, with the time since which they have been seen.
    `after_outage`: Redis could not be asked for so long that others may not have announced themselves again yet.
    `silent` are ids that this process, which has just begun, found in Redis and has not heard: they may live and
    announce themselves soon, if Redis came back with older data.
    """

    now: datetime
    members: tuple[Member, ...]
    unheard: frozenset[str] = frozenset()
    strangers: Mapping[str, datetime] = field(default_factory=dict)
    after_outage: bool = False
    silent: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class _Unknown:
    """A value that cannot be verified. Its process lives while it changes.

    `digest`: its SHA-256. The value itself is not kept, because whoever wrote it chose its size.
    """

    digest: bytes
    first_at: datetime
    changed_at: datetime | None = None


class MemberBook:
    """Announces this process, and reads what the others announce. `life` is how long an announcement counts."""

    def __init__(self, link: Link, keys: Keys) -> None:
        self._link = link
        self._keys = keys
        self._seen: dict[str, Member] = {}
        self._seen_at: dict[str, float] = {}  # on the monotonic clock: when the announcement was new
        self._unknown: dict[str, _Unknown] = {}
        self._exchanged_at: float | None = None  # on the monotonic clock
        self._began_at: float | None = None
        self._silent: set[str] = set()

    @property
    def unknown(self) -> frozenset[str]:
        """The ids of entries that cannot be verified, of living and of dead processes."""
        return frozenset(self._unknown)

    async def server_time(self) -> datetime:
        """Raises StoreError."""
        return _EPOCH + await self._link.server_time(self._keys.members) * _MILLISECOND

    async def listen(self, sealer: Sealer, *, life: timedelta | None = None) -> Company:
        """Return who lives, without announcing anything. Without `life`, each counts for as long as it says itself.

        Processes with other seal keys are found from the second call on. Raises as `exchange`.
        """
        now = await self.server_time()
        self._check_number(await self._link.command("members", "HLEN", self._keys.members))
        found = await self._link.command("members", "HGETALL", self._keys.members)
        heard, _ = self._heard(sealer, found, now, life)
        return Company(now, tuple(heard.values()), strangers=self._strangers(now, life or _LIFE))

    async def exchange(self, sealer: Sealer, me: Member, *, life: timedelta) -> Company:
        """Announce `me` and return who lives, `me` among them. Raises StoreError, and StoreTooMuch for many entries."""
        key, link = self._keys.members, self._link
        now = await self.server_time()
        me = replace(me, seen_at=now, life=life)
        value = self._signed(sealer, me)
        _, number = await link.transaction("members", ("HSET", key, me.id, value), ("HLEN", key))
        after_outage = self._skip_outage(life)
        self._check_number(number)
        found = await link.command("members", "HGETALL", key)
        heard, dead = self._heard(sealer, found, now, life)
        heard[me.id] = me
        self._note_silent(sealer, found, heard, life)
        dead = [name for name in dead if name != me.id.encode()]
        if dead:
            await link.command("members", "HDEL", key, *dead)
        unheard = {name: one for name, one in self._seen.items() if self._is_unheard(one, heard.get(name), now, life)}
        for name, one in heard.items():
            if name not in unheard and self._seen.get(name) != one:
                self._seen_at[name] = time.monotonic()
        self._seen = heard | unheard
        return Company(
            now,
            tuple(self._seen.values()),
            frozenset(unheard),
            self._strangers(now, life),
            after_outage=after_outage,
            silent=frozenset(self._silent),
        )

    def _note_silent(
        self, sealer: Sealer, found: Mapping[bytes, bytes], heard: Mapping[str, Member], life: timedelta
    ) -> None:
        """At first, note which entries are too old to be of living processes. They get one life to be heard."""
        moment = time.monotonic()
        if self._began_at is None:
            self._began_at = moment
            names = {raw_id.decode(errors="replace"): value for raw_id, value in found.items()}
            named = {name: self._verified(sealer, name, value) for name, value in names.items()}
            self._silent = {name for name, one in named.items() if one is not None and not one.draining}
        if moment - self._began_at > life.total_seconds():
            self._silent.clear()
        self._silent -= heard.keys()

    def _skip_outage(self, life: timedelta) -> bool:
        """Return whether there was an outage. Nobody could announce itself in that time, so it makes nobody dead."""
        moment, before = time.monotonic(), self._exchanged_at
        self._exchanged_at = moment
        if before is None or moment - before <= OUTAGE * life.total_seconds():
            return False
        self._seen_at = {name: at + moment - before for name, at in self._seen_at.items()}
        return True

    def _check_number(self, number: int) -> None:
        if number > MOST:
            raise StoreTooMuch(
                f"{self._keys.members} in Redis holds {number} entries, and at most {MOST} are read; somebody else "
                f"writes to Redis. Delete the key: each daemon announces itself again"
            )

    def _is_unheard(self, known: Member, heard: Member | None, now: datetime, life: timedelta) -> bool:
        """Whether a process lived a moment ago, and Redis holds nothing newer of it than is known."""
        if time.monotonic() - self._seen_at[known.id] > life.total_seconds():
            return False
        # If the server's clock has gone back, what is known seems to lie in the future and is not compared.
        return heard is None or (_lives(known, now, life) and _time(heard) < _time(known))

    async def leave(self, member: str) -> None:
        """Remove this process, which ends. Raises StoreError."""
        await self._link.command("members", "HDEL", self._keys.members, member)

    def _heard(
        self, sealer: Sealer, found: Mapping[bytes, bytes], now: datetime, life: timedelta | None
    ) -> tuple[dict[str, Member], list[bytes]]:
        """The living members that Redis holds, by id, and the fields of dead ones."""
        heard: dict[str, Member] = {}
        unknown: dict[str, _Unknown] = {}
        dead: list[bytes] = []
        for raw_id, value in found.items():
            name = raw_id.decode(errors="replace")
            member = self._verified(sealer, name, value)
            if member is None:
                unknown[name] = one = _again(self._unknown.get(name), value, now)
                if now - (one.changed_at or one.first_at) > FORGOTTEN * (life or _LIFE):
                    dead.append(raw_id)
                continue
            counts = life or member.life or _LIFE
            if _lives(member, now, counts):
                heard[name] = member
            elif abs(now - _time(member)) > FORGOTTEN * counts:
                dead.append(raw_id)
        self._unknown = unknown
        return heard, dead

    def _strangers(self, now: datetime, life: timedelta) -> dict[str, datetime]:
        return {
            name: one.first_at
            for name, one in self._unknown.items()
            if one.changed_at is not None and now - one.changed_at <= life
        }

    def _signed(self, sealer: Sealer, me: Member) -> bytes:
        content = encode_document("member", _document(me))
        macs = ",".join(sealer.macs(member_text(self._keys.prefix, me.id, content))[:MOST_MACS])
        return macs.encode() + b" " + content

    def _verified(self, sealer: Sealer, name: str, value: bytes) -> Member | None:
        macs, _, content = value.partition(b" ")
        try:
            text = member_text(self._keys.prefix, name, content)
            given = macs.decode("ascii").split(",", MOST_MACS)[:MOST_MACS]
            if not any(sealer.mac_matches(text, mac) for mac in given):
                return None
            return _member(name, decode_object("member", content))
        except _UNREADABLE:
            return None


def _again(before: _Unknown | None, value: bytes, now: datetime) -> _Unknown:
    digest = hashlib.sha256(value).digest()
    if before is None:
        return _Unknown(digest, now)
    return before if before.digest == digest else _Unknown(digest, before.first_at, now)


def _time(member: Member) -> datetime:
    assert member.seen_at is not None
    return member.seen_at


def _lives(member: Member, now: datetime, life: timedelta) -> bool:
    # A Redis that runs on another host now may have another clock: what is far in the future counts as dead too.
    return abs(now - _time(member)) <= life


def _document(member: Member) -> dict[str, object]:
    moments = {
        "seen_at_ms": member.seen_at,
        "since_ms": member.since,
        "loaded_at_ms": member.loaded_at,
        "outdated_since_ms": member.outdated_since,
        "rejected_at_ms": member.rejected_at,
    }
    return {
        **{name: round((moment - _EPOCH) / _MILLISECOND) for name, moment in moments.items() if moment is not None},
        **({"life_ms": round(member.life / _MILLISECOND)} if member.life is not None else {}),
        "configuration": member.configuration,
        "former": list(member.former),
        "draining": member.draining,
        "version": member.version,
        "keys": list(member.keys),
        "instances": {
            name: {
                **({"memory": list(one.memory)} if one.memory is not None else {}),
                **({"rests_until": format_time(one.rests_until)} if one.rests_until is not None else {}),
                **({"fails_since": format_time(one.fails_since)} if one.fails_since is not None else {}),
                **({"reaches": one.reaches} if one.reaches is not None else {}),
                "verifies": one.verifies,
                "leading": one.leading,
            }
            for name, one in member.shares.items()
        },
    }


def _member(name: str, document: Mapping[str, Any]) -> Member:
    """Raises ValueError, KeyError, TypeError, AttributeError for anything else."""
    shares = {
        str(instance): Share(
            memory=(int(one["memory"][0]), int(one["memory"][1])) if "memory" in one else None,
            verifies=one["verifies"] is True,
            rests_until=datetime.fromisoformat(one["rests_until"]) if "rests_until" in one else None,
            leading=one["leading"] is True,
            fails_since=datetime.fromisoformat(one["fails_since"]) if "fails_since" in one else None,
            reaches=one["reaches"] is True if "reaches" in one else None,
        )
        for instance, one in document["instances"].items()
    }
    return Member(
        name,
        str(document["configuration"]),
        _EPOCH + int(document["loaded_at_ms"]) * _MILLISECOND,
        draining=document["draining"] is True,
        shares=shares,
        seen_at=_EPOCH + int(document["seen_at_ms"]) * _MILLISECOND,
        since=_moment(document, "since_ms"),
        life=int(document["life_ms"]) * _MILLISECOND if "life_ms" in document else None,
        version=str(document["version"]),
        keys=tuple(str(one) for one in document["keys"]),
        outdated_since=_moment(document, "outdated_since_ms"),
        rejected_at=_moment(document, "rejected_at_ms"),
        former=tuple(str(one) for one in document.get("former", ())),
    )


def _moment(document: Mapping[str, Any], name: str) -> datetime | None:
    return _EPOCH + int(document[name]) * _MILLISECOND if name in document else None

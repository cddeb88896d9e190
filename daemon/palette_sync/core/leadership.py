"""Which process leads which instance, when several run. Pure: every process decides from what all of them announce.

Each process announces itself in Redis, and knows from there which others live. All decide by the same rules, so that
they agree without talking to each other:

1. A process that drains, or that cannot verify what the living leader publishes, does not lead while another one can.
2. The newest memory leads. If Redis holds less than a living process remembers, only such a process fills it again,
   whatever its configuration. If Redis is empty and nobody remembers anything, everybody waits for one window before
   the first one begins.
3. The newest configuration leads. A process with another one leads only while no process has the newest.
4. A process that rests, because it stepped back (`core.stepping_back`), does not lead while another one can.
5. What is left is shared evenly, by rendezvous hashing with equal loads.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import TYPE_CHECKING

from palette_sync.core.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

MOVE_PAUSE = timedelta(minutes=1)  # for which a process leads at least, unless it must not

Order = tuple[int, int]  # epoch and version of a snapshot


class Standing(StrEnum):
    """Whether a process leads an instance, and why not. These words stand in status, metrics and alerts."""

    LEADS = "Leads"
    DRAINING = "Draining"
    KEYS_DIFFER = Reason.KEYS_DIFFER.value
    CONFIG_DIFFERS = Reason.CONFIG_DIFFERS.value
    OLDER_MEMORY = "OlderMemory"
    NO_MEMORY = "NoMemory"
    OTHERS_UNHEARD = "OthersUnheard"
    STEPPED_BACK = "SteppedBack"
    ANOTHER_LEADS = "AnotherLeads"


@dataclass(frozen=True, slots=True)
class Share:
    """What a process announces about one instance.

    `memory`: the newest snapshot that it knows and has verified; None = it knows nothing. `verifies`: False if its seal
    keys do not verify what the living leader publishes. `rests_until`: it stepped back, because it could not work.
    `leading`: it holds the lease. `fails_since`: since when its passes have failed, if that is long. `reaches`: whether
    Palette answered it when it looked last; None = it has no reason to look.
    """

    memory: Order | None = None
    verifies: bool = True
    rests_until: datetime | None = None
    leading: bool = False
    fails_since: datetime | None = None
    reaches: bool | None = None


@dataclass(frozen=True, slots=True)
class Member:
    """A living process, as it announced itself. `configuration` is the fingerprint of what it loaded at `loaded_at`.

    `seen_at` is when it announced itself, by the Redis server's clock, and `since` when it did so first. It counts as
    dead `life` after `seen_at`. `version` is that of the program. `keys` are the ids of its seal keys; the first one
    seals. `outdated_since`: since when a newer configuration than its own has been loaded somewhere. `rejected_at`:
    when it rejected a configuration, while that is so. `former`: fingerprints that a newer configuration replaced.
    """

    id: str
    configuration: str
    loaded_at: datetime
    draining: bool = False
    shares: Mapping[str, Share] = field(default_factory=dict)
    seen_at: datetime | None = None
    since: datetime | None = None
    life: timedelta | None = None
    version: str = ""
    keys: tuple[str, ...] = ()
    outdated_since: datetime | None = None
    rejected_at: datetime | None = None
    former: tuple[str, ...] = ()

    @property
    def leads(self) -> list[str]:
        """The instances whose lease it holds."""
        return sorted(name for name, one in self.shares.items() if one.leading)

    def rests(self, instance: str, now: datetime) -> bool:
        until = self.shares[instance].rests_until
        return until is not None and until > now


@dataclass(frozen=True, slots=True)
class Store:
    """What Redis holds of an instance: the newest snapshot that verifies, and since when it has held none."""

    order: Order | None
    empty_since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """`standing` of the process, and which process should lead instead, if that is known."""

    standing: Standing
    instead: str | None = None

    @property
    def leads(self) -> bool:
        return self.standing is Standing.LEADS


def decide(
    instance: str,
    me: Member,
    members: Collection[Member],
    store: Store,
    *,
    window: timedelta,
    now: datetime,
    unheard: Collection[str] = (),
) -> Decision:
    """Whether `me` should lead `instance`. `members` are all living processes, `me` among them.

    `window` is how long a process that knows nothing waits on an empty store for one that does. `unheard` are the ids
    of living processes whose newest announcement Redis has lost. What they know by now is unknown. So nobody fills a
    store that holds less than somebody remembers, before they announce themselves again or are dead.
    """
    runs = [one for one in members if instance in one.shares]
    sound = _sound(instance, runs)
    if me not in sound:
        obstacle = _obstacle(instance, me)
        assert obstacle is not None
        return Decision(obstacle)
    lost = _lost_something(instance, runs, store)
    if lost and any(one.id in unheard for one in runs):
        return Decision(Standing.OTHERS_UNHEARD)
    knowing = _with_newest_memory(instance, sound, store) if lost else sound
    if me not in knowing:
        return Decision(Standing.OLDER_MEMORY, knowing[0].id if len(knowing) == 1 else None)
    current = _with_newest_configuration(knowing)
    if me not in current:
        return Decision(Standing.CONFIG_DIFFERS, current[0].id if len(current) == 1 else None)
    rested = _rested(instance, current, now)
    if me not in rested:
        return Decision(Standing.STEPPED_BACK, rested[0].id if len(rested) == 1 else None)
    if store.order is None and me.shares[instance].memory is None and now < (store.empty_since or now) + window:
        return Decision(Standing.NO_MEMORY)
    chosen = assignment(_instances(runs), {name: _candidates(name, runs, now) for name in _instances(runs)})
    # Where memory decides, the load does not: only the processes that remember may fill the store again.
    leader = chosen[instance] if chosen[instance] in {one.id for one in rested} else _heaviest(instance, rested)
    return Decision(Standing.LEADS, leader) if leader == me.id else Decision(Standing.ANOTHER_LEADS, leader)


def able(instance: str, members: Iterable[Member], now: datetime) -> list[Member]:
    """Those who can lead an instance whose data Redis has not lost."""
    sound = _sound(instance, [one for one in members if instance in one.shares])
    return _rested(instance, _with_newest_configuration(sound), now)


def may_move(last_move: datetime | None, now: datetime) -> bool:
    """Whether an instance may change its leader again only to share the load, or because the leader stepped back."""
    return last_move is None or now - last_move >= MOVE_PAUSE


def assignment(instances: Sequence[str], candidates: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Give each instance to one of its candidates, evenly. `candidates` maps an instance to ids, at least one each.

    Rendezvous hashing: each instance prefers the candidate with the highest hash of both, so a process that comes or
    goes moves few others. No process gets more than its even share while another candidate has room.
    """
    everybody = {one for ids in candidates.values() for one in ids}
    room = -(-len(instances) // max(1, len(everybody)))
    load = dict.fromkeys(everybody, 0)
    given: dict[str, str] = {}
    for instance in sorted(instances):
        by_weight = sorted(candidates[instance], key=lambda one: _weight(instance, one), reverse=True)
        chosen = next((one for one in by_weight if load[one] < room), by_weight[0])
        load[chosen] += 1
        given[instance] = chosen
    return given


def remembered_more(instance: str, members: Iterable[Member], order: Order | None) -> bool:
    """Whether somebody remembers more of an instance than Redis holds (`order`)."""
    most = _most(instance, [one for one in members if instance in one.shares])
    return most is not None and (order is None or order < most)


def _obstacle(instance: str, member: Member) -> Standing | None:
    if member.draining:
        return Standing.DRAINING
    return None if member.shares[instance].verifies else Standing.KEYS_DIFFER


def _sound(instance: str, runs: list[Member]) -> list[Member]:
    return [one for one in runs if _obstacle(instance, one) is None] or runs


def _rested(instance: str, members: list[Member], now: datetime) -> list[Member]:
    return [one for one in members if not one.rests(instance, now)] or members


def _with_newest_configuration(members: Sequence[Member]) -> list[Member]:
    newest = max(members, key=lambda one: (one.loaded_at, one.configuration))
    return [one for one in members if one.configuration == newest.configuration]


def _most(instance: str, members: Iterable[Member]) -> Order | None:
    known = [one.shares[instance].memory for one in members]
    return max((one for one in known if one is not None), default=None)


def _lost_something(instance: str, members: Iterable[Member], store: Store) -> bool:
    """Whether Redis holds nothing, or less than somebody remembers."""
    most = _most(instance, members)
    return store.order is None or (most is not None and store.order < most)


def _with_newest_memory(instance: str, members: Sequence[Member], store: Store) -> list[Member]:
    """Everybody, if Redis holds at least as much as each of them knows; else those who know most."""
    most = _most(instance, members)
    if most is None or not _lost_something(instance, members, store):
        return list(members)
    return [one for one in members if one.shares[instance].memory == most]


def _candidates(instance: str, runs: Iterable[Member], now: datetime) -> list[str]:
    return [one.id for one in able(instance, runs, now)]


def _instances(runs: Iterable[Member]) -> list[str]:
    return sorted({name for one in runs for name in one.shares})


def _heaviest(instance: str, members: Iterable[Member]) -> str:
    return max((one.id for one in members), key=lambda one: _weight(instance, one))


def _weight(instance: str, member: str) -> bytes:
    return sha256(f"{instance}\n{member}".encode()).digest()

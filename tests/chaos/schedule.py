"""Which fault happens when: a list drawn from a seed, so that a failure can be replayed. Pure."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator


class FaultKind(StrEnum):
    """What goes wrong. The first word says where."""

    REDIS_RESTART = "redis-restart"
    REDIS_WIPE = "redis-wipe"
    REDIS_OLDER_DUMP = "redis-older-dump"
    REDIS_LOST_WRITES = "redis-lost-writes"
    REDIS_PAUSE = "redis-pause"
    REDIS_CONNECTIONS = "redis-connections"
    REDIS_READONLY = "redis-readonly"
    REDIS_OOM = "redis-oom"
    REDIS_FAILOVER = "redis-failover"
    REDIS_MASTER_DEATH = "redis-master-death"
    DAEMON_KILL = "daemon-kill"
    DAEMON_TERM = "daemon-term"
    DAEMON_STOP = "daemon-stop"
    DAEMON_SIGNALS = "daemon-signals"
    DAEMON_RELOAD = "daemon-reload"
    DAEMON_BROKEN_RELOAD = "daemon-broken-reload"
    DAEMON_CLOCK = "daemon-clock"
    PALETTE_ERROR = "palette-error"
    PALETTE_THROTTLED = "palette-throttled"
    PALETTE_HANG = "palette-hang"
    PALETTE_GARBAGE = "palette-garbage"
    PALETTE_DROP = "palette-drop"
    PALETTE_EMPTY = "palette-empty"
    PALETTE_HALF = "palette-half"
    PALETTE_NO_ROLES = "palette-no-roles"
    PALETTE_KEY_EXPIRED = "palette-key-expired"
    KUBE_DOWN = "kube-down"
    KUBE_ERROR = "kube-error"
    KUBE_UNAUTHORIZED = "kube-unauthorized"
    KUBE_FORBIDDEN = "kube-forbidden"
    KUBE_HANG = "kube-hang"
    KUBE_DROP = "kube-drop"
    KUBE_LOST_ANSWER = "kube-lost-answer"
    KUBE_LATENCY = "kube-latency"
    KUBE_NEW_CA = "kube-new-ca"
    KUBE_REVOKED = "kube-revoked"
    WORLD_DRIFT = "world-drift"
    WORLD_ADD = "world-add"
    WORLD_REMOVE = "world-remove"


# Only with Sentinel, and only without it.
WITH_SENTINEL = frozenset({FaultKind.REDIS_FAILOVER, FaultKind.REDIS_MASTER_DEATH})
WITHOUT_SENTINEL = frozenset({FaultKind.REDIS_RESTART, FaultKind.REDIS_READONLY, FaultKind.REDIS_LOST_WRITES})
# What may make Redis lose something that was acknowledged.
LOSES = frozenset({FaultKind.REDIS_WIPE, FaultKind.REDIS_OLDER_DUMP, FaultKind.REDIS_LOST_WRITES, *WITH_SENTINEL})

# How often each kind is drawn, relative to the others. What may lose data is drawn most.
WEIGHTS = {
    FaultKind.REDIS_WIPE: 5,
    FaultKind.REDIS_OLDER_DUMP: 5,
    FaultKind.REDIS_LOST_WRITES: 3,
    FaultKind.REDIS_RESTART: 3,
    FaultKind.REDIS_PAUSE: 2,
    FaultKind.REDIS_CONNECTIONS: 2,
    FaultKind.REDIS_READONLY: 2,
    FaultKind.REDIS_OOM: 2,
    FaultKind.REDIS_FAILOVER: 5,
    FaultKind.REDIS_MASTER_DEATH: 5,
    FaultKind.DAEMON_KILL: 6,
    FaultKind.DAEMON_STOP: 5,
    FaultKind.DAEMON_TERM: 3,
    FaultKind.DAEMON_CLOCK: 3,
    FaultKind.DAEMON_SIGNALS: 2,
    FaultKind.DAEMON_RELOAD: 2,
    FaultKind.PALETTE_EMPTY: 2,
    FaultKind.PALETTE_NO_ROLES: 2,
    FaultKind.WORLD_DRIFT: 2,
}
LONGEST = 6.0  # seconds that a fault lasts; renewals have to fit between two faults


@dataclass(frozen=True, slots=True)
class Step:
    """One fault: `pause` seconds after the one before it began, lasting `seconds`.

    `draw` (0 <= x < 1) chooses what it hits, such as the daemon, the cluster or the dump.
    """

    number: int
    kind: FaultKind
    pause: float
    seconds: float
    draw: float

    def __str__(self) -> str:
        return f"{self.number}: {self.kind}, {self.seconds:.1f} s, draw {self.draw:.3f}"


def kinds_for(*, sentinel: bool) -> list[FaultKind]:
    """The kinds that can happen with Sentinel, or with a single Redis."""
    without = WITHOUT_SENTINEL if sentinel else WITH_SENTINEL
    return [kind for kind in FaultKind if kind not in without]


def steps(seed: int, *, pace: float, kinds: Collection[FaultKind] = tuple(FaultKind)) -> Iterator[Step]:
    """Draw faults of `kinds` without end. `pace` is the mean pause between two of them, in seconds.

    One seed always gives the same faults, whatever the pace.
    """
    generator = random.Random(seed)
    drawn = sorted(kinds)
    weights = [WEIGHTS.get(kind, 1) for kind in drawn]
    number = 0
    while True:
        number += 1
        yield Step(
            number=number,
            kind=generator.choices(drawn, weights)[0],
            pause=pace * generator.uniform(0.3, 1.7),
            seconds=generator.uniform(0.2, LONGEST),
            draw=generator.random(),
        )

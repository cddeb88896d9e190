"""When a leader that cannot work leaves an instance to another process. Pure: `now` is an argument.

A leader whose passes have failed for `step_back` announces it. All processes then look whether Palette answers them,
and announce what they found. A leader that Palette does not answer hands over to a process that Palette answers. After
that it rests: it does not lead while another process can. Each time that it steps back again it rests for twice as
long, up to an hour; a pass that succeeds ends that. A rest ends only once Palette answers again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from palette_sync.core.leadership import able

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from palette_sync.core.leadership import Member

LONGEST_REST = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Rest:
    """A process stepped back, and does not lead before `until` while another one can. `pause`: how long it rests."""

    until: datetime
    pause: timedelta


def wants_a_look(
    instance: str, members: Collection[Member], rest: Rest | None, now: datetime, ahead: timedelta
) -> bool:
    """Whether this process should look at Palette: a leader's passes fail, or its own `rest` ends within `ahead`."""
    shares = [one.shares[instance] for one in members if instance in one.shares]
    return any(one.leading and one.fails_since is not None for one in shares) or (
        rest is not None and rest.until - ahead <= now and rest.until > now - ahead
    )


def successor(instance: str, me: Member, members: Collection[Member], now: datetime) -> str | None:
    """Which process should lead rather than `me`. None: `me` works, has stepped back before, or nobody is better.

    A process that stands by steps back too if Palette does not answer it. Else it might take over next.
    """
    share = me.shares[instance]
    works = share.reaches is not False or (share.leading and share.fails_since is None)
    if works or me.rests(instance, now):
        return None
    # Only a process that would lead otherwise: not one with an older configuration, for example.
    others = [one.id for one in able(instance, members, now) if one.id != me.id and one.shares[instance].reaches]
    return min(others, default=None)


def next_rest(
    rest: Rest | None, *, steps_back: bool, reaches: bool | None, works: bool, now: datetime, step_back: timedelta
) -> Rest | None:
    """The rest from now on. None: this process has not stepped back, or has worked since then.

    `works`: it leads again, and a pass succeeded. `reaches`: whether Palette answered its last look.
    """
    if steps_back:
        pause = step_back if rest is None else min(2 * rest.pause, max(LONGEST_REST, step_back))
        return Rest(now + pause, pause)
    if rest is None or works:
        return None
    if rest.until <= now and reaches is False:
        return replace(rest, until=now + step_back)
    return rest

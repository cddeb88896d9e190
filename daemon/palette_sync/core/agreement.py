"""Whether the living processes run the same configuration, and which one is the newest. Pure.

What counts is when a configuration was loaded somewhere for the first time, by the clock of the Redis server. So a
process that starts, or is reloaded, with what another one has loaded before has loaded nothing new.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from palette_sync.core.leadership import Member

MOST_FORMER = 8  # fingerprints of configurations that a process remembers as replaced
_JUST_BEFORE = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class Loaded:
    """The configuration of this process as the others see it.

    `configuration` is its fingerprint. `read_at` is when this process read the file, by its own clock; it only shows
    whether the file was read again. `loaded_at` is by the server's clock. `outdated_since`: since when a newer one has
    been loaded somewhere; it stays when the process that had the newer one is gone. `former` are the fingerprints that
    a newer configuration replaced, the latest one last.
    """

    configuration: str
    read_at: datetime
    loaded_at: datetime
    outdated_since: datetime | None = None
    former: tuple[str, ...] = ()


def at_start(configuration: str, read_at: datetime, others: Collection[Member], now: datetime) -> Loaded:
    """A process starts, or begins to announce itself, beside the living `others`.

    A configuration that one of them has replaced is older than the one in force there: a process that starts again with
    an old file must not take over.
    """
    same = [one for one in others if one.configuration == configuration]
    replaced_by = [one for one in others if configuration in one.former]
    loaded, outdated = now, [one.outdated_since for one in same]
    if same:
        loaded = min(one.loaded_at for one in same)
    elif replaced_by:
        loaded = min(one.loaded_at for one in replaced_by) - _JUST_BEFORE
    since = min((one for one in outdated if one is not None), default=None) if None not in outdated else None
    return compared(Loaded(configuration, read_at, loaded, since), others, now)


def read_again(
    loaded: Loaded, configuration: str, read_at: datetime, others: Collection[Member], now: datetime
) -> Loaded:
    """The process has read its file again. Content that is the same is no newer configuration than before.

    Whoever asks for a reload after the others are gone means the file as it is, so it is not outdated any more.
    """
    if configuration == loaded.configuration:
        again = replace(loaded, read_at=read_at, outdated_since=None)
        found = compared(again, others, now)
        return replace(found, outdated_since=found.outdated_since and (loaded.outdated_since or now))
    former = _joined(loaded.former, [loaded.configuration], but=configuration)
    return compared(Loaded(configuration, read_at, now, former=former), others, now)


def compared(loaded: Loaded, others: Collection[Member], now: datetime) -> Loaded:
    """Compare with what the living `others` run."""
    mine = (loaded.loaded_at, loaded.configuration)
    different = [one for one in others if one.configuration != loaded.configuration]
    newer = [one for one in different if (one.loaded_at, one.configuration) > mine]
    if newer:
        outdated_since = loaded.outdated_since or now
    elif any(one.configuration == loaded.configuration and one.outdated_since is None for one in others):
        outdated_since = None
    else:
        outdated_since = loaded.outdated_since
    older = [one for one in different if one not in newer]
    known = [one for member in older for one in (*member.former, member.configuration)]
    former = _joined(loaded.former, known, but=loaded.configuration)
    return replace(loaded, outdated_since=outdated_since, former=former)


def _joined(former: tuple[str, ...], more: Collection[str], *, but: str) -> tuple[str, ...]:
    found = dict.fromkeys((*former, *more))
    found.pop(but, None)
    return tuple(found)[-MOST_FORMER:]

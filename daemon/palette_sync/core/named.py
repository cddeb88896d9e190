"""Which published cluster a person means by a name. Pure."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from palette_sync.core.model import ClusterRecord

MOST_NEAR = 3


@dataclass(frozen=True, slots=True)
class Named:
    """The clusters that fit, and where none does, the names that are near."""

    found: tuple[ClusterRecord, ...]
    near: tuple[str, ...] = ()


def named(wanted: str, records: Iterable[ClusterRecord]) -> Named:
    """Find clusters by name, uid or title, each also as `instance/...`. The first of these that fits decides.

    A name is unique over all instances, a uid within one, and a title may be that of several clusters.
    """
    known = list(records)
    instance, slash, rest = wanted.partition("/")
    of_instance = [one for one in known if slash and one.instance == instance]
    for text, some in ((wanted, known), (rest, of_instance)):
        for fits in (_by_name, _by_uid, _by_title):
            if found := tuple(one for one in some if fits(one) == text):
                return Named(found)
    names = {name for one in known for name in (one.name, f"{one.instance}/{one.name}")}
    lowered = {name.lower(): name for name in sorted(names)}
    close = difflib.get_close_matches(wanted.lower(), sorted(lowered), n=2 * MOST_NEAR)
    wanted_form = [lowered[one] for one in close if ("/" in lowered[one]) == bool(slash)]
    return Named((), tuple(wanted_form[:MOST_NEAR]))


def full_name(record: ClusterRecord) -> str:
    """A name that fits one cluster only."""
    return f"{record.instance}/{record.uid}"


def _by_name(record: ClusterRecord) -> str:
    return record.name


def _by_uid(record: ClusterRecord) -> str:
    return record.uid


def _by_title(record: ClusterRecord) -> str:
    return record.title

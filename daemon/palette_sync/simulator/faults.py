"""Faults that a test or an operator of the simulator puts in the way of requests, and the book that keeps them.

The first standing fault that matches a request decides what happens to it; `latency` faults add up and leave the
request otherwise alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Mapping

Target = Literal["palette", "kube", "issuer"]
Kind = Literal["status", "hang", "slow-body", "truncate", "garbage", "drop", "lost-answer", "redirect", "latency"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What goes wrong, and for which requests; a selector left at None matches everything.

    `path` is a regular expression searched in the path without query. `times` is how many requests it hits (None = for
    ever). By kind:

    - `status`: answers `status` with `headers` and `body` at once, without doing anything.
    - `hang`: never answers, until the client leaves or the simulator stops.
    - `slow-body`: does the work, then sends the body in small pieces, one every `seconds`.
    - `truncate`: does the work, announces the whole body, sends half of it and closes.
    - `garbage`: 200 with bytes that are no JSON and no YAML, without doing anything.
    - `drop`: closes the connection without an answer, without doing anything.
    - `lost-answer`: does the work and then closes the connection without an answer.
    - `redirect`: 307 to `location`.
    - `latency`: `seconds` more, then as usual.
    """

    target: Target
    kind: Kind
    instance: str | None = None
    cluster: str | None = None
    path: str | None = None
    project_uid: str | None = None
    method: str | None = None
    times: int | None = None
    status: int = 500
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str | None = None
    seconds: float = 0.1
    location: str = "https://127.0.0.1:1/elsewhere"

    def __post_init__(self) -> None:
        if self.target not in get_args(Target) or self.kind not in get_args(Kind):
            raise ValueError(f"no fault of kind {self.kind!r} for target {self.target!r}")
        if self.path is not None:
            try:
                re.compile(self.path)
            except re.error as error:
                raise ValueError(f"path is no regular expression: {error}") from None
        if self.times is not None and self.times < 1:
            raise ValueError("times is at least 1, or None for ever")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request arrived and what it asks for: all that faults and the request log look at."""

    target: Target
    instance: str
    cluster: str | None
    method: str
    path: str
    project_uid: str | None


@dataclass(frozen=True, slots=True)
class StandingFault:
    """A fault in the book: `remaining` counts down (None = for ever), `hits` counts up."""

    id: int
    fault: Fault
    remaining: int | None
    hits: int


@dataclass(slots=True)
class _Entry:
    fault: Fault
    pattern: re.Pattern[str] | None
    remaining: int | None
    hits: int = 0

    def matches(self, origin: Origin) -> bool:
        fault = self.fault
        return (
            fault.target == origin.target
            and fault.instance in {None, origin.instance}
            and fault.cluster in {None, origin.cluster}
            and fault.method in {None, origin.method}
            and fault.project_uid in {None, origin.project_uid}
            and (self.pattern is None or self.pattern.search(origin.path) is not None)
            and self.remaining != 0
        )

    def hit(self) -> None:
        self.hits += 1
        if self.remaining is not None:
            self.remaining -= 1


class FaultBook:
    """The standing faults, in the order in which they were added."""

    def __init__(self) -> None:
        self._entries: dict[int, _Entry] = {}
        self._last_id = 0

    def add(self, fault: Fault) -> int:
        """Put `fault` in force and return its id."""
        self._last_id += 1
        pattern = re.compile(fault.path) if fault.path is not None else None
        self._entries[self._last_id] = _Entry(fault, pattern, fault.times)
        return self._last_id

    def remove(self, fault_id: int) -> bool:
        """Lift a fault; False if there is none of that id."""
        return self._entries.pop(fault_id, None) is not None

    def clear(self) -> None:
        self._entries.clear()

    def standing(self) -> tuple[StandingFault, ...]:
        return tuple(StandingFault(i, e.fault, e.remaining, e.hits) for i, e in self._entries.items())

    def meet(self, origin: Origin) -> tuple[float, Fault | None]:
        """The extra latency (seconds) and the fault that this request meets; both count as hits."""
        if not self._entries:
            return 0.0, None
        extra = 0.0
        for entry in self._entries.values():
            if not entry.matches(origin):
                continue
            entry.hit()
            if entry.fault.kind != "latency":
                return extra, entry.fault
            extra += entry.fault.seconds
        return extra, None

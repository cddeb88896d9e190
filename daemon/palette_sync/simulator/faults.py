"""Fault injection: faults that tests add to the simulator, and the list of the active ones.

The first active fault that matches a request decides what happens to it. `latency` faults add up and change nothing
else.
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
    """What goes wrong, and for which requests. A selector that is None matches every request.

    `path` is a regular expression that is searched in the path without query. `times` is the number of requests that
    the fault hits (None = no limit). The kinds:

    - `status`: answer with `status`, `headers` and `body`; the request is not executed.
    - `hang`: do not answer until the client disconnects or the simulator stops.
    - `slow-body`: execute the request, then send the body in small pieces, one every `seconds`.
    - `truncate`: execute the request, announce the full length, send half of the body and close.
    - `garbage`: answer 200 with bytes that are neither JSON nor YAML; the request is not executed.
    - `drop`: close the connection without an answer; the request is not executed.
    - `lost-answer`: execute the request, then close the connection without an answer.
    - `redirect`: answer 307 to `location`; the request is not executed.
    - `latency`: wait `seconds`, then answer normally.
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
            raise ValueError(f"there is no fault of kind {self.kind!r} for target {self.target!r}")
        if self.path is not None:
            try:
                re.compile(self.path)
            except re.error as error:
                raise ValueError(f"path is not a regular expression: {error}") from None
        if self.times is not None and self.times < 1:
            raise ValueError("times must be at least 1, or None for no limit")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request arrived and what it asks for, as faults and the request log see it."""

    target: Target
    instance: str
    cluster: str | None
    method: str
    path: str
    project_uid: str | None


@dataclass(frozen=True, slots=True)
class StandingFault:
    """An active fault with the number of hits so far and the hits that remain (None = no limit)."""

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
    """The active faults, in the order in which they were added."""

    def __init__(self) -> None:
        self._entries: dict[int, _Entry] = {}
        self._last_id = 0

    def add(self, fault: Fault) -> int:
        """Add a fault and return its id."""
        self._last_id += 1
        pattern = re.compile(fault.path) if fault.path is not None else None
        self._entries[self._last_id] = _Entry(fault, pattern, fault.times)
        return self._last_id

    def remove(self, fault_id: int) -> bool:
        """Remove a fault; False if no fault has that id."""
        return self._entries.pop(fault_id, None) is not None

    def clear(self) -> None:
        self._entries.clear()

    def standing(self) -> tuple[StandingFault, ...]:
        return tuple(StandingFault(i, e.fault, e.remaining, e.hits) for i, e in self._entries.items())

    def meet(self, origin: Origin) -> tuple[float, Fault | None]:
        """Return the extra latency (seconds) and the fault for a request, and count them as hits."""
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

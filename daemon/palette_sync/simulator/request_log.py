"""The log of requests to the simulator: a bounded list of the latest requests, and exact counters of all requests.

It holds no bodies, and of a credential only its kind.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from palette_sync.simulator.faults import Target

CredentialKind = Literal["client-certificate", "bearer", "api-key", "anonymous"]


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """One request. `time` is Unix time in seconds; `status` is None if no answer was sent."""

    time: float
    target: Target
    instance: str
    cluster: str | None
    method: str
    path: str
    query: str
    status: int | None
    project_uid: str | None
    credential: CredentialKind


_Counted = tuple[str, str, str | None, str, str]


class RequestLog:
    """Counts all requests since the last `reset`; `entries` holds the latest `keep` requests, oldest first."""

    def __init__(self, keep: int = 20_000) -> None:
        self.entries: deque[LoggedRequest] = deque(maxlen=keep)
        self._counts: Counter[_Counted] = Counter()

    def add(self, request: LoggedRequest) -> None:
        self.entries.append(request)
        self._counts[request.target, request.instance, request.cluster, request.method, request.path] += 1

    def count(
        self,
        target: Target | None = None,
        *,
        instance: str | None = None,
        cluster: str | None = None,
        method: str | None = None,
        path_regex: str | None = None,
    ) -> int:
        """Count the requests since the last reset that match all arguments. `path_regex` is searched in the path."""
        wanted = (target, instance, cluster, method)
        pattern = re.compile(path_regex) if path_regex is not None else None
        return sum(
            number
            for key, number in self._counts.items()
            if all(want in {None, have} for want, have in zip(wanted, key[:4], strict=True))
            and (pattern is None or pattern.search(key[4]) is not None)
        )

    def reset(self) -> None:
        self.entries.clear()
        self._counts.clear()

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
    """One request. `time` is when it arrived, Unix time in seconds; `status` is None if no answer was sent."""

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
    user_agent: str = ""

    @property
    def writes(self) -> bool:
        """Whether it may change objects of a cluster. Reviews are POST requests that change nothing."""
        return self.target == "kube" and self.method not in {"GET", "HEAD"} and _REVIEWS.search(self.path) is None


_REVIEWS = re.compile(r"^/apis/(authorization|authentication)[.]k8s[.]io/")
_Counted = tuple[str, str, str | None, str, str]


class RequestLog:
    """Counts all requests since the last `reset`; `entries` holds the latest `keep` requests, oldest first."""

    def __init__(self, keep: int = 20_000) -> None:
        self.entries: deque[LoggedRequest] = deque(maxlen=keep)
        self._writes: deque[LoggedRequest] = deque(maxlen=keep)
        self._written = 0
        self._counts: Counter[_Counted] = Counter()

    def add(self, request: LoggedRequest) -> None:
        self.entries.append(request)
        if request.writes:
            self._writes.append(request)
            self._written += 1
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

    def writes_after(self, number: int) -> tuple[int, list[LoggedRequest]]:
        """The requests that write to clusters, without the first `number`; and the number of all until now."""
        new = max(0, min(self._written - number, len(self._writes)))
        return self._written, list(self._writes)[len(self._writes) - new :]

    def reset(self) -> None:
        self.entries.clear()
        self._writes.clear()
        self._written = 0
        self._counts.clear()

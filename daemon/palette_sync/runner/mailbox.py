"""What a runner is asked to do. Several ticks may become one pass; a resync is never lost."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace

from palette_sync.reconcile.ports import PassOptions
from palette_sync.reconcile.report import PassReport

ReportFuture = asyncio.Future[PassReport]

# Seconds for which a pass may work although something else is wanted: a renewal or a resync, or only a look at Palette.
# Each interruption costs about a second, in which nobody asks Palette for a kubeconfig.
URGENT_AFTER, LOOK_AFTER = 5.0, 30.0


@dataclass(frozen=True, slots=True)
class PassRequest:
    """What a runner is asked to do next.

    `listing`: list Palette. `scheduled`: because its time has come, so that the listing counts for the prune guard.
    `peek`: look for what changed since the last listing. `known`: work on known clusters that may be due. `resync`:
    verify every cluster. `verify`: verify these uids, which a pass of a resync left. `allow_prune`: drop without the
    prune guard. `key`: look up when the API key expires. `answers` get the report; `partial` is that of the passes that
    left the rest to this request.
    """

    listing: bool = False
    scheduled: bool = False
    known: bool = False
    resync: bool = False
    verify: frozenset[str] = frozenset()
    allow_prune: bool = False
    key: bool = False
    peek: bool = False
    answers: tuple[ReportFuture, ...] = ()
    partial: PassReport | None = None

    @property
    def options(self) -> PassOptions | None:
        """The options of the pass, or None if no pass is asked for. A resync always lists Palette."""
        lists = self.listing or self.resync or self.allow_prune
        if not (lists or self.known):
            return None
        return PassOptions(
            resync=self.resync,
            verify=self.verify,
            allow_prune=self.allow_prune,
            known_only=not lists,
            scheduled=self.scheduled,
        )

    def rest(self, report: PassReport) -> PassRequest:
        """What is left to do after a pass that postponed clusters. `report` is of all passes so far."""
        postponed = frozenset(report.postponed)
        return PassRequest(
            known=True,
            verify=postponed if self.resync else self.verify & postponed,
            answers=self.answers,
            partial=report if self.answers else None,
        )

    def join(self, other: PassRequest) -> PassRequest:
        return PassRequest(
            listing=self.listing or other.listing,
            scheduled=self.scheduled or other.scheduled,
            known=self.known or other.known,
            resync=self.resync or other.resync,
            verify=self.verify | other.verify,
            allow_prune=self.allow_prune or other.allow_prune,
            key=self.key or other.key,
            peek=self.peek or other.peek,
            answers=self.answers + other.answers,
            partial=self.partial or other.partial,
        )


@dataclass
class Mailbox:
    """Collects requests to a runner. `wanted` is set while there is one.

    All requests that arrive during a pass become one following pass.
    """

    wanted: asyncio.Event = field(default_factory=asyncio.Event)
    _pending: PassRequest = PassRequest()

    @property
    def pending(self) -> PassRequest:
        """The request that waits, without taking it."""
        return self._pending

    @property
    def patience(self) -> float | None:
        """How many seconds the present pass may work before what is asked for; None = nothing is asked for."""
        if not self.wanted.is_set():
            return None
        pending = self._pending
        urgent = pending.known or pending.resync or pending.allow_prune
        return URGENT_AFTER if urgent else LOOK_AFTER

    def tick(self) -> None:
        """Ask for a listing of Palette, because its time has come."""
        self.put(PassRequest(listing=True, scheduled=True))

    def nudge(self) -> None:
        """Ask for a pass over the known clusters, one of which may be due."""
        self.put(PassRequest(known=True))

    def peek(self) -> None:
        """Ask for a look at what changed in Palette since the last listing."""
        self.put(PassRequest(peek=True))

    def check_key(self) -> None:
        """Ask for a look at the expiry of the API key."""
        self.put(PassRequest(key=True))

    def resync(self) -> None:
        """Ask for a verification of every cluster."""
        self.put(PassRequest(resync=True))

    def ask(self, *, allow_prune: bool = False) -> ReportFuture:
        """Ask for a resync. The future gets the report of a pass that began after this call.

        It is cancelled if no such pass can be run.
        """
        answer: ReportFuture = asyncio.get_running_loop().create_future()
        self.put(PassRequest(resync=True, allow_prune=allow_prune, answers=(answer,)))
        return answer

    def put(self, request: PassRequest) -> None:
        self._pending = self._pending.join(request)
        self.wanted.set()

    def take(self) -> PassRequest:
        """Take the request that waits. What arrives from now on is for the next pass."""
        request, self._pending = self._pending, PassRequest()
        self.wanted.clear()
        return request

    def forget_nudge(self) -> None:
        """Withdraw a nudge: what is due has just been computed again."""
        self._pending = replace(self._pending, known=False)
        if self._pending == PassRequest():
            self.wanted.clear()

    def pass_on(self) -> None:
        """Cancel all answers, and forget what they are for: another process leads, and is asked instead."""
        pending = self._pending
        if pending.answers:
            rest = replace(pending, resync=False, allow_prune=False, verify=frozenset(), answers=(), partial=None)
            self._pending = rest
            for answer in pending.answers:
                answer.cancel()

    def close(self) -> None:
        """Cancel all answers; nobody will take a request any more."""
        for answer in self.take().answers:
            answer.cancel()

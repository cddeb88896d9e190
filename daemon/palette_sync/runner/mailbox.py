"""What a runner is asked to do. Several ticks may become one pass; a resync is never lost."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from palette_sync.reconcile.ports import PassOptions
from palette_sync.reconcile.report import PassReport

if TYPE_CHECKING:
    from palette_sync.core.model import Pause

ReportFuture = asyncio.Future[PassReport]
PausedFuture = asyncio.Future[bool]

# Seconds for which a pass may work although something else is wanted: a renewal or a resync, or only a look at Palette.
# Each interruption costs about a second, in which nobody asks Palette for a kubeconfig.
URGENT_AFTER, LOOK_AFTER = 5.0, 30.0
ASKED_AFTER = 0.5  # the same, when somebody asks for something of one cluster


@dataclass(frozen=True, slots=True)
class PauseOrder:
    """Publish this pause of a cluster; None ends one. `answer` is True once that is published, False if the cluster is
    not published, or the snapshot does not verify.
    """

    uid: str
    pause: Pause | None
    answer: PausedFuture


@dataclass(frozen=True, slots=True)
class PassRequest:
    """What a runner is asked to do next.

    `listing`: list Palette. `scheduled`: because its time has come, so that the listing counts for the prune guard.
    `peek`: look for what changed since the last listing. `known`: work on known clusters that may be due. `resync`:
    verify every cluster. `verify`: verify these uids, which a pass of a resync left. `asked`, `rotate`, `revoke`: as in
    `PassOptions`. `pauses`: pauses to publish before the pass. `allow_prune`: drop without the
    prune guard. `key`: look up when the API key expires. `answers` get the report; `partial` is that of the passes that
    left the rest to this request.
    """

    listing: bool = False
    scheduled: bool = False
    known: bool = False
    resync: bool = False
    verify: frozenset[str] = frozenset()
    asked: frozenset[str] = frozenset()
    rotate: frozenset[str] = frozenset()
    revoke: frozenset[str] = frozenset()
    pauses: tuple[PauseOrder, ...] = ()
    allow_prune: bool = False
    key: bool = False
    peek: bool = False
    answers: tuple[ReportFuture, ...] = ()
    partial: PassReport | None = None

    @property
    def options(self) -> PassOptions | None:
        """The options of the pass, or None if no pass is asked for. A resync always lists Palette."""
        lists = self.listing or self.resync or self.allow_prune
        if not (lists or self.known or self.asked):
            return None
        return PassOptions(
            resync=self.resync,
            verify=self.verify,
            asked=self.asked,
            rotate=self.rotate,
            revoke=self.revoke,
            allow_prune=self.allow_prune,
            known_only=not lists,
            scheduled=self.scheduled,
        )

    def cancel(self) -> None:
        """Nobody will do this: cancel all answers."""
        for answer in self.answers:
            answer.cancel()
        for order in self.pauses:
            order.answer.cancel()

    def rest(self, report: PassReport) -> PassRequest:
        """What is left to do after a pass that postponed clusters. `report` is of all passes so far."""
        postponed = frozenset(report.postponed)
        return PassRequest(
            known=True,
            verify=postponed if self.resync else self.verify & postponed,
            asked=self.asked & postponed,
            rotate=self.rotate & postponed,
            revoke=self.revoke & postponed,
            answers=self.answers,
            partial=report if self.answers else None,
        )

    @property
    def again(self) -> PassRequest:
        """What a retry asks for. Who waited has an answer by now, and asks again himself."""
        return replace(
            self, answers=(), asked=frozenset(), rotate=frozenset(), revoke=frozenset(), pauses=(), partial=None
        )

    def join(self, other: PassRequest) -> PassRequest:
        return PassRequest(
            listing=self.listing or other.listing,
            scheduled=self.scheduled or other.scheduled,
            known=self.known or other.known,
            resync=self.resync or other.resync,
            verify=self.verify | other.verify,
            asked=self.asked | other.asked,
            rotate=self.rotate | other.rotate,
            revoke=self.revoke | other.revoke,
            pauses=self.pauses + other.pauses,
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
        if pending.asked or pending.pauses:
            return ASKED_AFTER
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

    def ask_cluster(self, uid: str, *, rotate: bool = False, revoke: bool = False) -> ReportFuture:
        """Ask for work on one cluster, and get the report as `ask` does."""
        answer: ReportFuture = asyncio.get_running_loop().create_future()
        one, none = frozenset({uid}), frozenset[str]()
        self.put(
            PassRequest(asked=one, rotate=one if rotate else none, revoke=one if revoke else none, answers=(answer,))
        )
        return answer

    def pause(self, uid: str, pause: Pause | None) -> PausedFuture:
        """Ask for a pause, or for its end. The future is cancelled if that cannot be done any more."""
        answer: PausedFuture = asyncio.get_running_loop().create_future()
        self.put(PassRequest(pauses=(PauseOrder(uid, pause, answer),)))
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
        if pending.answers or pending.pauses:
            self._pending = replace(pending.again, resync=False, allow_prune=False, verify=frozenset())
            pending.cancel()

    def close(self) -> None:
        """Cancel all answers; nobody will take a request any more."""
        self.take().cancel()

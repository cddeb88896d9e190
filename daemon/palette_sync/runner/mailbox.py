"""What is wanted of an instance. A tick is a hint and may coalesce; a resync is a promise and is never lost."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace

from palette_sync.reconcile.ports import PassOptions
from palette_sync.reconcile.report import PassReport

ReportFuture = asyncio.Future[PassReport]


@dataclass(frozen=True, slots=True)
class PassRequest:
    """What was in a mailbox when it was emptied. `key`: look when the API key expires."""

    listing: bool = False
    known: bool = False
    resync: bool = False
    allow_prune: bool = False
    key: bool = False
    answers: tuple[ReportFuture, ...] = ()

    @property
    def options(self) -> PassOptions | None:
        """The pass that is wanted, if one is. What an operator asks for always lists Palette."""
        lists = self.listing or self.resync or self.allow_prune
        if not (lists or self.known):
            return None
        return PassOptions(resync=self.resync, allow_prune=self.allow_prune, known_only=not lists)

    def join(self, other: PassRequest) -> PassRequest:
        return PassRequest(
            listing=self.listing or other.listing,
            known=self.known or other.known,
            resync=self.resync or other.resync,
            allow_prune=self.allow_prune or other.allow_prune,
            key=self.key or other.key,
            answers=self.answers + other.answers,
        )


@dataclass
class Mailbox:
    """Everybody's way to a runner. `wanted` is set while something is in the box.

    Five resyncs during a pass are one more pass; five ticks are one.
    """

    wanted: asyncio.Event = field(default_factory=asyncio.Event)
    _pending: PassRequest = PassRequest()

    @property
    def pending(self) -> PassRequest:
        """What is in the box."""
        return self._pending

    def tick(self) -> None:
        """The clock says that Palette may be listed."""
        self.put(PassRequest(listing=True))

    def nudge(self) -> None:
        """Something among the known clusters may be due."""
        self.put(PassRequest(known=True))

    def check_key(self) -> None:
        """It is time to look when the API key expires."""
        self.put(PassRequest(key=True))

    def resync(self) -> None:
        """An operator wants everything verified now."""
        self.put(PassRequest(resync=True))

    def ask(self, *, allow_prune: bool = False) -> ReportFuture:
        """A resync with an answer: the report of a pass that began after this call. Cancelled where none will be."""
        answer: ReportFuture = asyncio.get_running_loop().create_future()
        self.put(PassRequest(resync=True, allow_prune=allow_prune, answers=(answer,)))
        return answer

    def put(self, request: PassRequest) -> None:
        self._pending = self._pending.join(request)
        self.wanted.set()

    def take(self) -> PassRequest:
        """Empty the box: what arrives from now on is for the next pass."""
        request, self._pending = self._pending, PassRequest()
        self.wanted.clear()
        return request

    def forget_nudge(self) -> None:
        """What is due was computed anew just now, so an older hint of it means nothing."""
        self._pending = replace(self._pending, known=False)
        if self._pending == PassRequest():
            self.wanted.clear()

    def close(self) -> None:
        """Nobody will take the mail any more."""
        for answer in self.take().answers:
            answer.cancel()

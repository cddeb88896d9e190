"""What is wanted of an instance. A tick is a hint and may coalesce; a resync is a promise and is never lost."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace

from palette_sync.reconcile.ports import Wish
from palette_sync.reconcile.report import PassReport

Answer = asyncio.Future[PassReport]


@dataclass(frozen=True, slots=True)
class Mail:
    """What was in a mailbox when it was emptied. `key`: look when the API key expires."""

    listing: bool = False
    known: bool = False
    resync: bool = False
    allow_prune: bool = False
    key: bool = False
    answers: tuple[Answer, ...] = ()

    @property
    def wish(self) -> Wish | None:
        """The pass that is wanted, if one is. What an operator asks for always lists Palette."""
        lists = self.listing or self.resync or self.allow_prune
        if not (lists or self.known):
            return None
        return Wish(resync=self.resync, allow_prune=self.allow_prune, known_only=not lists)

    def join(self, other: Mail) -> Mail:
        return Mail(
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
    _mail: Mail = Mail()

    @property
    def mail(self) -> Mail:
        """What is in the box."""
        return self._mail

    def tick(self) -> None:
        """The clock says that Palette may be listed."""
        self.put(Mail(listing=True))

    def nudge(self) -> None:
        """Something among the known clusters may be due."""
        self.put(Mail(known=True))

    def check_key(self) -> None:
        """It is time to look when the API key expires."""
        self.put(Mail(key=True))

    def resync(self) -> None:
        """An operator wants everything verified now."""
        self.put(Mail(resync=True))

    def ask(self, *, allow_prune: bool = False) -> Answer:
        """A resync with an answer: the report of a pass that began after this call. Cancelled where none will be."""
        answer: Answer = asyncio.get_running_loop().create_future()
        self.put(Mail(resync=True, allow_prune=allow_prune, answers=(answer,)))
        return answer

    def put(self, mail: Mail) -> None:
        self._mail = self._mail.join(mail)
        self.wanted.set()

    def take(self) -> Mail:
        """Empty the box: what arrives from now on is for the next pass."""
        mail, self._mail = self._mail, Mail()
        self.wanted.clear()
        return mail

    def forget_nudge(self) -> None:
        """What is due was computed anew just now, so an older hint of it means nothing."""
        self._mail = replace(self._mail, known=False)
        if self._mail == Mail():
            self.wanted.clear()

    def close(self) -> None:
        """Nobody will take the mail any more."""
        for answer in self.take().answers:
            answer.cancel()

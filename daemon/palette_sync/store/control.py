"""Requests to the running daemon through Redis, so that they work in containers and from another machine.

`{p:i}:control` is a stream. A request carries one mac per seal key of the sender, over its id, verb, time and sender.
Somebody who can write to Redis but holds no key cannot command the daemon, and a daemon that has not loaded the newest
key yet still accepts a request to reload. All times are the Redis server's, so that clocks of different machines need
not agree. The daemon that leads the instance answers on the same stream: first `accepted`, then the result.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import orjson

from palette_sync.store.errors import StoreError, StoreUnavailable
from palette_sync.store.streams import append, read_on

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping

    from palette_sync.store.connect import Link
    from palette_sync.store.keys import Keys
    from palette_sync.store.seal import Sealer
    from palette_sync.store.streams import Entry

BLOCK = 4.0  # seconds that one read of requests waits at most
ANSWER_BLOCK = 1.0  # seconds that one read of answers waits at most
FRESH_MS = 60_000  # a request is accepted for this long
KEEP = 200  # entries of the stream
MOST_MACS = 16  # macs of a request that are checked


class Verb(StrEnum):
    RESYNC = "resync"
    ALLOW_PRUNE = "allow-prune"
    RELOAD = "reload"
    RELOAD_ALLOW_PRUNE = "reload-allow-prune"


class AnswerStatus(StrEnum):
    """Whether a request was received, has been carried out, or failed."""

    ACCEPTED = "accepted"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Request:
    """`at` is the server's time in milliseconds; `by` names the sender, for the daemon's log."""

    instance: str
    id: str
    verb: Verb
    at: int
    by: str


@dataclass(frozen=True, slots=True)
class Answer:
    """`text` is for people, `document` for programs."""

    word: AnswerStatus
    text: str = ""
    document: Mapping[str, Any] = field(default_factory=dict)


async def ask(
    link: Link, keys: Keys, sealer: Sealer, instance: str, verb: Verb, *, by: str
) -> AsyncIterator[Answer | None]:
    """Send a request and yield its answers as they arrive, and None about every second while there is none.

    Ends after an answer that is not `accepted`. It never gives up, so the caller limits the time. Raises StoreError.
    """
    key = keys.control(instance)
    request = Request(instance, secrets.token_hex(8), verb, await link.server_time(), by)
    fields = {"id": request.id, "request": verb.value, "at": str(request.at), "by": by}
    last = await append(link, key, {**fields, "mac": _mac(sealer, request)}, keep=KEEP)
    while True:
        entries = await read_on(link, {key: last}, wait=ANSWER_BLOCK)
        for entry in entries:
            last = entry.id
            found = _answer(entry.fields, sealer, request)
            if found is not None:
                yield found
                if found.word is not AnswerStatus.ACCEPTED:
                    return
        if not entries:
            yield None


async def answer(link: Link, keys: Keys, sealer: Sealer, request: Request, given: Answer) -> None:
    """Answer a request. Raises StoreError."""
    document = orjson.dumps(given.document).decode()
    fields = {"answer": request.id, "word": given.word.value, "text": given.text[:1000], "document": document}
    mac = sealer.mac(request.instance, 0, 0, _answer_digest(fields))
    await append(link, keys.control(request.instance), {**fields, "mac": mac}, keep=KEEP)


class RequestReader:
    """Reads the requests of all instances that a process leads, each request once.

    `unreadable_streams` names the instances whose stream cannot be read, with the reason.
    """

    def __init__(self, link: Link, keys: Keys) -> None:
        self._link = link
        self._keys = keys
        self._last: dict[str, str] = {}  # by instance: the id of the last entry that was read
        self._seen: dict[str, int] = {}  # by request id: the time of its entry
        self.unreadable_streams: dict[str, str] = {}

    async def wait(self, instances: Collection[str], sealer: Callable[[], Sealer]) -> list[Request]:
        """Wait some seconds for requests, and return those that are authentic and fresh. Raises StoreError.

        `sealer` is called after the wait, because a reload may have changed the keys meanwhile.
        """
        await self._follow(instances)
        entries = await self._read()
        keys = sealer()
        answered = {
            entry.fields["answer"]
            for instance, entry in entries
            if "answer" in entry.fields and _completes(entry.fields, keys, instance)
        }
        found = []
        for instance, entry in entries:
            self._last[instance] = entry.id
            written = int(entry.id.partition("-")[0])
            request = _request(instance, entry.fields)
            if request is None or request.id in answered or request.id in self._seen:
                continue
            if abs(written - request.at) <= FRESH_MS and _authentic(keys, request, entry.fields.get("mac", "")):
                self._seen[request.id] = written
                found.append(request)
        newest = max(self._seen.values(), default=0)
        self._seen = {one: at for one, at in self._seen.items() if at > newest - 3 * FRESH_MS}
        return found

    async def _follow(self, instances: Collection[str]) -> None:
        """Read these instances from now on. Fresh requests that were sent while nobody led an instance count."""
        for gone in self._last.keys() - set(instances):
            del self._last[gone]
            self.unreadable_streams.pop(gone, None)
        for new in set(instances) - self._last.keys():
            self._last[new] = f"{max(0, await self._link.server_time() - FRESH_MS)}-0"

    async def _read(self) -> list[tuple[str, Entry]]:
        """Return new entries of all streams, by instance. A stream that cannot be read does not block the others."""
        entries = await self._read_each(self.unreadable_streams.keys() & self._last.keys())  # they may be repaired
        readable = [instance for instance in self._last if instance not in self.unreadable_streams]
        if entries or not readable:
            return entries
        try:
            return await self._read_on(readable, wait=BLOCK)
        except StoreUnavailable:
            raise
        except StoreError:
            return await self._read_each(readable)

    async def _read_each(self, instances: Iterable[str]) -> list[tuple[str, Entry]]:
        """Read each stream by itself, without waiting, and note which of them cannot be read."""
        entries = []
        for instance in instances:
            try:
                entries += await self._read_on([instance], wait=0.001)
                self.unreadable_streams.pop(instance, None)
            except StoreUnavailable:
                raise
            except StoreError as error:
                self.unreadable_streams[instance] = str(error)
        return entries

    async def _read_on(self, instances: Iterable[str], *, wait: float) -> list[tuple[str, Entry]]:
        of_key = {self._keys.control(instance): instance for instance in instances}
        after = {key: self._last[instance] for key, instance in of_key.items()}
        return [(of_key[entry.key], entry) for entry in await read_on(self._link, after, wait=wait)]


def _request(instance: str, fields: Mapping[str, str]) -> Request | None:
    try:
        return Request(instance, fields["id"], Verb(fields["request"]), int(fields["at"]), fields.get("by", "")[:200])
    except (KeyError, ValueError):
        return None


def _answer(fields: Mapping[str, str], sealer: Sealer, request: Request) -> Answer | None:
    if fields.get("answer") != request.id or not _authentic_answer(fields, sealer, request.instance):
        return None
    found = _answer_fields(fields)
    try:
        return Answer(AnswerStatus(found["word"]), found["text"], orjson.loads(found["document"]))
    except ValueError:
        return None


def _completes(fields: Mapping[str, str], sealer: Sealer, instance: str) -> bool:
    """Whether an answer ends its request. A request that was only accepted before a restart must be read again."""
    return fields.get("word") in {AnswerStatus.DONE, AnswerStatus.FAILED} and _authentic_answer(
        fields, sealer, instance
    )


def _authentic_answer(fields: Mapping[str, str], sealer: Sealer, instance: str) -> bool:
    return sealer.mac_matches(instance, 0, 0, _answer_digest(_answer_fields(fields)), fields.get("mac", ""))


def _answer_fields(fields: Mapping[str, str]) -> dict[str, str]:
    return {name: fields.get(name, "") for name in ("answer", "word", "text", "document")}


def _mac(sealer: Sealer, request: Request) -> str:
    return " ".join(sealer.macs(request.instance, 0, 0, _digest(request)))


def _authentic(sealer: Sealer, request: Request, macs: str) -> bool:
    digest = _digest(request)
    return any(sealer.mac_matches(request.instance, 0, 0, digest, mac) for mac in macs.split(" ")[:MOST_MACS])


def _digest(request: Request) -> str:
    """Hash a request. No snapshot has such a digest (or epoch 0), so a mac of one kind never fits the other."""
    text = f"{request.id}\n{request.verb.value}\n{request.at}\n{request.by}"
    return "control:" + hashlib.sha256(text.encode()).hexdigest()


def _answer_digest(fields: Mapping[str, str]) -> str:
    return "answer:" + hashlib.sha256("\n".join(fields.values()).encode()).hexdigest()

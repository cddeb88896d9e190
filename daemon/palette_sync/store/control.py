"""Requests to the running daemon through Redis, so that they work in containers and from another machine.

`{p:i}:control` is a stream. A request carries a mac made with each seal key, over its instance, its time and what is
asked: whoever can write Redis but holds no key cannot command the daemon, and one that does not know the newest key yet
can be told to reload. Times are the server's, so that no two machines' clocks need to agree. The daemon that leads the
instance answers on the same stream, first that it has heard (`accepted`).
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import orjson

from palette_sync.store.errors import StoreError, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping

    from palette_sync.store.redis import Store
    from palette_sync.store.seal import Sealer

BLOCK = 4.0  # seconds that one read waits at most
FRESH_MS = 60_000
KEEP = 200  # entries of the stream
MOST_MACS = 16  # of a request that are looked at


class Verb(StrEnum):
    RESYNC = "resync"
    ALLOW_PRUNE = "allow-prune"
    RELOAD = "reload"


class AnswerStatus(StrEnum):
    """What an answer says: heard, done as asked, or failed."""

    ACCEPTED = "accepted"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Request:
    """`at` is the server's time in milliseconds; `by` says who asks, for the daemon's log."""

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


async def ask(store: Store, sealer: Sealer, instance: str, verb: Verb, *, by: str) -> AsyncIterator[Answer | None]:
    """Send a request and yield its answers as they come, and None every few seconds in between. Raises StoreError.

    Ends with an answer that is not `accepted`; waits for ever otherwise, so the caller must set the end.
    """
    request = Request(instance, secrets.token_hex(8), verb, await store.server_time(), by)
    fields = {"id": request.id, "request": verb.value, "at": str(request.at), "by": by}
    last = await store.append_control(instance, {**fields, "mac": _mac(sealer, request)}, keep=KEEP)
    while True:
        found = await store.read_control({instance: last}, wait=min(BLOCK, 1.0))
        for _, last, entry in found:  # noqa: B007 - the last id is where to read on
            told = _answer(entry, sealer, request)
            if told is not None:
                yield told
                if told.word is not AnswerStatus.ACCEPTED:
                    return
        if not found:
            yield None


async def answer(store: Store, sealer: Sealer, request: Request, told: Answer) -> None:
    """Raises StoreError."""
    document = orjson.dumps(told.document).decode()
    fields = {"answer": request.id, "word": told.word.value, "text": told.text[:1000], "document": document}
    mac = sealer.mac(request.instance, 0, 0, _answer_digest(fields))
    await store.append_control(request.instance, {**fields, "mac": mac}, keep=KEEP)


class RequestReader:
    """Reads the requests of all instances that a process leads, each request once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._last: dict[str, str] = {}
        self._seen: dict[str, int] = {}
        self.unreadable_streams: dict[str, str] = {}  # streams that cannot be read, with the reason

    async def wait(self, instances: Collection[str], sealer: Callable[[], Sealer]) -> list[Request]:
        """Wait some seconds for requests that are genuine and fresh. Raises StoreError.

        `sealer` is asked after the waiting, for a reload may have come meanwhile.
        """
        for gone in self._last.keys() - set(instances):
            del self._last[gone]
            self.unreadable_streams.pop(gone, None)
        for new in set(instances) - self._last.keys():
            # What was asked while nobody led the instance still counts, as long as it is fresh.
            self._last[new] = f"{max(0, await self._store.server_time() - FRESH_MS)}-0"
        entries = await self._read()
        keys = sealer()
        answered = {
            entry["answer"] for instance, _, entry in entries if "answer" in entry and _ends(entry, keys, instance)
        }
        found = []
        for instance, entry_id, entry in entries:
            self._last[instance] = entry_id
            written = int(entry_id.partition("-")[0])
            request = _request(instance, entry)
            if request is None or request.id in answered or request.id in self._seen:
                continue
            if abs(written - request.at) <= FRESH_MS and _genuine(keys, request, entry.get("mac", "")):
                self._seen[request.id] = written
                found.append(request)
        newest = max(self._seen.values(), default=0)
        self._seen = {one: at for one, at in self._seen.items() if at > newest - 3 * FRESH_MS}
        return found

    async def _read(self) -> list[tuple[str, str, dict[str, str]]]:
        """New entries of all streams. One that somebody else spoilt makes the others no deafer. Raises StoreError."""
        entries = await self._one_by_one(self.unreadable_streams.keys() & self._last.keys())  # it may have been mended
        sound = {instance: last for instance, last in self._last.items() if instance not in self.unreadable_streams}
        if entries or not sound:
            return entries
        try:
            return await self._store.read_control(sound, wait=BLOCK)
        except StoreUnavailable:
            raise
        except StoreError:
            return await self._one_by_one(sound)

    async def _one_by_one(self, instances: Iterable[str]) -> list[tuple[str, str, dict[str, str]]]:
        """Read each stream by itself, without waiting, and note which of them cannot be read."""
        entries = []
        for instance in instances:
            try:
                entries += await self._store.read_control({instance: self._last[instance]}, wait=0.001)
                self.unreadable_streams.pop(instance, None)
            except StoreUnavailable:
                raise
            except StoreError as error:
                self.unreadable_streams[instance] = str(error)
        return entries


def _request(instance: str, entry: Mapping[str, str]) -> Request | None:
    try:
        return Request(instance, entry["id"], Verb(entry["request"]), int(entry["at"]), entry.get("by", "")[:200])
    except (KeyError, ValueError):
        return None


def _answer(entry: Mapping[str, str], sealer: Sealer, request: Request) -> Answer | None:
    if entry.get("answer") != request.id or not _genuine_answer(entry, sealer, request.instance):
        return None
    fields = _answer_fields(entry)
    try:
        return Answer(AnswerStatus(fields["word"]), fields["text"], orjson.loads(fields["document"]))
    except ValueError:
        return None


def _ends(entry: Mapping[str, str], sealer: Sealer, instance: str) -> bool:
    """Whether an answer says that the request was dealt with; one that was only accepted before a restart was not."""
    return entry.get("word") in {AnswerStatus.DONE, AnswerStatus.FAILED} and _genuine_answer(entry, sealer, instance)


def _genuine_answer(entry: Mapping[str, str], sealer: Sealer, instance: str) -> bool:
    return sealer.mac_matches(instance, 0, 0, _answer_digest(_answer_fields(entry)), entry.get("mac", ""))


def _answer_fields(entry: Mapping[str, str]) -> dict[str, str]:
    return {name: entry.get(name, "") for name in ("answer", "word", "text", "document")}


def _mac(sealer: Sealer, request: Request) -> str:
    return " ".join(sealer.macs(request.instance, 0, 0, _digest(request)))


def _genuine(sealer: Sealer, request: Request, macs: str) -> bool:
    digest = _digest(request)
    return any(sealer.mac_matches(request.instance, 0, 0, digest, mac) for mac in macs.split(" ")[:MOST_MACS])


def _digest(request: Request) -> str:
    """No snapshot has such a digest (or epoch 0), so a mac of one kind never serves as the other."""
    text = f"{request.id}\n{request.verb.value}\n{request.at}\n{request.by}"
    return "control:" + hashlib.sha256(text.encode()).hexdigest()


def _answer_digest(fields: Mapping[str, str]) -> str:
    return "answer:" + hashlib.sha256("\n".join(fields.values()).encode()).hexdigest()


def decode_entries(reply: Any) -> list[tuple[str, str, dict[str, str]]]:
    """Turn redis-py's form of XREAD's answer into (stream, id, fields)."""
    return [
        (stream.decode(), entry_id.decode(), {_text(name): _text(value) for name, value in (fields or {}).items()})
        for stream, entries in reply or ()
        for entry_id, fields in entries
    ]


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace")

"""Requests to the running daemon through Redis, so that they work in containers and from another machine.

`{p:i}:control` is a stream. A request carries one mac per seal key of the sender, over its id, verb, time and sender.
Somebody who can write to Redis but holds no key cannot command the daemon, and a daemon that has not loaded the newest
key yet still accepts a request to reload. All times are the Redis server's, so that clocks of different machines need
not agree. The daemon that leads the instance answers on the same stream: first `accepted`, then the result. One that
does not lead any more before there is a result passes the request on to the next leader, and answers `passed-on`.

`p:control` is the same for requests that concern every daemon. Each one answers, and its answers name it.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import orjson

from palette_sync.core.mac_texts import answer_text, request_text
from palette_sync.store.errors import StoreError, StoreTooMuch, StoreUnavailable
from palette_sync.store.streams import append, read_on

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterable, Mapping

    from palette_sync.store.connect import Link
    from palette_sync.store.keys import Keys
    from palette_sync.store.seal import Sealer
    from palette_sync.store.streams import Entry

BLOCK = 4.0  # seconds that one read of requests waits at most
ANSWER_BLOCK = 1.0  # seconds that one read of answers waits at most
FRESH_MS = 60_000  # a request is accepted for this long
CLAIM_MS = 180_000  # a claim outlives every moment at which its request would be accepted
MOST_ENTRIES = 200  # of each stream, per read
LONGEST_SENDER = 200  # characters of `by`
LONGEST_ARGUMENTS = 2000  # characters of `arguments`
KEEP = 200  # entries of the stream
MOST_MACS = 16  # macs of a request that are checked
EVERYBODY = ""  # instead of the name of an instance: the stream of requests to every daemon
_ID = re.compile(r"[0-9a-f]{16}", re.ASCII)
_AT = re.compile(r"[1-9][0-9]{0,14}", re.ASCII)


class Verb(StrEnum):
    RESYNC = "resync"
    ALLOW_PRUNE = "allow-prune"
    RELOAD = "reload"
    RELOAD_ALLOW_PRUNE = "reload-allow-prune"
    RESYNC_CLUSTER = "resync-cluster"
    ROTATE = "rotate"
    PAUSE = "pause"
    RESUME = "resume"

    @property
    def concerns_everybody(self) -> bool:
        """Whether it is asked of every daemon, and not of the one that leads an instance."""
        return self in {Verb.RELOAD, Verb.RELOAD_ALLOW_PRUNE}


class AnswerStatus(StrEnum):
    """Whether a request was received, was passed on to the next leader, has been carried out, or failed."""

    ACCEPTED = "accepted"
    PASSED_ON = "passed-on"
    DONE = "done"
    FAILED = "failed"

    @property
    def final(self) -> bool:
        return self in {AnswerStatus.DONE, AnswerStatus.FAILED}


@dataclass(frozen=True, slots=True)
class Request:
    """`at` is the server's time in milliseconds; `by` names the sender, for the daemon's log. `instance` may be
    `EVERYBODY`. `arguments`: for a verb that concerns one cluster, the JSON of `core.cluster_request`; else "".
    """

    instance: str
    id: str
    verb: Verb
    at: int
    by: str
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """`text` is for people, `document` for programs. `document["member"]` names the daemon that answers."""

    word: AnswerStatus
    text: str = ""
    document: Mapping[str, Any] = field(default_factory=dict)


async def ask(
    link: Link, keys: Keys, sealer: Sealer, instance: str, verb: Verb, *, by: str, arguments: str = ""
) -> AsyncIterator[Answer | None]:
    """Send a request and yield its answers as they arrive, and None about every second while there is none.

    Ends after `done` or `failed`. It never gives up, so the caller limits the time. Raises StoreError.
    """
    async for found in _ask(link, keys, sealer, instance, verb, by=by, arguments=arguments):
        yield found
        if found is not None and found.word.final:
            return


async def ask_everybody(
    link: Link, keys: Keys, sealer: Sealer, verb: Verb, *, by: str, request_id: str = ""
) -> AsyncGenerator[Answer | None]:
    """Send a request to every daemon, and yield as `ask`, without an end: the caller knows how many answers it awaits.

    `request_id`: 16 hex digits; without it, a random one. Raises StoreError.
    """
    async for found in _ask(link, keys, sealer, EVERYBODY, verb, by=by, request_id=request_id):
        yield found


async def _ask(
    link: Link,
    keys: Keys,
    sealer: Sealer,
    instance: str,
    verb: Verb,
    *,
    by: str,
    request_id: str = "",
    arguments: str = "",
) -> AsyncIterator[Answer | None]:
    request_id = request_id or secrets.token_hex(8)
    request = Request(
        instance, request_id, verb, await link.server_time(keys.control(instance)), by[:LONGEST_SENDER], arguments
    )
    last = await _send(link, keys, sealer, request)
    while True:
        entries = await read_on(link, {keys.control(instance): last}, wait=ANSWER_BLOCK)
        for entry in entries:
            last = entry.id
            found = _answer(entry.fields, sealer, keys, request)
            if found is not None:
                yield found
        if not entries:
            yield None


async def pass_on(link: Link, keys: Keys, sealer: Sealer, request: Request) -> None:
    """Let the next process that leads carry out a request which this process claimed and cannot finish.

    Whoever asked gets the answer of that process. Raises StoreError.
    """
    await link.command(f"pass on a request of {request.instance}", "DEL", keys.request(request.instance, request.id))
    await send_again(link, keys, sealer, request)


async def send_again(link: Link, keys: Keys, sealer: Sealer, request: Request) -> None:
    """Send a request again, so that it is fresh. Nobody carries it out who would not claim it. Raises StoreError."""
    await _send(link, keys, sealer, replace(request, at=await link.server_time(keys.control(request.instance))))


async def _send(link: Link, keys: Keys, sealer: Sealer, request: Request) -> str:
    """Returns the id of the entry."""
    fields = {
        "id": request.id,
        "request": request.verb.value,
        "at": str(request.at),
        "by": request.by,
        "arguments": request.arguments,
    }
    macs = " ".join(sealer.macs(_text(keys, request)))
    return await append(link, keys.control(request.instance), {**fields, "mac": macs}, keep=KEEP)


async def answer(link: Link, keys: Keys, sealer: Sealer, request: Request, given: Answer) -> None:
    """Answer a request. Raises StoreError."""
    document = orjson.dumps(given.document).decode()
    fields = {"answer": request.id, "word": given.word.value, "text": given.text[:1000], "document": document}
    mac = sealer.mac(_answer_text(keys, request.instance, fields))
    await append(link, keys.control(request.instance), {**fields, "mac": mac}, keep=KEEP)


class RequestReader:
    """Reads the requests to every daemon and those of all instances that a process leads, each request once.

    A request to every daemon is not claimed in Redis. This process remembers it while it is fresh. A process that has
    just started may carry it out although it has read the newest configuration already, which changes nothing.

    `unreadable_streams` names the instances whose stream cannot be read, with the reason.
    """

    def __init__(self, link: Link, keys: Keys) -> None:
        self._link = link
        self._keys = keys
        self._last: dict[str, str] = {}  # by instance: the id of the last entry that was read
        self._heard: dict[tuple[str, str, int], int] = {}  # requests that were received: the server's time
        self.unreadable_streams: dict[str, str] = {}

    async def wait(self, instances: Collection[str], sealer: Callable[[], Sealer]) -> list[Request]:
        """Wait some seconds for requests; return those that are authentic, fresh and claimed now. Raises StoreError.

        `EVERYBODY` among the `instances` stands for the requests to every daemon.

        `sealer` is called after the wait, because a reload may have changed the keys meanwhile.
        """
        await self._follow(instances)
        entries = await self._read()
        if not entries:
            return []
        now = {one: await self._time(one) for one in {instance for instance, _ in entries}}
        key = sealer()
        found = []
        for instance, entry in entries:
            self._last[instance] = entry.id
            request = _request(instance, entry.fields)
            if request is None or not _fresh(request, entry, now[instance]):
                continue
            if request.verb.concerns_everybody is not (instance == EVERYBODY):
                continue
            if self._authentic(key, request, entry.fields.get("mac", "")) and await self._claim(request):
                found.append(request)
        return found

    def _authentic(self, sealer: Sealer, request: Request, macs: str) -> bool:
        text = _text(self._keys, request)
        return any(sealer.mac_matches(text, mac) for mac in macs.split(" ", MOST_MACS)[:MOST_MACS])

    async def _claim(self, request: Request) -> bool:
        """Whether this process is to carry the request out: nobody else has claimed it.

        Somebody who writes to Redis may delete a claim and append the request again, so this process also remembers
        what it has received. A claim whose answer is lost is not repeated: the request counts as claimed, and the
        sender may ask again.
        """
        if not self._is_first(request):
            return False
        if request.instance == EVERYBODY:
            return True
        key = self._keys.request(request.instance, request.id)

        async def claim() -> object:
            return await self._link.client.execute_command("SET", key, "1", "NX", "PX", CLAIM_MS)

        return bool(await self._link.once(f"claim a request of {request.instance}", claim))

    def _is_first(self, request: Request) -> bool:
        """Remember a request. Returns False if it was received before.

        A request that was passed on has a new `at` and counts as another one. A reload that was sent again does not.
        """
        self._heard = {one: at for one, at in self._heard.items() if abs(request.at - at) <= CLAIM_MS}
        one = (request.instance, request.id, 0 if request.instance == EVERYBODY else request.at)
        first = one not in self._heard
        self._heard.setdefault(one, request.at)
        return first

    async def _follow(self, instances: Collection[str]) -> None:
        """Read these instances from now on. Fresh requests that were sent while nobody led an instance count."""
        for gone in self._last.keys() - set(instances):
            del self._last[gone]
            self.unreadable_streams.pop(gone, None)
        for new in set(instances) - self._last.keys():
            try:
                self._last[new] = f"{max(0, await self._time(new) - FRESH_MS)}-0"
            except StoreUnavailable:
                if not (self._link.clustered and self._last):
                    raise  # otherwise the others are read meanwhile

    async def _time(self, instance: str) -> int:
        """The time, in milliseconds, of the server that has the instance's stream: its clock made the ids in there."""
        return await self._link.server_time(self._keys.control(instance))

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
            except StoreTooMuch as error:
                # What is there cannot be read, so its ids are unknown: continue behind it.
                self._last[instance] = f"{await self._time(instance)}-0"
                self.unreadable_streams[instance] = str(error)
            except StoreError as error:
                self.unreadable_streams[instance] = str(error)
        return entries

    async def _read_on(self, instances: Iterable[str], *, wait: float) -> list[tuple[str, Entry]]:
        of_key = {self._keys.control(instance): instance for instance in instances}
        after = {key: self._last[instance] for key, instance in of_key.items()}
        return [(of_key[entry.key], entry) for entry in await read_on(self._link, after, wait=wait, most=MOST_ENTRIES)]


def _request(instance: str, fields: Mapping[str, str]) -> Request | None:
    request_id, at, by = fields.get("id", ""), fields.get("at", ""), fields.get("by", "")
    try:
        verb = Verb(fields.get("request", ""))
    except ValueError:
        return None
    arguments = fields.get("arguments", "")
    if not _ID.fullmatch(request_id) or not _AT.fullmatch(at):
        return None
    if len(by) > LONGEST_SENDER or len(arguments) > LONGEST_ARGUMENTS:
        return None
    return Request(instance, request_id, verb, int(at), by, arguments)


def _fresh(request: Request, entry: Entry, now: int) -> bool:
    """Whether the time that the sender signed is near the server's time, and near that of the entry."""
    written = int(entry.id.partition("-")[0])
    return abs(now - request.at) <= FRESH_MS and abs(written - request.at) <= FRESH_MS


def _answer(fields: Mapping[str, str], sealer: Sealer, keys: Keys, request: Request) -> Answer | None:
    if fields.get("answer") != request.id:
        return None
    found = {name: fields.get(name, "") for name in ("answer", "word", "text", "document")}
    try:
        word = AnswerStatus(found["word"])
        if not sealer.mac_matches(_answer_text(keys, request.instance, found), fields.get("mac", "")):
            return None
        return Answer(word, found["text"], orjson.loads(found["document"]))
    except ValueError:
        return None


def _text(keys: Keys, request: Request) -> str:
    return request_text(
        keys.prefix,
        request.instance,
        request_id=request.id,
        verb=request.verb.value,
        at=request.at,
        by=request.by,
        arguments=request.arguments,
    )


def _answer_text(keys: Keys, instance: str, fields: Mapping[str, str]) -> str:
    return answer_text(
        keys.prefix,
        instance,
        request_id=fields["answer"],
        word=fields["word"],
        text=fields["text"],
        document=fields["document"],
    )

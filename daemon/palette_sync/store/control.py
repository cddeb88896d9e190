"""Requests to the running daemon through Redis, so that they work in containers and from another machine.

`{p:i}:control` is a stream. A request carries a mac made with the seal key: whoever can write Redis but holds no key
cannot command the daemon. The daemon that leads the instance answers on the same stream.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from palette_sync.core.snapshot_codec import format_time

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from palette_sync.store.redis import Store
    from palette_sync.store.seal import Sealer

BLOCK = 4.0  # seconds that one read waits; below the socket timeout
FRESH = timedelta(seconds=60)
KEEP = 100


class Verb(StrEnum):
    RESYNC = "resync"
    ALLOW_PRUNE = "allow-prune"
    RELOAD = "reload"


@dataclass(frozen=True, slots=True)
class Request:
    id: str
    verb: Verb
    at: str
    by: str


@dataclass(frozen=True, slots=True)
class Answer:
    """`ok`: done as asked. `text` says what came of it."""

    ok: bool
    text: str


async def ask(
    store: Store,
    sealer: Sealer,
    instance: str,
    verb: Verb,
    *,
    by: str,
    timeout: float,  # noqa: ASYNC109 - of the whole
) -> Answer | None:
    """Send a request and wait for its answer; None where nobody answered in `timeout` seconds. Raises StoreError."""
    request = Request(secrets.token_hex(8), verb, format_time(datetime.now(UTC)), by)
    fields = {"id": request.id, "request": verb.value, "at": request.at, "by": by}
    last = await store.append_control(instance, {**fields, "mac": _mac(sealer, instance, request)}, keep=KEEP)
    until = asyncio.get_running_loop().time() + timeout
    while (left := until - asyncio.get_running_loop().time()) > 0:
        for entry_id, entry in await store.read_control(instance, after=last, wait=min(left, BLOCK)):
            last = entry_id
            if entry.get("answer") == request.id:
                return Answer(entry.get("ok") == "1", entry.get("text", ""))
    return None


async def requests(store: Store, sealer: Sealer, instance: str) -> AsyncIterator[Request]:
    """Yield fresh requests whose mac fits, each once, for as long as the caller asks. Raises StoreError."""
    started = datetime.now(UTC) - FRESH
    last = f"{int(started.timestamp() * 1000)}-0"
    while True:
        for entry_id, entry in await store.read_control(instance, after=last, wait=BLOCK):
            last = entry_id
            request = _read(entry)
            if request is not None and _genuine(sealer, instance, request, entry.get("mac", "")):
                yield request


async def answer(store: Store, instance: str, request: Request, told: Answer) -> None:
    """Raises StoreError."""
    fields = {"answer": request.id, "ok": str(int(told.ok)), "text": told.text[:500]}
    await store.append_control(instance, fields, keep=KEEP)


def _read(entry: dict[str, str]) -> Request | None:
    try:
        return Request(entry["id"], Verb(entry["request"]), entry["at"], entry.get("by", "")[:200])
    except (KeyError, ValueError):
        return None


def _genuine(sealer: Sealer, instance: str, request: Request, mac: str) -> bool:
    try:
        age = datetime.now(UTC) - datetime.fromisoformat(request.at)
    except (ValueError, TypeError):
        return False
    return abs(age) <= FRESH and sealer.mac_matches(instance, 0, 0, _digest(request), mac)


def _mac(sealer: Sealer, instance: str, request: Request) -> str:
    return sealer.mac(instance, 0, 0, _digest(request))


def _digest(request: Request) -> str:
    """No snapshot has such a digest (or epoch 0), so a mac of one kind never serves as the other."""
    text = f"{request.id}\n{request.verb.value}\n{request.at}\n{request.by}"
    return "control:" + hashlib.sha256(text.encode()).hexdigest()


def decode_entries(reply: Any) -> list[tuple[str, dict[str, str]]]:
    """Turn XREAD's answer for one stream into (id, fields)."""
    found = []
    for _, entries in reply or ():
        for entry_id, values in entries:
            texts = [value.decode(errors="replace") for value in values]
            found.append((entry_id.decode(), dict(zip(texts[::2], texts[1::2], strict=True))))
    return found

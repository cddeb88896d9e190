"""The store as the rest of the project sees it: read an instance, open its one writer, ask what the server is like."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import orjson
from redis import exceptions

from palette_sync.core.model import ClusterKey
from palette_sync.events import in_turns
from palette_sync.store.connect import Link, Tls, parse_url
from palette_sync.store.control import decode_entries
from palette_sync.store.errors import (
    Fenced,
    LeaseHeld,
    LeaseLost,
    StoreError,
    StoreUnavailable,
    VersionConflict,
)
from palette_sync.store.keys import TYPES, Keys
from palette_sync.store.publisher import Publisher
from palette_sync.store.read import NOTHING, Loaded, Stored, read
from palette_sync.store.scripts import Script

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path
    from types import TracebackType

    from palette_sync.core.model import InstanceState
    from palette_sync.store.seal import Sealer

__all__ = [
    "Fenced",
    "LeaseHeld",
    "LeaseLost",
    "Publisher",
    "ServerFacts",
    "Store",
    "StoreError",
    "StoreUnavailable",
    "VersionConflict",
]

PAUSE = 0.1  # seconds between two looks whether the server is ready


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What the server says of itself; None where it, or its ACL, does not say. `eviction` is its maxmemory-policy.

    `denied` names the commands that the daemon needs and its user may not run; None where the server cannot be asked
    (Redis < 7, or a user without ACL WHOAMI and ACL DRYRUN) and at least EVAL works.
    """

    name: str
    version: str
    role: str | None = None
    eviction: str | None = None
    append_only: bool | None = None
    user: str | None = None
    denied: tuple[str, ...] | None = None

    @property
    def supported(self) -> bool:
        """Whether it is Redis >= 6.2 or Valkey >= 7.2; a version that cannot be read counts as new enough."""
        least = (7, 2) if self.name == "valkey" else (6, 2)
        numbers = self.version.split(".")[:2]
        return not all(part.isdecimal() for part in numbers) or tuple(map(int, numbers)) >= least


class Store:
    """One Redis under one prefix. Opened without connecting; an async context manager that closes its connections."""

    def __init__(self, link: Link, *, prefix: str, sealer: Sealer, history: int, timeout: float) -> None:
        self.keys = Keys(prefix)
        self._link = link
        self._sealer = sealer
        self._history = history
        self._timeout = timeout
        self._last: dict[str, Loaded] = {}
        self._publish = Script.load("publish.lua")
        self._acquire = Script.load("lease_acquire.lua")
        self._renew = Script.load("lease_renew.lua")
        self._release = Script.load("lease_release.lua")

    @classmethod
    def open(
        cls,
        url: str,
        *,
        prefix: str,
        sealer: Sealer,
        history: int = 500,
        ca_file: Path | None = None,
        cert_file: Path | None = None,
        key_file: Path | None = None,
        connect_timeout: float = 5.0,
        timeout: float = 10.0,
    ) -> Store:
        """`history`: versions kept for looking back, 0 = none. Timeouts in seconds. Raises StoreError for a bad URL."""
        tls = Tls(ca_file, cert_file, key_file)
        link = Link(parse_url(url), tls=tls, connect_timeout=connect_timeout, timeout=timeout)
        return cls(link, prefix=prefix, sealer=sealer, history=history, timeout=timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._link.close()

    # -- reading ----------------------------------------------------------------------------------------------------

    async def ping(self) -> None:
        """Raises StoreUnavailable, StoreError."""
        await self._command("ping", "PING")

    async def wait_ready(self, timeout: float) -> None:  # noqa: ASYNC109 - the caller names a promise, not a scope
        """Wait up to `timeout` seconds until the server answers. Raises StoreUnavailable, StoreError."""
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        while True:
            try:
                await self._link.once("ping", lambda: self._link.client.execute_command("PING"))
            except StoreUnavailable:
                if loop.time() + PAUSE >= until:
                    raise
                await asyncio.sleep(PAUSE)
            else:
                return

    async def instances(self) -> set[str]:
        """Return the names of all instances that were ever published under this prefix. Raises as `ping`."""
        return {name.decode(errors="replace") for name in await self._command("list", "SMEMBERS", self.keys.instances)}

    async def load(self, instance: str) -> InstanceState:
        """Return everything that the store holds about an instance, checked. Raises StoreUnavailable, StoreError."""
        return (await self.read(instance)).state

    async def read(self, instance: str) -> Loaded:
        """Like `load`, with what a writer goes on from."""

        async def whole() -> Any:
            pipe = self._link.client.pipeline(transaction=True)
            for name in (
                self.keys.head,
                self.keys.clusters,
                self.keys.credentials,
                self.keys.work,
                self.keys.scopes,
                self.keys.issuers,
            ):
                pipe.execute_command("HGETALL", name(instance))
            pipe.execute_command("GET", self.keys.status(instance))
            return await pipe.execute()

        stored = Stored(*await self._link.run(f"read {instance}", whole))
        last = self._last.get(instance, NOTHING)
        self._last[instance] = loaded = await read(instance, stored, self._sealer, last=last)
        return loaded

    async def names(self, *, except_instance: str) -> Mapping[str, ClusterKey]:
        """Return the published names of all other instances. Raises as `ping`."""
        found: dict[str, ClusterKey] = {}
        for instance in sorted(await self.instances() - {except_instance}):
            records = await self._command("read names", "HGETALL", self.keys.clusters(instance))
            async for uid, raw in in_turns(records.items()):
                with suppress(orjson.JSONDecodeError, KeyError, TypeError):
                    found[str(orjson.loads(raw)["name"])] = ClusterKey(instance, uid.decode(errors="replace"))
        return found

    # -- writing ----------------------------------------------------------------------------------------------------

    async def publisher(self, instance: str, *, epoch: int, writer: str) -> Publisher:
        """Open the writer of an instance for the holder of its lease (`epoch`). Raises StoreUnavailable, StoreError."""
        return Publisher(
            self._link,
            self.keys,
            self._publish,
            self._sealer,
            await self.read(instance),
            instance=instance,
            epoch=epoch,
            writer=writer,
            history=self._history,
        )

    async def take_lease(self, instance: str, value: bytes, ttl: float, *, former: bytes) -> tuple[bytes, bytes]:
        """For `Lease`: returns (OK, epoch) or (HELD, the other's value)."""
        keys = [self.keys.lease(instance), self.keys.epoch(instance), self.keys.head(instance)]
        script = self._acquire
        arguments = [value, _milliseconds(ttl), former]
        word, detail = await self._link.run(f"lease {instance}", lambda: script(self._link.client, keys, arguments))
        return word, detail

    async def renew_lease(self, instance: str, value: bytes, ttl: float, epoch: int) -> bool:
        """For `Lease`: whether it is still ours."""
        keys = [self.keys.lease(instance), self.keys.epoch(instance)]
        arguments = [value, _milliseconds(ttl), epoch]
        return bool(await self._link.once(f"lease {instance}", lambda: self._renew(self._link.client, keys, arguments)))

    async def give_lease_back(self, instance: str, value: bytes) -> bool:
        """For `Lease`: deletes it only if it is ours."""
        keys = [self.keys.lease(instance)]
        return bool(await self._link.once(f"lease {instance}", lambda: self._release(self._link.client, keys, [value])))

    async def append_control(self, instance: str, fields: Mapping[str, str], *, keep: int) -> str:
        """For `control`: returns the id of the new entry."""
        parts = [part for pair in fields.items() for part in pair]
        key = self.keys.control(instance)

        async def add() -> bytes:
            return bytes(await self._link.client.execute_command("XADD", key, "MAXLEN", "~", keep, "*", *parts))

        return (await self._link.once(f"control {instance}", add)).decode()

    async def read_control(self, after: Mapping[str, str], *, wait: float) -> list[tuple[str, str, dict[str, str]]]:
        """For `control`: (instance, id, fields) of entries after each instance's id, waiting for the first of them.

        Waits up to `wait` seconds, or half of the connection's timeout if that is less.
        """
        instances = {self.keys.control(instance): instance for instance in after}
        block = _milliseconds(min(wait, self._timeout / 2))

        async def read_on() -> object:
            return await self._link.client.execute_command(
                "XREAD", "BLOCK", block, "STREAMS", *instances, *after.values()
            )

        entries = decode_entries(await self._link.once("control", read_on))
        return [(instances[stream], entry_id, fields) for stream, entry_id, fields in entries]

    async def server_time(self) -> int:
        """The server's time in milliseconds. Raises as `ping`."""
        seconds, micros = await self._command("time", "TIME")
        return int(seconds) * 1000 + int(micros) // 1000

    def use(self, sealer: Sealer) -> None:
        """Seal and open with other keys from now on; publishers keep the keys that they were opened with."""
        self._sealer = sealer

    # -- the server -------------------------------------------------------------------------------------------------

    async def server_facts(self) -> ServerFacts:
        """Ask the server about itself. Raises StoreUnavailable; a login that is refused is a StoreError."""
        await self.ping()
        info = await self._allowed("INFO") or {}
        user = await self._allowed("ACL", "WHOAMI")
        name = user.decode(errors="replace") if isinstance(user, bytes) else None
        denied = await self._denied(name) if name else None
        if denied is None and await self._allowed("EVAL", "return 1", "1", self.keys.of("check", "head")) is None:
            denied = ("EVAL",)  # nothing is published without it
        return ServerFacts(
            name=str(info.get("server_name", "redis")),
            version=str(info.get("valkey_version") or info.get("redis_version") or "unknown"),
            role=_text(info, "role"),
            eviction=_text(info, "maxmemory_policy"),
            append_only=bool(info["aof_enabled"]) if "aof_enabled" in info else None,
            user=name,
            denied=denied,
        )

    async def foreign_keys(self, instances: Iterable[str]) -> dict[str, str]:
        """Keys of these instances whose type is not ours, with that type: somebody else wrote them."""
        ours = {self.keys.of(one, what): kind for one in instances for what, kind in TYPES.items()}
        found: dict[str, str] = {}
        for key, kind in {self.keys.instances: "set", **ours}.items():
            answer = await self._allowed("TYPE", key)
            if isinstance(answer, bytes) and answer.decode() not in (kind, "none"):
                found[key] = answer.decode()
        return found

    async def _denied(self, user: str) -> tuple[str, ...] | None:
        """Try every command that the daemon needs against the user's ACL, without running it."""
        denied = []
        for command in self._needed():
            answer = await self._allowed("ACL", "DRYRUN", user, *command)
            if answer is None:
                return None
            if answer != b"OK":
                denied.append(command[0])
        return tuple(sorted(set(denied)))

    def _needed(self) -> list[tuple[str, ...]]:
        of = self.keys.of
        some = "check"
        hashes = [of(some, what) for what in ("head", "clusters", "credentials", "work", "scopes", "issuers")]
        return [
            ("SADD", self.keys.instances, some),
            ("SMEMBERS", self.keys.instances),
            ("EVALSHA", "0" * 40, "1", of(some, "head")),
            ("EVAL", "return 1", "1", of(some, "head")),
            ("MULTI",),
            ("EXEC",),
            ("TIME",),
            *(("HGETALL", key) for key in hashes),
            *(("HMGET", key, some) for key in hashes),
            *(("HSET", key, some, some) for key in hashes),
            *(("HDEL", key, some) for key in hashes),
            *(("HLEN", key) for key in hashes),
            *(("XADD", of(some, what), "1-0", some, some) for what in ("changes", "history")),
            *(("GET", of(some, what)) for what in ("status", "epoch", "lease")),
            *(("SET", of(some, what), some) for what in ("status", "epoch", "lease")),
            *(("TYPE", key) for key in hashes),
            ("HGET", of(some, "head"), "version"),
            ("XADD", of(some, "control"), "*", some, some),
            ("XREAD", "STREAMS", of(some, "control"), "0"),
            ("DEL", of(some, "lease")),
        ]

    async def _allowed(self, *command: str) -> Any:
        """Run a command whose refusal is an answer: None."""
        with suppress(exceptions.ResponseError):
            return await self._link.client.execute_command(*command)
        return None

    async def _command(self, what: str, *command: str) -> Any:
        return await self._link.run(what, lambda: self._link.client.execute_command(*command))


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))


def _text(info: Mapping[str, object], key: str) -> str | None:
    return str(info[key]) if key in info else None

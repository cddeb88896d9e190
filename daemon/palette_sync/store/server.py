"""What `palette-sync check` asks the Redis server: version and settings, the user's rights, keys of other programs."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from redis import exceptions

from palette_sync.store.keys import TYPES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from palette_sync.store.connect import Link
    from palette_sync.store.keys import Keys


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What the server says about itself; None where the server does not say, or the user may not ask.

    `eviction` is its maxmemory-policy. `denied` names the commands that the daemon needs and its user may not run. It
    is None where the server cannot be asked (Redis < 7, or a user without ACL WHOAMI and ACL DRYRUN) and EVAL works.
    """

    name: str
    version: str
    role: str | None = None
    cluster: bool | None = None
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


async def server_facts(link: Link, keys: Keys) -> ServerFacts:
    """Ask the server about itself. Raises StoreUnavailable; StoreError for a login that is refused."""
    await link.command("ping", "PING")
    info = await _answer(link, "INFO") or {}
    user = await _answer(link, "ACL", "WHOAMI")
    name = user.decode(errors="replace") if isinstance(user, bytes) else None
    denied = await _denied(link, keys, name) if name else None
    if denied is None and await _answer(link, "EVAL", "return 1", "1", keys.of("check", "head")) is None:
        denied = ("EVAL",)  # nothing can be published without it
    return ServerFacts(
        name=str(info.get("server_name", "redis")),
        version=str(info.get("valkey_version") or info.get("redis_version") or "unknown"),
        role=_text(info, "role"),
        cluster=bool(info["cluster_enabled"]) if "cluster_enabled" in info else None,
        eviction=_text(info, "maxmemory_policy"),
        append_only=bool(info["aof_enabled"]) if "aof_enabled" in info else None,
        user=name,
        denied=denied,
    )


async def foreign_keys(link: Link, keys: Keys, instances: Iterable[str]) -> dict[str, str]:
    """Return the keys of these instances that have another type than ours, with that type: another program's keys."""
    ours = {keys.of(instance, what): kind for instance in instances for what, kind in TYPES.items()}
    found: dict[str, str] = {}
    kinds = {keys.instances: "set", keys.owner: "string", keys.names: "hash", keys.members: "hash", **ours}
    for key, kind in kinds.items():
        answer = await _answer(link, "TYPE", key)
        if isinstance(answer, bytes) and answer.decode() not in (kind, "none"):
            found[key] = answer.decode()
    return found


async def _denied(link: Link, keys: Keys, user: str) -> tuple[str, ...] | None:
    """Test every command that the daemon needs against the user's ACL, without running it."""
    denied = set()
    for command in _needed_commands(keys):
        answer = await _answer(link, "ACL", "DRYRUN", user, *command)
        if answer is None:
            return None
        if answer != b"OK":
            denied.add(command[0])
    return tuple(sorted(denied))


def _needed_commands(keys: Keys) -> list[tuple[str, ...]]:
    """Return an example of every command that the daemon sends, with the kinds of keys that it sends it for."""
    of, some = keys.of, "check"
    hashes = [of(some, what) for what in ("head", "clusters", "credentials", "work", "scopes", "issuers", "activity")]
    return [
        ("SADD", keys.instances, some),
        ("SMEMBERS", keys.instances),
        ("GET", keys.owner),
        ("SET", keys.owner, some),
        ("SCARD", keys.instances),
        *((word, keys.members, some) for word in ("HDEL",)),
        ("HSET", keys.members, some, some),
        ("HGETALL", keys.members),
        ("HLEN", keys.members),
        ("XADD", keys.control(""), "*", some, some),
        ("XREAD", "STREAMS", keys.control(""), "0"),
        *((word, keys.names, some) for word in ("HMGET", "HGET", "HDEL")),
        ("HSET", keys.names, some, some),
        ("HLEN", keys.names),
        ("HGETALL", keys.names),
        ("HSTRLEN", of(some, "clusters"), some),
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
        ("STRLEN", of(some, "status")),
        ("SET", keys.request(some, "0" * 16), "1", "NX", "PX", "1"),
        *(("SET", of(some, what), some) for what in ("status", "epoch", "lease")),
        *(("TYPE", key) for key in hashes),
        ("HGET", of(some, "head"), "version"),
        ("XADD", of(some, "control"), "*", some, some),
        ("XREAD", "STREAMS", of(some, "control"), "0"),
        ("DEL", of(some, "lease")),
    ]


async def _answer(link: Link, *command: str) -> Any:
    """Run a command; None where the server refuses it."""
    with suppress(exceptions.ResponseError):
        return await link.client.execute_command(*command)
    return None


def _text(info: Mapping[str, object], key: str) -> str | None:
    return str(info[key]) if key in info else None

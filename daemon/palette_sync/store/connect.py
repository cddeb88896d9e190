"""The connection to Redis: timeouts, retries, and errors of redis-py translated into errors of the store.

By default redis-py sends a failed command up to 11 times within a minute, whether it is idempotent or not. Its retries
are off here: `Link.run` repeats idempotent commands, `Link.once` repeats nothing. The text of a server's error may
quote arguments, so only its first word, the error code, is passed on.
"""

from __future__ import annotations

import asyncio
import os
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import redis.asyncio as aioredis
import structlog
from redis import exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from palette_sync.store.bounded_parser import ReplyTooLarge, parser
from palette_sync.store.bounds import BOUNDS
from palette_sync.store.cluster import CONNECTIONS, Cluster, cause_of, is_no_cluster, server_of, unavailable
from palette_sync.store.errors import StoreDenied, StoreError, StoreTooMuch, StoreUnavailable
from palette_sync.store.sentinel import Sentinels
from palette_sync.store.tls_files import tls_options

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from palette_sync.store.address import Address
    from palette_sync.store.cluster import Ask, Words
    from palette_sync.store.tls_files import Tls

T = TypeVar("T")
log = structlog.get_logger(__name__)

PAUSES = (0.1, 0.5)  # seconds before the second and the third attempt of an idempotent command
MASTER_PACE = 1.0  # seconds between two questions to the Sentinels
# A server that answers with one of these recovers by itself or once an operator repairs it; nothing was written.
_TRANSIENT = frozenset({"LOADING", "MISCONF", "OOM", "BUSY", "NOREPLICAS", "TRYAGAIN"})
# The answers of a replica. A server may become one while connections to it are open.
_DEMOTED = frozenset({"READONLY", "MASTERDOWN", "UNBLOCKED"})
_DEMOTED_BY_SENTINEL = "The previous master is now a slave"  # what redis-py makes of READONLY there
_NO_DATABASE = "DB index is out of range"
_HINTS = {
    "MISCONF": ": it cannot write to its disk; see the server's log",
    "WRONGTYPE": ": another program wrote one of our keys; `palette-sync check` names it",
}
_CODE = re.compile(r"[A-Z][A-Z0-9]{1,30}")
_BY_CODE: dict[str, type[exceptions.ResponseError]] = {
    "NOPERM": exceptions.NoPermissionError,
    "OOM": exceptions.OutOfMemoryError,
    "READONLY": exceptions.ReadOnlyError,
}
_IN_SCRIPT = re.compile(r"Error running script \(call to \w+\): (?:@user_script: ?[0-9]+: )*-([A-Z][A-Z0-9]{1,30})\b")


class Link:
    """One client and its connections. All commands of the store go through `run` or `once`.

    `timeout`: seconds that an answer may take.
    """

    def __init__(
        self, address: Address, *, tls: Tls, connect_timeout: float, timeout: float, most: int = BOUNDS.reply
    ) -> None:
        """Raise StoreMisconfigured for a TLS file that cannot be used."""
        self.label = address.label
        self.timeout = timeout
        self._hint = "; does it speak TLS on this port?" if address.tls else ""
        self.client: Any  # redis-py's commands are typed for the blocking and the asyncio client at once
        self._sentinel: Any = None
        self._cluster: Cluster | None = None
        self._master: tuple[str, int] | None = None
        options: dict[str, Any] = {
            "socket_timeout": timeout,
            "socket_connect_timeout": connect_timeout,
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
            "driver_info": None,  # the ACL would have to grant CLIENT SETINFO too
        }
        security = tls_options(tls) if address.tls else {}
        bounded = {"parser_class": parser(most)}
        login: dict[str, Any] = {"username": address.username, "password": address.password}
        over_tls = {"ssl": True, **security} if address.tls else {}
        if address.cluster:
            self._cluster = Cluster(address.hosts, **options, **bounded, **over_tls, **login)
            self.client = self._cluster.client
            return
        login["db"] = address.database
        if address.path is not None:
            self.client = _client(
                connection_class=aioredis.UnixDomainSocketConnection, path=address.path, **options, **bounded, **login
            )
            return
        options["socket_keepalive"] = True
        if address.service is None:
            host, port = address.hosts[0]
            kind = aioredis.SSLConnection if address.tls else aioredis.Connection
            self.client = _client(
                connection_class=kind, host=host, port=port, **options, **bounded, **security, **login
            )
            return
        sentinel: Any = Sentinels
        self._sentinel = sentinel(
            address.hosts, sentinel_kwargs=options | over_tls, **options, **bounded, **over_tls, **login
        )
        for one in self._sentinel.sentinels:
            one.connection_pool.connection_kwargs.update(bounded)  # `Redis`, which makes these, takes no parser
        self.client = self._sentinel.master_for(address.service)

    async def close(self) -> None:
        await (self.client.aclose() if self._cluster is None else self._cluster.close())
        if self._sentinel is not None:
            await self._sentinel.aclose()

    async def once(self, what: str, command: Callable[[], Awaitable[T]]) -> T:
        """Await `command()`, once. `what` names the operation in an error. Raises StoreUnavailable, StoreError.

        redis-py sends with `asyncio.wait_for`, which on Python 3.11 may swallow a cancellation: the command and any
        loop around it would go on. So a cancellation that was swallowed is raised here.
        """
        task = asyncio.current_task()
        asked = task.cancelling() if task else 0
        try:
            if self._cluster is not None:
                await self._cluster.ready()
            return await command()
        except ReplyTooLarge:
            where = f"{what}: Redis at {self.label}"
            raise StoreTooMuch(f"{where} holds more than palette-sync reads; somebody else writes to it") from None
        except (exceptions.RedisError, exceptions.RedisClusterException, OSError) as error:
            if self._cluster is None and _is_of_replica(error):
                await self._reconnect()
            raise self._translated(what, error) from None
        finally:
            if task is not None and task.cancelling() > asked:
                raise asyncio.CancelledError

    async def run(self, what: str, command: Callable[[], Awaitable[T]]) -> T:
        """Like `once`, for idempotent commands: attempted three times while Redis is unavailable."""
        for pause in PAUSES:
            try:
                return await self.once(what, command)
            except StoreUnavailable:
                await asyncio.sleep(pause)
        return await self.once(what, command)

    async def command(self, what: str, *words: str | bytes) -> Any:
        """Run one idempotent command and return redis-py's answer. Raises StoreUnavailable, StoreError."""
        return await self.run(what, lambda: self.client.execute_command(*words))

    async def transaction(self, what: str, *commands: Words) -> list[Any]:
        """Run idempotent commands in one MULTI and return their answers. All keys are in one slot.

        Raises StoreUnavailable, StoreError.
        """

        async def send() -> list[Any]:
            if self._cluster is not None:
                return await self._cluster.transaction(commands)
            pipe = self.client.pipeline(transaction=True)
            for words in commands:
                pipe.execute_command(*words)
            answers: list[Any] = await pipe.execute()
            return answers

        return await self.run(what, send)

    async def send(self, key: str, *words: str | bytes | int) -> Any:
        """Run a command on the server that has `key`, for commands without a key and for XREAD. Use it in `once`."""
        if self._cluster is not None:
            return await self._cluster.send(key, words)
        return await self.client.execute_command(*words)

    async def server_time(self, key: str) -> int:
        """Return the time of the server that has `key`, in milliseconds. Raises StoreUnavailable, StoreError."""
        seconds, micros = await self.run("time", lambda: self.send(key, "TIME"))
        return int(seconds) * 1000 + int(micros) // 1000

    async def ping(self) -> None:
        """See that Redis answers; of a cluster, any server. Raises StoreUnavailable, StoreError."""
        if self._cluster is None:
            await self.command("ping", "PING")
        else:
            await self.run("ping", self._cluster.ready)

    @property
    def clustered(self) -> bool:
        """Whether keys are on several servers, of which one may be away while the others answer."""
        return self._cluster is not None

    def servers(self) -> dict[str, Ask]:
        """What runs a command on each server that takes writes, by its name. Call `ping` before."""
        return {self.label: self.client.execute_command} if self._cluster is None else self._cluster.servers()

    def by_slot(self, keys: Iterable[str]) -> list[list[str]]:
        """The keys in groups that one command may name together."""
        return [list(keys)] if self._cluster is None else self._cluster.slots(keys)

    async def follow_master(self) -> None:
        """Use another server as soon as the Sentinels name one. Returns at once if there are no Sentinels.

        After an ordered failover the former master takes writes for another ten seconds, and then loses them.
        """
        while self._sentinel is not None:
            with suppress(exceptions.RedisError, OSError):
                master = await self.client.connection_pool.get_master_address()
                if self._master not in {None, master}:
                    log.info("store_moved", reason=f"the Sentinels name another master for {self.label}")
                    await self._reconnect()
                self._master = master
            await asyncio.sleep(MASTER_PACE)

    async def _reconnect(self) -> None:
        """Close idle connections now, and those in use after their command. The next command opens a new one."""
        pool = self.client.connection_pool
        await pool.update_active_connections_for_reconnect()
        with suppress(exceptions.RedisError, OSError):
            await pool.disconnect(inuse_connections=False)

    def _translated(
        self, what: str, error: exceptions.RedisError | exceptions.RedisClusterException | OSError
    ) -> StoreError:
        place = f"{what}: Redis at {server_of(error) or self.label}"
        if self._cluster is not None and (reason := unavailable(error)):
            return StoreUnavailable(f"{what}: the Redis Cluster at {self.label} {reason}")
        error = cause_of(error)
        if is_no_cluster(error):
            return StoreError(f"{place} is no Redis Cluster; in redis.url, write redis:// instead of redis+cluster://")
        return self._of_server(place, error)

    def _of_server(self, place: str, error: exceptions.RedisError | OSError) -> StoreError:
        error = _of_command_in_script(error)
        if isinstance(error.__context__, exceptions.AuthenticationError):
            error = error.__context__  # while connecting, redis-py wraps it in a ConnectionError
        if _NO_DATABASE in f"{error} {error.__context__}":
            return StoreError(f"{place} has no database of this number; see the end of redis.url")
        if isinstance(error, exceptions.AuthenticationError | exceptions.AuthorizationError):
            return StoreError(f"{place} refuses the login; see user and password in redis.url")
        if isinstance(error, exceptions.NoPermissionError) or "ACL failure in script" in str(error):
            return StoreDenied(f"{place} does not permit it (NOPERM); `palette-sync check` lists what the user lacks")
        if isinstance(error, exceptions.BusyLoadingError):
            return StoreUnavailable(f"{place} is loading its data")
        if isinstance(error, exceptions.TimeoutError):
            return StoreUnavailable(f"{place} did not answer in time{self._hint}")
        if _is_of_replica(error):
            return StoreUnavailable(f"{place} is a replica and takes no writes")
        if isinstance(error, exceptions.OutOfMemoryError):
            return StoreUnavailable(f"{place} has reached its maxmemory")
        if isinstance(error, exceptions.ConnectionError | OSError):
            return StoreUnavailable(f"{place} cannot be reached ({_cause(error)})")
        return _from_code(place, error)


def _of_command_in_script(error: exceptions.RedisError | OSError) -> exceptions.RedisError | OSError:
    """The error of a command inside a script. Before Redis 7 the server puts an error of the script in front of it."""
    found = _IN_SCRIPT.search(str(error))
    return _BY_CODE.get(found.group(1), exceptions.ResponseError)(found.group(1)) if found else error


def _is_of_replica(error: exceptions.RedisError | exceptions.RedisClusterException | OSError) -> bool:
    """Whether the server is not the master, or not any more."""
    if isinstance(error, exceptions.RedisClusterException):
        return False
    found = _of_command_in_script(error)
    return (
        isinstance(found, exceptions.ReadOnlyError | exceptions.MasterDownError)
        or str(found) == _DEMOTED_BY_SENTINEL
        or _code(found) in _DEMOTED
    )


def _code(error: exceptions.RedisError | OSError) -> str:
    """The error code, which is the first word; "" if the text does not begin with one."""
    # In a pipeline, redis-py puts the command with its arguments in front of the server's text.
    text = str(error).rpartition(" of pipeline caused error: ")[2].removeprefix("('")
    word = (text.split(maxsplit=1) or [""])[0]
    return word if _CODE.fullmatch(word) else ""


def _from_code(place: str, error: exceptions.RedisError | OSError) -> StoreError:
    """Translate an error that redis-py has no class for, by its error code."""
    code = _code(error) or type(error).__name__
    if code == "NOAUTH":
        return StoreError(f"{place} asks for a login; put user and password into redis.url")
    if isinstance(error, exceptions.AskError | exceptions.ClusterDownError | exceptions.ClusterCrossSlotError):
        return StoreError(
            f"{place} is part of a Redis Cluster; in redis.url, write redis+cluster:// instead of redis://"
        )
    kind = StoreUnavailable if code in _TRANSIENT else StoreError
    return kind(f"{place} answered {code}{_HINTS.get(code, '')}")


def _client(**options: Any) -> aioredis.Redis:
    pool = aioredis.ConnectionPool(max_connections=CONNECTIONS, **options)
    return aioredis.Redis.from_pool(pool)


def _cause(error: BaseException) -> str:
    """Name the innermost operating system error, such as `Connection refused`."""
    found: BaseException | None = error
    text = type(error).__name__
    while found is not None:
        if isinstance(found, OSError) and found.strerror:
            # asyncio replaces the system's text by `Connect call failed` and an address.
            masked = found.strerror.startswith("Connect call failed")
            text = os.strerror(found.errno) if masked and found.errno else found.strerror
        found = found.__cause__ or found.__context__
    return text[:100]


def milliseconds(seconds: float) -> int:
    """Return the time as Redis takes it; at least 1, because 0 means for ever or is refused."""
    return max(1, round(seconds * 1000))

"""The connection to Redis: URLs, timeouts, retries, and errors of redis-py translated into errors of the store.

By default redis-py sends a failed command up to 11 times within a minute, whether it is idempotent or not. Its retries
are off here: `Link.run` repeats idempotent commands, `Link.once` repeats nothing. The text of a server's error may
quote arguments, so only its first word, the error code, is passed on.
"""

from __future__ import annotations

import asyncio
import os
import re
import ssl
from codecs import BOM_UTF8
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

import redis.asyncio as aioredis
import structlog
from redis import exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from palette_sync.store.bounded_parser import ReplyTooLarge, parser
from palette_sync.store.bounds import BOUNDS
from palette_sync.store.errors import StoreDenied, StoreError, StoreMisconfigured, StoreTooMuch, StoreUnavailable
from palette_sync.store.sentinel import Sentinels

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

T = TypeVar("T")
log = structlog.get_logger(__name__)

PAUSES = (0.1, 0.5)  # seconds before the second and the third attempt of an idempotent command
CONNECTIONS = 256
MASTER_PACE = 1.0  # seconds between two questions to the Sentinels
_SENTINEL_PORT = 26379
_REDIS_PORT = 6379
_SENTINEL = {"redis+sentinel": False, "rediss+sentinel": True}
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


@dataclass(frozen=True, slots=True)
class Tls:
    """Files for `rediss://`: a CA to trust (None = the system's CAs), and a client certificate if the server asks."""

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Address:
    """A parsed URL. `label` holds no secret and may be shown."""

    label: str
    tls: bool = False
    path: str | None = None
    hosts: tuple[tuple[str, int], ...] = ()
    service: str | None = None
    database: int = 0
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)


def parse_url(url: str) -> Address:
    """Parse redis://, rediss://, unix:// and redis+sentinel://host:port,host2:port/service/db.

    Raises StoreMisconfigured, whose text never quotes the URL, because it may hold a password.
    """
    try:
        return _parse(url)
    except ValueError:
        raise StoreMisconfigured(
            "redis.url cannot be understood; write redis://[user:password@]host[:port][/db], rediss://..., "
            "unix:///path/to/socket[?db=0] or redis+sentinel://host[:port],host2[:port]/service[/db]"
        ) from None


def _parse(url: str) -> Address:
    scheme, separator, rest = url.partition("://")
    if not separator:
        raise ValueError("no scheme")
    login, _, rest = rest.rpartition("@")
    user, _, password = login.partition(":")
    username, secret = unquote(user) or None, unquote(password) or None
    if scheme == "unix":
        parts = urlsplit(rest)
        options = parse_qs(parts.query, strict_parsing=bool(parts.query))
        if not parts.path or options.keys() - {"db"}:
            raise ValueError("the path is missing, or an option is unknown")
        database = int(options["db"][0]) if options else 0
        path = unquote(parts.path)
        return Address(path, path=path, database=database, username=username, password=secret)
    location, *path_parts = rest.removesuffix("/").split("/")
    if "?" in rest or "#" in rest:
        raise ValueError("options are not supported")
    if scheme in _SENTINEL:
        service, database = "".join(path_parts[:1]), _database(path_parts[1:])
        hosts = tuple(_host(one, _SENTINEL_PORT) for one in location.split(","))
        label = f"{service} (by Sentinel at {', '.join(f'{host}:{port}' for host, port in hosts)})"
        if not service:
            raise ValueError("no service name")
        return Address(label, _SENTINEL[scheme], None, hosts, service, database, username, secret)
    if scheme not in {"redis", "rediss"}:
        raise ValueError("unknown scheme")
    host, port = _host(location, _REDIS_PORT)
    database = _database(path_parts)
    return Address(f"{host}:{port}", scheme == "rediss", None, ((host, port),), None, database, username, secret)


def _host(text: str, default_port: int) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError("no host")
    return parts.hostname, parts.port or default_port


def _database(parts: list[str]) -> int:
    if len(parts) > 1:
        raise ValueError("more than a database number")
    return int(parts[0]) if parts and parts[0] else 0


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
        self._master: tuple[str, int] | None = None
        options: dict[str, Any] = {
            "socket_timeout": timeout,
            "socket_connect_timeout": connect_timeout,
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
            "driver_info": None,  # the ACL would have to grant CLIENT SETINFO too
        }
        security = _tls_options(tls) if address.tls else {}
        bounded = {"parser_class": parser(most)}
        login = {"db": address.database, "username": address.username, "password": address.password}
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
        over_tls = {"ssl": True, **security} if address.tls else {}
        sentinel: Any = Sentinels
        self._sentinel = sentinel(
            address.hosts, sentinel_kwargs=options | over_tls, **options, **bounded, **over_tls, **login
        )
        self.client = self._sentinel.master_for(address.service)

    async def close(self) -> None:
        await self.client.aclose()
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
            return await command()
        except ReplyTooLarge:
            where = f"{what}: Redis at {self.label}"
            raise StoreTooMuch(f"{where} holds more than palette-sync reads; somebody else writes to it") from None
        except (exceptions.RedisError, OSError) as error:
            if _is_of_replica(error):
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

    async def server_time(self) -> int:
        """Return the server's time in milliseconds. Raises StoreUnavailable, StoreError."""
        seconds, micros = await self.command("time", "TIME")
        return int(seconds) * 1000 + int(micros) // 1000

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

    def _translated(self, what: str, error: exceptions.RedisError | OSError) -> StoreError:
        place = f"{what}: Redis at {self.label}"
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


def _is_of_replica(error: exceptions.RedisError | OSError) -> bool:
    """Whether the server is not the master, or not any more."""
    found = _of_command_in_script(error)
    return (
        isinstance(found, exceptions.ReadOnlyError | exceptions.MasterDownError)
        or str(found) == _DEMOTED_BY_SENTINEL
        or _code(found) in _DEMOTED
    )


def _code(error: exceptions.RedisError | OSError) -> str:
    """The error code, which is the first word; "" if there is none."""
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
        return StoreError(f"{place} is a Redis Cluster, which is not supported; use a single server, or Sentinel")
    kind = StoreUnavailable if code in _TRANSIENT else StoreError
    return kind(f"{place} answered {code}{_HINTS.get(code, '')}")


def _client(**options: Any) -> aioredis.Redis:
    pool = aioredis.ConnectionPool(max_connections=CONNECTIONS, **options)
    return aioredis.Redis.from_pool(pool)


def _tls_options(tls: Tls) -> dict[str, Any]:
    for name, file in (("ca_file", tls.ca_file), ("cert_file", tls.cert_file), ("key_file", tls.key_file)):
        if file is not None and not file.is_file():
            raise StoreMisconfigured(f"redis.{name}: {file} is not a file")
    _check_tls_files(tls)
    return {
        "ssl_cert_reqs": "required",
        "ssl_check_hostname": True,
        "ssl_ca_data": _ca_text(tls.ca_file) if tls.ca_file else None,
        "ssl_certfile": str(tls.cert_file) if tls.cert_file else None,
        "ssl_keyfile": str(tls.key_file) if tls.key_file else None,
    }


def _check_tls_files(tls: Tls) -> None:
    """Load the files once, because redis-py reports a bad file as a server that cannot be reached."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if tls.ca_file is not None:
        try:
            context.load_verify_locations(cadata=_ca_text(tls.ca_file) or " ")
        except (OSError, ValueError):
            raise StoreMisconfigured(f"redis.ca_file: {tls.ca_file} does not hold a certificate in PEM form") from None
    if tls.cert_file is not None:
        try:
            context.load_cert_chain(tls.cert_file, tls.key_file, password="")
        except OSError:
            raise StoreMisconfigured(
                f"redis.cert_file: {tls.cert_file} and redis.key_file do not hold a certificate and its unencrypted "
                "key in PEM form"
            ) from None


def _ca_text(file: Path) -> str:
    """The text of a CA file. OpenSSL itself would miss a first certificate behind a byte order mark."""
    return file.read_bytes().removeprefix(BOM_UTF8).decode("ascii")


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

"""The connection to Redis: URLs, timeouts, retries, and redis-py's errors turned into ours.

redis-py retries commands up to 11 times over a minute by default, without asking whether they may be repeated. Here
it retries nothing: `Link.run` repeats what is idempotent, `Link.once` nothing. The text of a server's error is never
passed on, for it may quote arguments; only its first word, the error code, is.
"""

from __future__ import annotations

import asyncio
import os
import re
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

import redis.asyncio as aioredis
from redis import exceptions
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

from palette_sync.store.errors import StoreError, StoreMisconfigured, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

T = TypeVar("T")

PAUSES = (0.1, 0.5)  # seconds before the second and the third try of an idempotent command
CONNECTIONS = 256
_SENTINEL_PORT = 26379
_REDIS_PORT = 6379
_SENTINEL = {"redis+sentinel": False, "rediss+sentinel": True}
# A server that says one of these works again by itself, or after the operator's repair; nothing was written.
_PASSING = frozenset({"LOADING", "READONLY", "MASTERDOWN", "MISCONF", "OOM", "BUSY", "NOREPLICAS", "TRYAGAIN"})
_NO_DATABASE = "DB index is out of range"
_HINTS = {
    "MISCONF": ": it cannot write to its disk; see the server's log",
    "WRONGTYPE": ": somebody else wrote one of our keys; `palette-sync check` names it",
}
_CODE = re.compile(r"[A-Z][A-Z0-9]{1,30}")


@dataclass(frozen=True, slots=True)
class Tls:
    """Files for `rediss://`: whom to trust (None = the system's trust), and a client certificate if asked for."""

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Address:
    """A parsed URL. `label` may be shown."""

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

    Raises StoreMisconfigured, which never quotes the URL: it may hold a password.
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
            raise ValueError("no path, or an unknown option")
        database = int(options["db"][0]) if options else 0
        path = unquote(parts.path)
        return Address(path, path=path, database=database, username=username, password=secret)
    location, *path_parts = rest.split("/")
    if "?" in rest or "#" in rest:
        raise ValueError("options are not known here")
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
    """One client and its connections. All commands of the store go through `run` or `once`."""

    def __init__(self, address: Address, *, tls: Tls, connect_timeout: float, timeout: float) -> None:
        """Raise StoreMisconfigured where a TLS file cannot be used."""
        self.label = address.label
        self._doubt = "; does it speak TLS on this port?" if address.tls else ""
        self.client: Any  # redis-py's commands are typed for the blocking and the asyncio client at once
        self._sentinel: Any = None
        options: dict[str, Any] = {
            "socket_timeout": timeout,
            "socket_connect_timeout": connect_timeout,
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
            "driver_info": None,  # CLIENT SETINFO is one more right that an ACL would have to grant
        }
        security = _tls_options(tls) if address.tls else {}
        login = {"db": address.database, "username": address.username, "password": address.password}
        if address.path is not None:
            self.client = _client(
                connection_class=aioredis.UnixDomainSocketConnection, path=address.path, **options, **login
            )
            return
        options["socket_keepalive"] = True
        if address.service is None:
            host, port = address.hosts[0]
            kind = aioredis.SSLConnection if address.tls else aioredis.Connection
            self.client = _client(connection_class=kind, host=host, port=port, **options, **security, **login)
            return
        over_tls = {"ssl": True, **security} if address.tls else {}
        sentinel: Any = Sentinel
        self._sentinel = sentinel(address.hosts, sentinel_kwargs=options | over_tls, **options, **over_tls, **login)
        self.client = self._sentinel.master_for(address.service)

    async def close(self) -> None:
        await self.client.aclose()
        if self._sentinel is not None:
            await self._sentinel.aclose()

    async def once(self, what: str, command: Callable[[], Awaitable[T]]) -> T:
        """Await `command()`, once. `what` says in an error what was being done. Raises StoreUnavailable, StoreError.

        redis-py sends by `asyncio.wait_for`, which on Python 3.11 may swallow a cancellation: the command goes on as if
        nothing had been asked, and a loop around it for ever. So what was swallowed is raised here.
        """
        task = asyncio.current_task()
        asked = task.cancelling() if task else 0
        try:
            return await command()
        except (exceptions.RedisError, OSError) as error:
            raise self._meaning(what, error) from None
        finally:
            if task is not None and task.cancelling() > asked:
                raise asyncio.CancelledError

    async def run(self, what: str, command: Callable[[], Awaitable[T]]) -> T:
        """Like `once`, for what may be repeated: tried three times while Redis is away."""
        for pause in PAUSES:
            try:
                return await self.once(what, command)
            except StoreUnavailable:
                await asyncio.sleep(pause)
        return await self.once(what, command)

    def _meaning(self, what: str, error: exceptions.RedisError | OSError) -> StoreError:
        place = f"{what}: Redis at {self.label}"
        if isinstance(error.__context__, exceptions.AuthenticationError):
            error = error.__context__  # redis-py wraps it, when it connects, in what says "unreachable"
        if _NO_DATABASE in f"{error} {error.__context__}":
            return StoreError(f"{place} has no database of this number; see the end of redis.url")
        if isinstance(error, exceptions.AuthenticationError | exceptions.AuthorizationError):
            return StoreError(f"{place} refuses the login; see user and password in redis.url")
        if isinstance(error, exceptions.NoPermissionError) or "ACL failure in script" in str(error):
            return StoreError(f"{place} does not permit it (NOPERM); `palette-sync check` lists what the user lacks")
        if isinstance(error, exceptions.BusyLoadingError):
            return StoreUnavailable(f"{place} is loading its data")
        if isinstance(error, exceptions.TimeoutError):
            return StoreUnavailable(f"{place} did not answer in time{self._doubt}")
        if isinstance(error, exceptions.ReadOnlyError):
            return StoreUnavailable(f"{place} is a replica and takes no writes")
        if isinstance(error, exceptions.OutOfMemoryError):
            return StoreUnavailable(f"{place} has reached its maxmemory")
        if isinstance(error, exceptions.ConnectionError | OSError):
            return StoreUnavailable(f"{place} cannot be reached ({_cause(error)})")
        return _answered(place, error)


def _answered(place: str, error: exceptions.RedisError | OSError) -> StoreError:
    """What the server said that has no exception of its own, by the first word of it."""
    # Before what the server said of it redis-py puts a pipeline's command, with its arguments.
    said = str(error).rpartition(" of pipeline caused error: ")[2].removeprefix("('")
    word = (said.split(maxsplit=1) or [""])[0]
    code = word if _CODE.fullmatch(word) else type(error).__name__
    if code == "NOAUTH":
        return StoreError(f"{place} asks for a login; put user and password into redis.url")
    kind = StoreUnavailable if code in _PASSING else StoreError
    return kind(f"{place} answered {code}{_HINTS.get(code, '')}")


def _client(**options: Any) -> aioredis.Redis:
    pool = aioredis.ConnectionPool(max_connections=CONNECTIONS, **options)
    return aioredis.Redis.from_pool(pool)


def _tls_options(tls: Tls) -> dict[str, Any]:
    for name, file in (("ca_file", tls.ca_file), ("cert_file", tls.cert_file), ("key_file", tls.key_file)):
        if file is not None and not file.is_file():
            raise StoreMisconfigured(f"redis.{name}: {file} is not a file")
    _try_tls_files(tls)
    return {
        "ssl_cert_reqs": "required",
        "ssl_check_hostname": True,
        "ssl_ca_certs": str(tls.ca_file) if tls.ca_file else None,
        "ssl_certfile": str(tls.cert_file) if tls.cert_file else None,
        "ssl_keyfile": str(tls.key_file) if tls.key_file else None,
    }


def _try_tls_files(tls: Tls) -> None:
    """redis-py would load them for each connection, and tell what is wrong as a server that cannot be reached."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if tls.ca_file is not None:
        try:
            context.load_verify_locations(tls.ca_file)
        except OSError:
            raise StoreMisconfigured(f"redis.ca_file: {tls.ca_file} holds no certificate in PEM form") from None
    if tls.cert_file is not None:
        try:
            context.load_cert_chain(tls.cert_file, tls.key_file, password="")
        except OSError:
            raise StoreMisconfigured(
                f"redis.cert_file: {tls.cert_file} and redis.key_file hold no certificate and its unencrypted key in "
                "PEM form"
            ) from None


def _cause(error: BaseException) -> str:
    """Name the innermost operating system error, such as `Connection refused`."""
    found: BaseException | None = error
    text = type(error).__name__
    while found is not None:
        if isinstance(found, OSError) and found.strerror:
            # asyncio says `Connect call failed` and an address instead of what the system said.
            masked = found.strerror.startswith("Connect call failed")
            text = os.strerror(found.errno) if masked and found.errno else found.strerror
        found = found.__cause__ or found.__context__
    return text[:100]

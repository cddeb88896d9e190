"""URLs of Redis, parsed: one server, a unix socket, a master known to Sentinels, or a cluster."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit

from palette_sync.store.errors import StoreMisconfigured

_SENTINEL_PORT = 26379
_REDIS_PORT = 6379
_SENTINEL = {"redis+sentinel": False, "rediss+sentinel": True}
_CLUSTER = {"redis+cluster": False, "rediss+cluster": True}


@dataclass(frozen=True, slots=True)
class Address:
    """A parsed URL. `label` holds no secret and may be shown. `cluster`: `hosts` are servers of a Redis Cluster."""

    label: str
    tls: bool = False
    path: str | None = None
    hosts: tuple[tuple[str, int], ...] = ()
    service: str | None = None
    cluster: bool = False
    database: int = 0
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)


def parse_url(url: str) -> Address:
    """Parse redis://, rediss://, unix://, redis+sentinel://host:port,host2:port/service/db and redis+cluster://host:port.

    Raises StoreMisconfigured, whose text never quotes the URL, because it may hold a password.
    """
    try:
        return _parse(url)
    except ValueError:
        raise StoreMisconfigured(
            "redis.url cannot be understood; write redis://[user:password@]host[:port][/db], rediss://..., "
            "unix:///path/to/socket[?db=0], redis+sentinel://host[:port],host2[:port]/service[/db] or "
            "redis+cluster://host[:port],host2[:port]"
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
        return Address(
            label, _SENTINEL[scheme], None, hosts, service, database=database, username=username, password=secret
        )
    if scheme in _CLUSTER:
        hosts = tuple(_host(one, _REDIS_PORT) for one in location.split(","))
        if _database(path_parts) != 0:
            raise ValueError("a cluster has no other databases")
        label = ", ".join(f"{host}:{port}" for host, port in hosts)
        return Address(label, _CLUSTER[scheme], hosts=hosts, cluster=True, username=username, password=secret)
    if scheme not in {"redis", "rediss"}:
        raise ValueError("unknown scheme")
    host, port = _host(location, _REDIS_PORT)
    database = _database(path_parts)
    return Address(
        f"{host}:{port}",
        scheme == "rediss",
        hosts=((host, port),),
        database=database,
        username=username,
        password=secret,
    )


def _host(text: str, default_port: int) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError("no host")
    return parts.hostname, parts.port or default_port


def _database(parts: list[str]) -> int:
    if len(parts) > 1:
        raise ValueError("more than a database number")
    return int(parts[0]) if parts and parts[0] else 0

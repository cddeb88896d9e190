"""The part of the configuration that diagnosis needs: where Redis and the daemon are, and the seal keys.

Whoever looks at a running system may have no API key, no seal key and no valid configuration. So nothing here is
required, and what is wrong elsewhere in the file does not matter.

Commands that only look must start fast, and building the models of the settings takes longer than everything else. So
a usual configuration is read here without them. As soon as anything is unusual or wrong, `salvaged` reads it with the
models, which also word the problems. Both return the same.
"""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from palette_sync.config.errors import ConfigError
from palette_sync.config.layers import PREFIX, Layers
from palette_sync.config.partial_settings import (
    DEFAULT_LISTEN,
    LARGEST_HISTORY,
    LISTEN,
    REDIS_PREFIX,
    REDIS_SCHEMES,
    Hidden,
    PartialRedis,
    PartialSettings,
)
from palette_sync.core.durations import parse_duration

if TYPE_CHECKING:
    from collections.abc import Mapping

    from palette_sync.config.layers import Document

_TABLES = frozenset({"redis", "seal", "http"})
_HTTP_KEYS = frozenset({"listen", "hosts", "token"})


def load_partial(
    path: Path, *, redis_url: str = "", prefix: str = "", environ: Mapping[str, str] | None = None
) -> PartialSettings:
    """Read what can be read. `redis_url` and `prefix` of the command line win. Raises nothing."""
    environ = os.environ if environ is None else environ
    settings = read_usual(path, environ)
    if settings is None:
        from palette_sync.config.salvaged import salvage  # noqa: PLC0415 - it imports the models

        settings = salvage(path, environ)
    given: dict[str, Any] = {"url": Hidden(redis_url)} if redis_url else {}
    given |= {"prefix": prefix} if prefix else {}
    return replace(settings, redis=replace(settings.redis, **given)) if given else settings


class Unusual(Exception):
    """Something that is not read here."""


class _UsualLayers(Layers):
    """The layers, of the variables only those of the tables that diagnosis needs, and the names of instances."""

    def _read_environment(self, environ: Mapping[str, str]) -> Document:
        document: Document = {}
        for name, value in sorted(environ.items()):
            table, *keys = name.upper().removeprefix(PREFIX).lower().split("__")
            if not value or not name.upper().startswith(PREFIX) or table not in _TABLES | {"instances"}:
                continue
            if not keys or (table in _TABLES and (len(keys) > 1 or keys == ["hosts"])):
                raise Unusual
            document.setdefault(table, {})[keys[0]] = value if table in _TABLES else {}
        return document


def read_usual(path: Path, environ: Mapping[str, str]) -> PartialSettings | None:
    """Return None where something is unusual or wrong."""
    try:
        layers = _UsualLayers(path, environ)
        document = layers.merged()
        if any(layers.could_not_read(key) for key in (("redis", "url"), ("seal", "keys"), ("http", "token"))):
            return None
        instances = document.get("instances", {})
        return PartialSettings(
            redis=_redis(document.get("redis", {})),
            listen=_listen(document.get("http", {})),
            seal=_seal(document.get("seal", {})),
            instances=frozenset(map(str, instances)) if isinstance(instances, dict) else frozenset(),
        )
    except (ConfigError, Unusual, ValueError):
        return None


def _redis(table: object) -> PartialRedis:
    if not isinstance(table, dict):
        raise Unusual
    found: dict[str, Any] = {}
    for key, value in table.items():
        match key:
            case "url" if isinstance(value, str) and value.startswith(REDIS_SCHEMES):
                found[key] = Hidden(value)
            case "prefix" if isinstance(value, str) and REDIS_PREFIX.fullmatch(value):
                found[key] = value
            case "history" if type(value) is int and 0 <= value <= LARGEST_HISTORY:
                found[key] = value
            case "ca_file" | "cert_file" | "key_file" if isinstance(value, str):
                found[key] = Path(value)
            case "connect_timeout" | "timeout" if (span := parse_duration(value)) > timedelta(0):
                found[key] = span
            case _:
                raise Unusual
    return PartialRedis(**found)


def _listen(table: object) -> str:
    if not isinstance(table, dict) or table.keys() - _HTTP_KEYS:
        raise Unusual
    listen = table.get("listen", DEFAULT_LISTEN)
    if not isinstance(listen, str) or (listen and not LISTEN.fullmatch(listen)):
        raise Unusual
    return listen


def _seal(table: object) -> Hidden | str | None:
    if table == "none":
        return "none"
    if not isinstance(table, dict) or table.keys() - {"keys"}:
        raise Unusual
    keys = table.get("keys")
    if isinstance(keys, list) and all(isinstance(line, str) for line in keys):
        keys = "\n".join(keys)
    if keys is not None and not isinstance(keys, str):
        raise Unusual
    return Hidden(keys) if keys and keys.strip() else None

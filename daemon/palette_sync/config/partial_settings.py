"""What diagnosis needs of the settings, as plain values, and the rules that these share with the models."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from palette_sync.core.model import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

REDIS_SCHEMES = (
    "redis://", "rediss://", "unix://", "redis+sentinel://", "rediss+sentinel://", "redis+cluster://",
    "rediss+cluster://", "embedded://",
)  # fmt: skip
REDIS_PREFIX = re.compile(r"[a-zA-Z0-9._-]+")
LISTEN = re.compile(r"(\[[0-9a-fA-F:]+\]|[^\s:]+):\d{1,5}")
LARGEST_HISTORY = 100_000
DEFAULT_LISTEN = "127.0.0.1:9464"


class Hidden(Secret):
    """A Secret with the interface of pydantic's SecretStr, which takes long to import."""

    __slots__ = ()

    def get_secret_value(self) -> str:
        return self.reveal()


@dataclass(frozen=True, slots=True)
class PartialRedis:
    """As `settings.RedisSettings`, whose fields and defaults these are."""

    url: Hidden = field(default_factory=lambda: Hidden("redis://127.0.0.1:6379/0"))
    prefix: str = "palette-sync"
    history: int = 500
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    connect_timeout: timedelta = timedelta(seconds=5)
    timeout: timedelta = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class PartialSettings:
    """`listen`: the address of the daemon's endpoint. `seal`: the keys, one per line, "none" where tokens are not
    sealed, None where there is no usable key. `instances`: the configured names, None if the file cannot be read as a
    whole.

    `problems`: why a part has its default although the configuration gives it, one line each, by table; those of the
    file itself are under "file".
    """

    redis: PartialRedis = field(default_factory=PartialRedis)
    listen: str = DEFAULT_LISTEN
    seal: Hidden | str | None = None
    instances: frozenset[str] | None = None
    problems: Mapping[str, list[str]] = field(default_factory=dict)

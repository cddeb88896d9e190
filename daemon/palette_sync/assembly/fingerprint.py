"""The fingerprint of a configuration: two processes with the same one do the same. It reveals no secret."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import orjson
from pydantic import SecretStr

from palette_sync.core.mac_texts import configuration_text

if TYPE_CHECKING:
    from palette_sync.config import Settings
    from palette_sync.store.seal import Sealer

LENGTH = 16  # hex digits
# What may differ between processes that do the same: addresses of this process, its log, its keys (which have their own
# check), and defaults, which stand in each instance too.
LOCAL: dict[str, Any] = {
    "redis": True,
    "seal": True,
    "http": True,
    "defaults": True,
    "service": {"log_level", "log_format"},
}


def fingerprint(settings: Settings, sealer: Sealer) -> str:
    """A keyed hash of everything that decides what the process does, secrets included.

    With `seal = "none"` there is no key, and secrets do not count.
    """

    def plain(value: object) -> object:
        if isinstance(value, SecretStr):
            return value.get_secret_value() if sealer.authenticates else ""
        return sorted(map(str, value)) if isinstance(value, set | frozenset) else str(value)

    content = orjson.dumps(settings.model_dump(exclude=LOCAL), default=plain, option=orjson.OPT_SORT_KEYS)
    digest = hashlib.sha256(content).hexdigest()
    return (sealer.mac(configuration_text(digest)) if sealer.authenticates else digest)[:LENGTH]

"""Opens the seal keys and the store. Imports nothing of Palette or Kubernetes, so that the commands that only read
Redis start fast.
"""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from palette_sync.store.redis import Store
from palette_sync.store.seal import SealKeys, Unsealed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from palette_sync.config import InstanceSettings, Settings
    from palette_sync.config.partial_settings import PartialSettings
    from palette_sync.store.seal import Sealer


class StartError(Exception):
    """A command cannot begin. `problems`: one line each."""

    def __init__(self, *problems: str) -> None:
        self.problems = list(problems)
        super().__init__("; ".join(problems))


def chosen_instances(settings: Settings, wanted: list[str] | None) -> dict[str, InstanceSettings]:
    """The configured instances, or those named on the command line. Raises StartError for an unknown name."""
    unknown = sorted(set(wanted or ()) - settings.instances.keys())
    if unknown:
        known = ", ".join(settings.instances)
        raise StartError(f"--instance {', '.join(unknown)}: not in the configuration, which has {known}")
    return {name: one for name, one in settings.instances.items() if not wanted or name in wanted}


def utc_now() -> datetime:
    return datetime.now(UTC)


def sealer_of(settings: Settings) -> Sealer:
    """Raises SealKeyError."""
    if settings.seal == "none":
        return Unsealed()
    assert settings.seal.keys is not None
    return SealKeys.from_lines(settings.seal.keys.get_secret_value())


@asynccontextmanager
async def open_store(settings: Settings | PartialSettings, sealer: Sealer) -> AsyncIterator[Store]:
    """Open the configured store. `embedded://` starts a Valkey server that runs until this context ends."""
    redis = settings.redis
    async with AsyncExitStack() as stack:
        url = redis.url.get_secret_value()
        if url.startswith("embedded://"):
            from palette_sync.store.embedded import EmbeddedValkey

            directory = url.removeprefix("embedded://")
            url = (await stack.enter_async_context(EmbeddedValkey(directory=directory or None))).url
        store = Store.open(
            url,
            prefix=redis.prefix,
            sealer=sealer,
            history=redis.history,
            ca_file=redis.ca_file,
            cert_file=redis.cert_file,
            key_file=redis.key_file,
            connect_timeout=redis.connect_timeout.total_seconds(),
            timeout=redis.timeout.total_seconds(),
        )
        yield await stack.enter_async_context(store)

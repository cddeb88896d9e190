"""Opens the store for commands that only read it, with the rights and keys that the user has."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from palette_sync.assembly.store import StartError, open_store
from palette_sync.store.errors import StoreTooMuch, StoreUnavailable
from palette_sync.store.inspect import Unverified, inspect
from palette_sync.store.seal import SealKeyError, SealKeys, Unsealed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from palette_sync.config.partial_settings import PartialSettings
    from palette_sync.store.inspect import Inspected
    from palette_sync.store.redis import Store
    from palette_sync.store.seal import Sealer


@dataclass(slots=True)
class Diagnosis:
    """An open store. `configured`: the instances of the configuration, None if it cannot be read. `verifies`: whether
    there are keys to verify snapshots with. `remarks`: what limits the view, one line each.
    """

    store: Store
    sealer: Sealer
    configured: frozenset[str] | None
    verifies: bool
    remarks: list[str]

    async def instances(self, wanted: list[str] | None) -> tuple[list[str], frozenset[str]]:
        """Return the instances to show, and those that are published. Raises StartError for an unknown name."""
        try:
            published = frozenset(await self.store.instances())
        except StoreTooMuch as error:
            published = frozenset()
            self.remarks.append(f"only the configured instances are shown: {error}")
        known = sorted(published | (self.configured or frozenset()))
        if unknown := sorted(set(wanted or ()) - set(known)):
            raise StartError(
                f"--instance {', '.join(unknown)}: neither published nor in the configuration; known are "
                f"{', '.join(known) or 'none'}"
            )
        return wanted or known, published

    async def inspect(self, names: list[str]) -> tuple[dict[str, Inspected], dict[str, str]]:
        """Read these instances. Return what was found, and why the others cannot be read.

        In a Redis Cluster the server of one instance may be away while those of others answer. Raises StoreUnavailable
        if no instance can be read, StoreError.
        """
        found: dict[str, Inspected] = {}
        unread: dict[str, str] = {}
        for name in names:
            try:
                found[name] = await inspect(self.store, self.sealer, name)
            except StoreUnavailable as error:
                unread[name] = str(error)
                if not self.store.link.clustered or len(unread) == len(names):
                    raise
        return found, unread

    async def inspect_and_remark(self, names: list[str]) -> dict[str, Inspected]:
        """The same, with a remark for each instance that cannot be read."""
        found, unread = await self.inspect(names)
        self.remarks += [f"{name} is missing below: {reason}" for name, reason in unread.items()]
        return found


@asynccontextmanager
async def open_diagnosis(settings: PartialSettings) -> AsyncIterator[Diagnosis]:
    """Raises StartError for an embedded store, StoreMisconfigured."""
    if settings.redis.url.get_secret_value().startswith("embedded://"):
        raise StartError(
            "redis.url: embedded:// is a server inside of the daemon, which no other command reaches; use "
            "`palette-sync status` and the page, or a Redis of its own"
        )
    sealer, remarks = _sealer(settings)
    async with open_store(settings, sealer) as store:
        yield Diagnosis(
            store=store,
            sealer=sealer,
            configured=settings.instances,
            verifies=not isinstance(sealer, Unverified),
            remarks=list(remarks),
        )


def _sealer(settings: PartialSettings) -> tuple[Sealer, tuple[str, ...]]:
    if settings.seal == "none":
        return Unsealed(), ()
    why = "; ".join(settings.problems.get("seal", ())) or "no seal key is configured here"
    if settings.seal is not None and not isinstance(settings.seal, str):
        try:
            return SealKeys.from_lines(settings.seal.get_secret_value()), ()
        except SealKeyError as error:
            why = str(error)
    return Unverified(), (f"snapshots are shown unverified: {why}",)

"""The configuration that the daemon runs under."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from palette_sync.config.effective import effective
from palette_sync.config.errors import ConfigError
from palette_sync.config.loading import EXPOSED
from palette_sync.config.origins import Origins
from palette_sync.config.whole import WholeLayers
from palette_sync.page.configuration import Setting
from palette_sync.store.redis import StoreError, StoreTooMuch

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from palette_sync.assembly.instance import Shared

log = structlog.get_logger(__name__)


@dataclass
class ActiveConfiguration:
    """What is in force now. A reload replaces `shared` as a whole.

    `rejected`: the problems of the last reload, if it was rejected, and `rejected_at` when. `orphaned`: instances that
    are published, but not configured any more. `layers`: what the configuration in force was read from, for the page.
    """

    path: Path
    shared: Shared
    loaded_at: datetime
    rejected: list[str] = field(default_factory=list)
    rejected_at: datetime | None = None
    orphaned: tuple[str, ...] = ()
    layers: tuple[WholeLayers, str] | None = field(default=None, repr=False)  # may hold secrets
    _tables: dict[str, list[Setting]] | None = None

    def __post_init__(self) -> None:
        self.keep_layers()

    def keep_layers(self) -> None:
        """Keep what the configuration in force was read from, as the files are now."""
        self._tables = None
        try:
            self.layers = WholeLayers(self.path, os.environ), self.path.read_text(encoding="utf-8-sig")
        except (ConfigError, OSError, ValueError):  # it has changed since
            self.layers = None

    def tables(self) -> dict[str, list[Setting]]:
        """The settings in force by table, without secrets. The first call after a load takes a while."""
        if self._tables is None:
            origins = Origins(*self.layers) if self.layers is not None else None
            found: dict[str, list[Setting]] = {}
            for keys, value in effective(self.shared.settings):
                origin = origins.of(keys) if origins is not None else None
                text = None if value is None else value if isinstance(value, str) else json.dumps(value)
                setting = Setting(keys[-1], text, str(origin or ""), origin is not None and origin.kind == "default")
                found.setdefault(".".join(keys[:-1]), []).append(setting)
            self._tables = found
        return self._tables

    def log_exposed_secrets(self) -> None:
        exposed = self.shared.settings.exposed_secrets
        if exposed:
            log.warning("secrets_exposed", where=exposed, reason=EXPOSED)

    async def find_orphaned(self) -> None:
        """Look for orphaned instances and log them. Their records stay in Redis: nobody asked to drop them."""
        try:
            found = await self.shared.store.instances() - self.shared.settings.instances.keys()
        except StoreTooMuch as error:
            log.warning("orphaned_unknown", reason=str(error))
            found = set()
        except StoreError:
            return
        if tuple(sorted(found)) != self.orphaned:
            self.orphaned = tuple(sorted(found))
            log.info("instances_orphaned", names=self.orphaned, reason="published, but not configured any more")

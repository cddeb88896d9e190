"""The configuration that the daemon runs under."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from palette_sync.config.loading import EXPOSED
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
    are published, but not configured any more.
    """

    path: Path
    shared: Shared
    loaded_at: datetime
    rejected: list[str] = field(default_factory=list)
    rejected_at: datetime | None = None
    orphaned: tuple[str, ...] = ()

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

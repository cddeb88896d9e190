"""What the page shows, as a test sets it (page.routes.Source)."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from builders import HOUR, INSTANCE, NOW
from palette_sync.core.activity import Slot
from palette_sync.core.model import InstanceState, Secret
from palette_sync.core.objects import Desired
from palette_sync.page.configuration import Configuration, Setting
from palette_sync.page.routes import routes
from palette_sync.telemetry.endpoint import Endpoint

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from datetime import datetime


DESIRED = Desired("backstage-system", "backstage-sa", "backstage-sa-token", "read-only", "read-only-binding", rules=())
TABLES = {
    "instances.alpha": [
        Setting("url", "https://palette.example", "config.toml:2", default=False),
        Setting("api_key", "********", "config.toml:3, read from /etc/palette-sync/api-key", default=False),
        Setting("tenant", None, "default", default=True),
    ],
    "redis": [Setting("prefix", "palette-sync", "default", default=True)],
}


class Source:
    def __init__(self, state: InstanceState) -> None:
        self.state = state
        self.time = NOW
        self.names: tuple[str, ...] = (INSTANCE,)
        self.slots: dict[datetime, Slot] = {}
        self.settings = Configuration("/etc/palette-sync/config.toml", "0123456789abcdef", NOW - HOUR, TABLES)
        self.past: Any = ((), ())
        self.token: Secret | None = None
        self.asked: list[tuple[str, bool]] = []
        self.asked_clusters: list[tuple[str, bool]] = []

    def now(self) -> datetime:
        return self.time

    def document(self) -> Mapping[str, Any]:
        return {"state": "running", "config": {}, "instances": {INSTANCE: {"state": "leading", "ready": True}}}

    async def states(self) -> Mapping[str, InstanceState]:
        return {INSTANCE: self.state}

    def activity(self) -> Mapping[str, Mapping[datetime, Slot]]:
        return dict.fromkeys(self.names, self.slots)

    async def configuration(self) -> Configuration:
        return self.settings

    def desired(self, instance: str) -> Desired:
        return DESIRED

    async def history(self, instance: str, version: int) -> Any:
        return self.past

    def resync(self, instance: str, *, allow_prune: bool) -> bool:
        self.asked.append((instance, allow_prune))
        return instance == INSTANCE

    def ask_cluster(self, instance: str, uid: str, *, rotate: bool) -> str:
        if instance != INSTANCE:
            return "it is led elsewhere"
        self.asked_clusters.append((uid, rotate))
        return ""

    # What the endpoint itself shows (telemetry.endpoint.Probes).

    def not_live(self) -> list[str]:
        return []

    def not_ready(self) -> list[str]:
        return []

    def status(self) -> Mapping[str, object]:
        return self.document()

    def metrics(self) -> tuple[bytes, str]:
        return b"", "text/plain"


@asynccontextmanager
async def served(source: Source) -> AsyncIterator[str]:
    """The URL of an endpoint with the page."""
    async with Endpoint("127.0.0.1:0", source, routes=routes(source)) as endpoint:
        yield endpoint.url

"""When an instance's API key expires: looked up in Palette, logged ahead of time, part of the status document."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from palette_sync import palette
from palette_sync.core.documents import format_time
from palette_sync.core.expiry import warning_due

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime, timedelta

    from palette_sync.palette import PaletteClient
    from palette_sync.runner.status import RunnerStatus

log = structlog.get_logger(__name__)


class KeyWatch:
    """Writes the expiry into the status. `unknown`: the last look-up failed; the next listing tries again."""

    def __init__(self, instance: str, status: RunnerStatus, *, clock: Callable[[], datetime]) -> None:
        self.unknown = False
        self._instance = instance
        self._status = status
        self._clock = clock
        self._warned: tuple[datetime, timedelta] | None = None

    async def look(self, client: PaletteClient, name: str | None) -> None:
        """Look up when the key named `name` expires, and log a warning 14, 7 and 1 days ahead."""
        status = self._status
        if status.key_name != name:
            status.key_name, status.key_expires_at = name, None
        self.unknown = False
        if name is None:
            return
        try:
            key = await palette.api_key_expiry(client, name)
        except palette.PaletteError as error:
            self.unknown = True
            log.warning("api_key_unknown", instance=self._instance, reason=str(error))
            return
        status.key_expires_at = None if key is None else key.expiry
        if key is None:
            log.warning("api_key_unknown", instance=self._instance, reason="Palette lists no key of that name")
        elif key.expiry is not None:
            self._warn(key.expiry)

    def facts(self) -> Mapping[str, object]:
        """What the status document in Redis says of the key."""
        status = self._status
        if status.key_name is None:
            return {}
        ends = {"expires_at": format_time(status.key_expires_at)} if status.key_expires_at else {}
        return {"api_key": {"name": status.key_name, **ends}}

    def _warn(self, expiry: datetime) -> None:
        left = expiry - self._clock()
        before = warning_due(left)
        if before is None or self._warned == (expiry, before):
            return
        self._warned = (expiry, before)
        log.warning(
            "api_key_expires",
            instance=self._instance,
            expires_at=format_time(expiry),
            days=max(left.days, 0),
            reason="create a new API key in Palette, put it into api_key_file and reload",
        )

"""`palette-sync run`: the daemon."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from palette_sync.cli.entry import run_command

if TYPE_CHECKING:
    from pathlib import Path

    from palette_sync.cli.exits import Exit
    from palette_sync.config import Settings


def run(config: Path) -> Exit:
    """Exit 0: drained after SIGTERM or SIGINT; 1: a crash, or Redis refuses; 78: the configuration is wrong."""

    async def work(settings: Settings) -> Exit:
        from palette_sync.cli.composition import StartError, open_shared
        from palette_sync.cli.service import Service
        from palette_sync.telemetry.endpoint import EndpointError
        from palette_sync.telemetry.metrics import Metrics
        from palette_sync.telemetry.systemd import Notifier

        notifier = Notifier.from_environment(os.environ)
        async with open_shared(settings) as shared:
            try:
                return await Service(config, shared, notifier=notifier, metrics=Metrics()).run()
            except EndpointError as error:
                raise StartError(str(error)) from None

    return run_command(config, work)

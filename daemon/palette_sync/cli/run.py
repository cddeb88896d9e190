"""`palette-sync run`: the daemon."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from palette_sync.cli.console import log_problems, print_problems
from palette_sync.cli.entry import run_command
from palette_sync.cli.exits import Exit

if TYPE_CHECKING:
    from pathlib import Path

    from palette_sync.config import Settings


def run(config: Path) -> Exit:
    """Exit 0: drained after SIGTERM or SIGINT; 1: a crash, or Redis or the port fails; 78: wrong configuration."""

    async def work(settings: Settings) -> Exit:
        from palette_sync.assembly.instance import open_shared
        from palette_sync.service.daemon import Daemon, Outcome
        from palette_sync.service.systemd import Notifier
        from palette_sync.telemetry.endpoint import EndpointError
        from palette_sync.telemetry.metrics import Metrics

        metrics = Metrics()
        writer.count_drops(metrics.log_lines_dropped)
        notifier = Notifier.from_environment(os.environ)
        async with open_shared(settings) as shared:
            try:
                outcome = await Daemon(config, shared, notifier=notifier, metrics=metrics).run()
            except EndpointError as error:
                # Not exit 78, after which a supervisor does not restart: whoever holds the port may release it.
                print_problems([str(error)], title="the endpoint cannot listen")
                return Exit.FAILED
        return Exit.OK if outcome is Outcome.STOPPED else Exit.FAILED

    from palette_sync.service.memory_protection import protect_memory
    from palette_sync.telemetry.log_writer import standard_error_in_background

    protect_memory()
    with standard_error_in_background() as writer:
        _log_problems_where_the_log_is_json(config)
        return run_command(config, work)


def _log_problems_where_the_log_is_json(config: Path) -> None:
    """What ends the daemon is an event of its log too, also a configuration that cannot be loaded."""
    from palette_sync.config.layers import log_format_of
    from palette_sync.telemetry.logs import configure_logging

    style = log_format_of(config, os.environ)
    if style == "json" or (style == "auto" and not sys.stderr.isatty()):
        configure_logging(level="error", style="json")
        log_problems()

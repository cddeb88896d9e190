"""What every command does around its own work: load the configuration, run the loop, turn errors into exit codes."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from palette_sync.cli.console import complain
from palette_sync.cli.exits import Exit
from palette_sync.config import ConfigError, load

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from palette_sync.config import Settings

# Dead DNS names block a resolver thread for up to 30 s each.
RESOLVER_THREADS = 64


def run_command(
    config: Path, work: Callable[[Settings], Awaitable[Exit]], *, log_level: str | None = None, logs: bool = True
) -> Exit:
    """Load `config`, run `work` in a fresh event loop and map what it raises to an exit code and a clear message.

    Without `logs` nothing is logged at all, and what logging needs is not loaded: for work whose errors are all raised.
    """
    from palette_sync.assembly.store import StartError
    from palette_sync.store.errors import StoreMisconfigured
    from palette_sync.store.redis import LeaseHeld, StoreError
    from palette_sync.store.seal import SealKeyError

    try:
        settings = load(config)
    except ConfigError as error:
        complain(error.problems, title="the configuration cannot be used")
        return Exit.CONFIG
    if logs:
        from palette_sync.telemetry.logs import configure_logging

        configure_logging(level=log_level or settings.service.log_level, style=settings.service.log_format)
    else:
        logging.disable()
    try:
        try:
            return asyncio.run(_in_loop(work, settings))
        except BaseExceptionGroup as group:
            raise _first(group) from None
    except (StartError, SealKeyError, StoreMisconfigured) as error:
        complain(getattr(error, "problems", [str(error)]), title="the configuration cannot be used")
        return Exit.CONFIG
    except LeaseHeld as error:
        complain([str(error)], title="another palette-sync is at work")
        return Exit.BUSY
    except StoreError as error:
        complain([str(error)], title="Redis cannot be used")
        return Exit.FAILED
    except (KeyboardInterrupt, asyncio.CancelledError):
        complain([], title="interrupted")
        return Exit.FAILED


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What made a task group fail; the others were only cancelled for it."""
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


async def _in_loop(work: Callable[[Settings], Awaitable[Exit]], settings: Settings) -> Exit:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(RESOLVER_THREADS, "resolver"))
    return await work(settings)

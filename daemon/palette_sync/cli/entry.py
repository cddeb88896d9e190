"""What all commands share: load the configuration, run the event loop, turn errors into messages and exit codes."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from palette_sync.cli.console import print_problems
from palette_sync.cli.exits import Exit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    from palette_sync.config import Settings

RESOLVER_THREADS = 64  # a DNS name that does not resolve can block a thread for 30 s


def run_command(
    config: Path,
    work: Callable[[Settings], Awaitable[Exit]],
    *,
    log_level: str | None = None,
    logs: bool = True,
    environ: Mapping[str, str] | None = None,
) -> Exit:
    """Load `config`, run `work` in a new event loop, and turn what it raises into a message and an exit code.

    `log_level` overrides the configured one. Without `logs` nothing is logged, and the logging libraries are not
    imported: a command that raises all its errors starts faster. `environ` stands for the process's environment.
    """
    from palette_sync.config import ConfigError, load

    try:
        settings = load(config, environ=environ)
    except ConfigError as error:
        print_problems(error.problems, title="the configuration cannot be used")
        return Exit.CONFIG
    if logs:
        from palette_sync.telemetry.logs import configure_logging

        configure_logging(level=log_level or settings.service.log_level, style=settings.service.log_format)
    else:
        logging.disable()
    return run_work(lambda: work(settings))


def run_work(work: Callable[[], Awaitable[Exit]]) -> Exit:
    """Run `work` in a new event loop, and turn what it raises into a message and an exit code."""
    try:
        try:
            return asyncio.run(_in_loop(work))
        except BaseExceptionGroup as group:
            raise _first(group) from None
    except (KeyboardInterrupt, asyncio.CancelledError):
        print_problems([], title="interrupted")
        return Exit.FAILED
    except Exception as error:
        code = _explained(error)
        if code is None:
            raise
        return code


def _explained(error: Exception) -> Exit | None:
    """Print what an expected error means, and return the exit code; None for a bug.

    The errors are imported here, because what raises them takes long to import and most commands raise none.
    """
    from palette_sync.assembly.store import StartError
    from palette_sync.store.errors import LeaseHeld, StoreError, StoreMisconfigured
    from palette_sync.store.seal import SealKeyError

    if isinstance(error, StartError | SealKeyError | StoreMisconfigured):
        print_problems(getattr(error, "problems", [str(error)]), title="the configuration cannot be used")
        return Exit.CONFIG
    if isinstance(error, LeaseHeld):
        print_problems([str(error)], title="another palette-sync holds the lease")
        return Exit.BUSY
    if isinstance(error, StoreError):
        hint = "check [redis] and the network; `palette-sync check` shows details"
        print_problems([str(error), hint], title="Redis cannot be used")
        return Exit.FAILED
    return None


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first error of a task group; the group cancelled the other tasks because of it."""
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


async def _in_loop(work: Callable[[], Awaitable[Exit]]) -> Exit:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(RESOLVER_THREADS, "resolver"))
    return await work()

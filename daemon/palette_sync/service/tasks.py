"""Tasks whose failure ends the daemon instead of going unnoticed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self

import structlog

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from types import TracebackType

log = structlog.get_logger(__name__)


class GuardedTasks:
    """The daemon's tasks. An async context manager that waits for all of them when it exits.

    An exception that leaves a task is a bug. It is logged, and `crashed` is set, so that the daemon can drain its other
    tasks before it exits.
    """

    def __init__(self) -> None:
        self.crashed = asyncio.Event()
        self._group = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._group.__aexit__(kind, error, trace)

    def start(self, work: Coroutine[Any, Any, None], *, name: str) -> asyncio.Task[None]:
        return self._group.create_task(self._guarded(work), name=name)

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.current_task()
        try:
            await work
        except Exception:
            log.critical("daemon_crashed", exc_info=True)
            self.crashed.set()
        except asyncio.CancelledError:
            if task is None or not task.cancelling():  # raised by a library, not by a cancellation of this task
                log.critical("daemon_crashed", exc_info=True)
                self.crashed.set()
            raise

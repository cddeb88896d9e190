"""The daemon's signals, and how it ends when a drain does not.

SIGHUP reloads, SIGUSR1 resyncs, SIGUSR2 dumps the state, SIGTERM and SIGINT drain; a second one of these exits at once.
The handlers only set events and put requests into mailboxes.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import signal
import sys
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from palette_sync.events import EVENT
from palette_sync.service.early_signals import KEPT, KEPT_BY_INIT
from palette_sync.telemetry.log_writer import LAST_WORDS, LogWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

log = structlog.get_logger(__name__)

STOP = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def handled(
    *,
    reload: Callable[[], None],
    resync: Callable[[], None],
    dump: Callable[[], None],
    stop: Callable[[], bool],
) -> Iterator[None]:
    """Handle signals in the running event loop. `stop` returns False if a drain has begun before."""
    loop = asyncio.get_running_loop()

    def on_stop(number: signal.Signals) -> None:
        log.info("signal_received", action="drain", signal=number.name)
        if not stop():
            end_at_once("a second signal came during the drain")

    actions = {signal.SIGHUP: reload, signal.SIGUSR1: resync, signal.SIGUSR2: dump}
    for number, action in actions.items():
        loop.add_signal_handler(number, action)
    for number in STOP:
        loop.add_signal_handler(number, on_stop, number)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, KEPT | KEPT_BY_INIT)
    try:
        yield
    finally:
        for number in (*actions, *STOP):
            loop.remove_signal_handler(number)


@contextmanager
def drain_deadline() -> Iterator[Callable[[float], None]]:
    """Yield a function that sets a deadline in seconds. If the block takes longer, the process exits with code 1.

    A C thread ends it, because an event loop that hangs cannot. It first prints where every task and thread is. Where
    nobody reads that, it hangs too, so a second thread ends the process a second later.
    """
    loop = asyncio.get_running_loop()
    timers: list[asyncio.TimerHandle] = []
    killers: list[threading.Timer] = []

    def set_deadline(deadline: float) -> None:
        timers.append(loop.call_later(deadline * 0.95, print_tasks))
        faulthandler.dump_traceback_later(deadline, exit=True)
        killer = threading.Timer(deadline + 1, os._exit, (1,))
        killer.daemon = True
        killer.start()
        killers.append(killer)

    try:
        yield set_deadline
    finally:
        faulthandler.cancel_dump_traceback_later()
        for timer in timers:
            timer.cancel()
        for killer in killers:
            killer.cancel()


def end_at_once(why: str) -> None:
    """Exit with code 1, and print where every task and thread is."""
    log.error("daemon_killed", reason=why)
    print_tasks()
    with tempfile.TemporaryFile() as file:  # not written directly, because that blocks where nobody reads it
        faulthandler.dump_traceback(file)
        file.seek(0)
        sys.stderr.write(file.read().decode())
    if isinstance(sys.stderr, LogWriter):
        sys.stderr.drain(LAST_WORDS)
    else:
        sys.stderr.flush()
    os._exit(1)


def print_tasks() -> None:
    """Print where every task is: files, lines and functions, never values."""
    for name, where in tasks():
        sys.stderr.write(f"task {name}: {where}\n")
    sys.stderr.flush()


def tasks() -> list[tuple[str, str]]:
    """The name of each task with the chain of coroutines that it waits in.

    Tasks that only wait for an event are left out.
    """
    found = [(one.get_name(), _chain(one.get_coro())) for one in asyncio.all_tasks() if one.get_name() != EVENT]
    return sorted(found)


def _chain(coroutine: Any) -> str:
    links = []
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "ag_frame", None)
        if frame is not None:
            links.append(f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {frame.f_code.co_name}")
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "ag_await", None)
    return " > ".join(links) or "done"

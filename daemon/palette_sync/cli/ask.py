"""`palette-sync resync` and `palette-sync reload`: requests to a running daemon, wherever it runs, through Redis."""

from __future__ import annotations

import asyncio
import getpass
import os
import socket
from typing import TYPE_CHECKING, Any

from rich.text import Text

from palette_sync.cli.console import complain, out, plain, print_json, progress_of
from palette_sync.cli.entry import run_command
from palette_sync.cli.exits import Exit
from palette_sync.config.settings import parse_duration

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from palette_sync.config import Settings
    from palette_sync.store.control import Answer, Verb
    from palette_sync.store.redis import Store
    from palette_sync.store.seal import Sealer

HEARD_WITHIN = 15.0  # seconds in which a running daemon says that it has heard


def resync(config: Path, instances: list[str] | None, *, allow_prune: bool, wait: str, as_json: bool) -> Exit:
    """Exit 0: every pass succeeded whole; 1: one did not, or nobody answered in time; 78: wrong configuration."""
    from palette_sync.store.control import Verb

    return _command(config, instances, Verb.ALLOW_PRUNE if allow_prune else Verb.RESYNC, wait=wait, as_json=as_json)


def reload(config: Path, instances: list[str] | None, *, wait: str, as_json: bool) -> Exit:
    """Exit 0: applied; 1: rejected (the daemon goes on as before), or nobody answered; 78: wrong configuration here."""
    from palette_sync.store.control import Verb

    return _command(config, instances, Verb.RELOAD, wait=wait, as_json=as_json)


def _command(config: Path, instances: list[str] | None, verb: Verb, *, wait: str, as_json: bool) -> Exit:
    try:
        seconds = parse_duration(wait).total_seconds()
    except ValueError as error:
        complain([f"--wait {error}"], title="that cannot be done")
        return Exit.CONFIG

    async def work(settings: Settings) -> Exit:
        from palette_sync.assembly.store import chosen_instances, open_store, sealer_of

        chosen = list(chosen_instances(settings, instances))
        sealer = sealer_of(settings)
        async with open_store(settings, sealer) as store:
            await store.ping()
            with progress_of(chosen, show=not as_json) as reporter:
                async with asyncio.TaskGroup() as group:
                    tasks = {
                        name: group.create_task(_ask(store, sealer, name, verb, seconds, reporter(name)), name=name)
                        for name in chosen
                    }
        return _tell({name: task.result() for name, task in tasks.items()}, as_json=as_json)

    return run_command(config, work, log_level="error")


async def _ask(
    store: Store, sealer: Sealer, instance: str, verb: Verb, wait: float, progress: Callable[[str, int, int], None]
) -> Answer:
    """The last answer, or one of our own where the daemon stays silent."""
    from palette_sync.store.control import Answer, AnswerStatus, ask

    by = f"{getpass.getuser()}@{socket.gethostname()}:{os.getpid()}"
    loop = asyncio.get_running_loop()
    begun, heard = loop.time(), False
    progress("asking the daemon", 0, 0)
    async for told in ask(store, sealer, instance, verb, by=by):
        waited = loop.time() - begun
        if told is not None and told.word is not AnswerStatus.ACCEPTED:
            return told
        if told is not None:
            heard = True
            progress(f"the daemon does it ({verb.value})", 0, 0)
        if not heard and waited > min(HEARD_WITHIN, wait):
            return Answer(
                AnswerStatus.FAILED,
                "no palette-sync answered; is `palette-sync run` up, with this Redis, prefix and seal key, and does it "
                "lead this instance?",
            )
        if waited > wait:
            return Answer(AnswerStatus.FAILED, f"it was heard, but is not done after {wait:g} s; it goes on")
    raise AssertionError("asking ends with an answer")


def _tell(answers: dict[str, Answer], *, as_json: bool) -> Exit:
    from palette_sync.store.control import AnswerStatus

    failed = [name for name, told in answers.items() if told.word is not AnswerStatus.DONE]
    if as_json:
        document: dict[str, Any] = {
            name: {"ok": name not in failed, "text": told.text, **told.document} for name, told in answers.items()
        }
        print_json(document)
    else:
        console = out()
        for name, told in answers.items():
            style = "bold red" if name in failed else "bold green"
            console.print(Text.assemble((name, style), f": {plain(told.text)}"))
    return Exit.FAILED if failed else Exit.OK

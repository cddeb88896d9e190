"""`palette-sync resync`: ask the running daemons, on any host, through Redis.

It works while the configuration file is not valid: `[redis]` and `[seal]` are all that it needs of it.
"""

from __future__ import annotations

import asyncio
import getpass
import os
import socket
from typing import TYPE_CHECKING, Any

from rich.text import Text

from palette_sync.cli.console import out, print_json, print_problems, progress_of
from palette_sync.cli.diagnosis import KEYLESS, Where, run_diagnosis
from palette_sync.cli.exits import Exit
from palette_sync.core.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable

    from palette_sync.assembly.diagnosis import Diagnosis
    from palette_sync.store.control import Answer, Verb
    from palette_sync.store.redis import Store
    from palette_sync.store.seal import Sealer

ACCEPTED_WITHIN = 15.0  # seconds within which a running daemon accepts a request
TAKEN_OVER_WITHIN = 150.0  # seconds within which the next leader accepts it: a drain, and for how long it is fresh


def resync(where: Where, instances: list[str] | None, *, allow_prune: bool, wait: float, as_json: bool) -> Exit:
    """Exit 0: every cluster has access or waits for its first, and nothing is held; 1: something is left to do, a pass
    failed, or no answer came in time; 78: it is unknown where Redis is, or there is no seal key.
    """
    from palette_sync.store.control import Verb

    return _request(where, instances, Verb.ALLOW_PRUNE if allow_prune else Verb.RESYNC, wait=wait, as_json=as_json)


def _request(where: Where, instances: list[str] | None, verb: Verb, *, wait: float, as_json: bool) -> Exit:
    async def work(diagnosis: Diagnosis) -> Exit:
        if not diagnosis.verifies:
            return without_seal_key(diagnosis)
        store, sealer = diagnosis.store, diagnosis.sealer
        await store.ping()
        chosen = await _chosen(diagnosis, instances)
        with progress_of(chosen, show=not as_json) as reporter:
            async with asyncio.TaskGroup() as group:
                tasks = {
                    name: group.create_task(
                        ask_daemon(store, sealer, name, verb, wait=wait, progress=reporter(name)), name=name
                    )
                    for name in chosen
                }
        return _print_answers({name: task.result() for name, task in tasks.items()}, as_json=as_json)

    return run_diagnosis(where, work, remarks=False)


async def _chosen(diagnosis: Diagnosis, wanted: list[str] | None) -> list[str]:
    """The named instances, or all: the configured ones, or the published ones where the file cannot be read.

    Raises StartError for an unknown name.
    """
    from palette_sync.assembly.store import StartError

    known = diagnosis.configured
    if known is None:
        known = frozenset(await diagnosis.store.instances())
    if unknown := sorted(set(wanted or ()) - known):
        raise StartError(
            f"--instance {', '.join(unknown)}: not in the configuration, which has {', '.join(sorted(known))}"
        )
    return [name for name in sorted(known) if not wanted or name in wanted]


def without_seal_key(diagnosis: Diagnosis) -> Exit:
    """Say that this needs a seal key."""
    problems = [*diagnosis.remarks, "this needs a seal key, which signs requests and opens tokens", KEYLESS]
    print_problems(problems, title="no seal key")
    return Exit.CONFIG


def sender() -> str:
    """Who asks, for the daemon's log."""
    return f"{getpass.getuser()}@{socket.gethostname()}:{os.getpid()}"


async def ask_daemon(
    store: Store,
    sealer: Sealer,
    instance: str,
    verb: Verb,
    *,
    wait: float,
    progress: Callable[[str, int, int], None],
    arguments: str = "",
) -> Answer:
    """Return the final answer of the daemon, or a failure made here if it does not answer in time.

    `wait` is in seconds. `arguments` are those of a request about one cluster.
    """
    from palette_sync.store.control import Answer, AnswerStatus, ask

    by = sender()
    loop = asyncio.get_running_loop()
    started, accepted = loop.time(), False
    passed_on, passed_on_at = "", 0.0
    progress("asking the daemon", 0, 0)
    async for answer in ask(store.link, store.keys, sealer, instance, verb, by=by, arguments=arguments):
        waited = loop.time() - started
        if answer is not None and answer.word.final:
            return answer
        if answer is not None and answer.word is AnswerStatus.PASSED_ON:
            passed_on, passed_on_at = answer.text, loop.time()
            progress(passed_on, 0, 0)
        elif answer is not None:
            accepted, passed_on = True, ""
            progress(*_stage(answer, verb))
        if passed_on and (waited > wait or loop.time() - passed_on_at > TAKEN_OVER_WITHIN):
            return Answer(AnswerStatus.FAILED, f"{passed_on}, and no daemon has taken it over; ask again")
        if not accepted and waited > min(ACCEPTED_WITHIN, wait):
            return Answer(
                AnswerStatus.FAILED,
                "no daemon answered; is `palette-sync run` up with the same Redis, prefix and seal keys, "
                "and does it lead this instance?",
            )
        if waited > wait:
            return Answer(
                AnswerStatus.FAILED,
                f"accepted, but not finished after {wait:g} s; the daemon continues",
            )
    raise AssertionError("`ask` yields until an answer is final")


def _stage(answer: Answer, verb: Verb) -> tuple[str, int, int]:
    """What the daemon does, and how far it has come, by an answer that is not the last."""
    known = answer.document
    stage, done, total = known.get("stage"), known.get("done"), known.get("total")
    if isinstance(stage, str) and isinstance(done, int) and isinstance(total, int):
        return visible(stage), done, total
    return f"the daemon is working ({verb.value})", 0, 0


def _print_answers(answers: dict[str, Answer], *, as_json: bool) -> Exit:
    from palette_sync.store.control import AnswerStatus

    failed = [name for name, answer in answers.items() if answer.word is not AnswerStatus.DONE]
    if as_json:
        document: dict[str, Any] = {
            name: {"ok": name not in failed, "text": answer.text, **answer.document} for name, answer in answers.items()
        }
        print_json(document)
    else:
        console = out()
        for name, answer in answers.items():
            style = "bold red" if name in failed else "bold green"
            console.print(Text.assemble((name, style), f": {visible(answer.text)}"))
    return Exit.FAILED if failed else Exit.OK

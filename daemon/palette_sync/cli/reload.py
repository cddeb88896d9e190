"""`palette-sync reload`: ask every running daemon to read its configuration again, and show what each answers.

It works while the configuration file is not valid: `[redis]` and `[seal]` are all that it needs of it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from rich.text import Text

from palette_sync.cli.ask import sender, without_seal_key
from palette_sync.cli.console import out, print_json, print_problems, progress_of
from palette_sync.cli.diagnosis import Where, run_diagnosis
from palette_sync.cli.exits import Exit
from palette_sync.core.text import visible

if TYPE_CHECKING:
    from collections.abc import Collection

    from palette_sync.assembly.diagnosis import Diagnosis
    from palette_sync.store.control import Answer
    from palette_sync.store.members import MemberBook

ACCEPTED_WITHIN = 15.0  # seconds within which a living daemon accepts a request

NOBODY = "no daemon announces itself in Redis; is `palette-sync run` up with the same Redis, prefix and seal keys?"
OTHER_KEYS = "it has other seal keys than this command, so it ignores the request; reload it with SIGHUP, or restart it"
NO_ANSWER = "no answer within {:g} s; look at its log"


class Outcome(StrEnum):
    """What became of the request at one daemon."""

    RELOADED = "reloaded"
    REJECTED = "rejected"
    NO_ANSWER = "no answer"
    ENDED = "ended"


@dataclass
class _Asked:
    """What each daemon did with the request, by its id. `accepted` are those that have not answered yet."""

    accepted: set[str] = field(default_factory=set)
    outcomes: dict[str, tuple[Outcome, str]] = field(default_factory=dict)

    def take(self, answer: Answer) -> None:
        from palette_sync.store.control import AnswerStatus

        member = str(answer.document.get("member", "?"))
        if answer.word is AnswerStatus.ACCEPTED:
            self.accepted.add(member)
        else:
            done = answer.word is AnswerStatus.DONE
            self.outcomes[member] = (Outcome.RELOADED if done else Outcome.REJECTED, answer.text)

    def give_up(self, missing: Collection[str], text: str, outcome: Outcome = Outcome.NO_ANSWER) -> None:
        self.outcomes.update({member: (outcome, text) for member in missing if member not in self.outcomes})


def reload(where: Where, *, allow_prune: bool, wait: float, as_json: bool) -> Exit:
    """Exit 0: every living daemon applied its configuration; 1: one rejected it (it keeps the former one), one did not
    answer within `wait` seconds, or none lives; 78: it is unknown where Redis is, or there is no seal key.
    """

    async def work(diagnosis: Diagnosis) -> Exit:
        if not diagnosis.verifies:
            return without_seal_key(diagnosis)
        await diagnosis.store.ping()
        with progress_of(["daemons"], show=not as_json) as reporter:
            progress = reporter("daemons")
            progress("asking", 0, 0)
            asked = await _ask(diagnosis, allow_prune=allow_prune, wait=wait)
        return _print(asked, as_json=as_json)

    return run_diagnosis(where, work, remarks=False)


async def _ask(diagnosis: Diagnosis, *, allow_prune: bool, wait: float) -> _Asked:
    """Ask all living daemons, and wait until each has answered, has ended, or has had its time.

    If none lives, nothing is sent.
    """
    from contextlib import aclosing

    from palette_sync.store.control import Verb, ask_everybody
    from palette_sync.store.inspect import ANNOUNCED_WITHIN
    from palette_sync.store.members import MemberBook

    store, sealer = diagnosis.store, diagnosis.sealer
    book, asked = MemberBook(store.link, store.keys), _Asked()
    loop = asyncio.get_running_loop()
    company = await book.listen(sealer)
    if not company.members:
        await asyncio.sleep(ANNOUNCED_WITHIN)
        company = await book.listen(sealer)
    expected, started = {one.id for one in company.members}, loop.time()
    if not expected:  # a daemon that starts soon would carry the request out, and nobody would see its answer
        asked.give_up(company.strangers, OTHER_KEYS)
        return asked
    verb = Verb.RELOAD_ALLOW_PRUNE if allow_prune else Verb.RELOAD
    async with aclosing(ask_everybody(store.link, store.keys, sealer, verb, by=sender())) as answers:
        async for answer in answers:
            if answer is not None:
                asked.take(answer)
            waited = loop.time() - started
            missing = expected - asked.outcomes.keys()
            if missing and answer is None:
                company = await book.listen(sealer)
                asked.give_up(missing - {one.id for one in company.members}, "it has ended meanwhile", Outcome.ENDED)
            late = missing if waited > wait else missing - asked.accepted if waited > ACCEPTED_WITHIN else set()
            asked.give_up(late, NO_ANSWER.format(min(wait, waited)))
            if expected <= asked.outcomes.keys():
                break
    asked.give_up(await _strangers(book, diagnosis), OTHER_KEYS)
    return asked


async def _strangers(book: MemberBook, diagnosis: Diagnosis) -> Collection[str]:
    """The ids of living daemons with other seal keys. They live if what they announce changes."""
    from palette_sync.store.inspect import ANNOUNCED_WITHIN

    if not book.unknown:
        return ()
    await asyncio.sleep(ANNOUNCED_WITHIN)
    return (await book.listen(diagnosis.sealer)).strangers


def _print(asked: _Asked, *, as_json: bool) -> Exit:
    failed = [name for name, (outcome, _) in asked.outcomes.items() if outcome in {Outcome.REJECTED, Outcome.NO_ANSWER}]
    if as_json:
        document: dict[str, Any] = {
            name: {"ok": name not in failed, "outcome": outcome.value, "text": text}
            for name, (outcome, text) in sorted(asked.outcomes.items())
        }
        print_json(document)
    elif not asked.outcomes:
        print_problems([NOBODY], title="nobody was asked")
    else:
        console = out()
        for name, (outcome, text) in sorted(asked.outcomes.items()):
            style = "bold red" if name in failed else "bold green"
            said = "" if text == outcome.value else f": {visible(text.removeprefix(f'{outcome.value}; '))}"
            console.print(Text.assemble((visible(name), style), f": {outcome.value}{said}"))
    reloaded = any(outcome is Outcome.RELOADED for outcome, _ in asked.outcomes.values())
    return Exit.OK if reloaded and not failed else Exit.FAILED

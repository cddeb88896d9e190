"""What the commands share that only look: where Redis is, and with which keys snapshots are verified."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.text import Text

from palette_sync.cli.console import err, print_problems
from palette_sync.cli.entry import run_work
from palette_sync.cli.exits import Exit
from palette_sync.core.text import visible

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from palette_sync.assembly.diagnosis import Diagnosis
    from palette_sync.config.partial_settings import PartialSettings

# What to do where a command needs a seal key and found none. The table may be in a file that is not valid.
KEYLESS = "set [seal] keys_file; if it is set, `palette-sync check` shows what is wrong with the configuration"


@dataclass(frozen=True, slots=True)
class Where:
    """The configuration file, and what the command line says instead of it."""

    config: Path
    redis_url: str = ""
    prefix: str = ""

    def settings(self) -> PartialSettings:
        from palette_sync.config.partial import load_partial

        return load_partial(self.config, redis_url=self.redis_url, prefix=self.prefix)


def run_diagnosis(where: Where, work: Callable[[Diagnosis], Awaitable[Exit]], *, remarks: bool = True) -> Exit:
    """Open the store as far as possible and run `work`. Exit 78: it is unknown where Redis is.

    `remarks`: print what limits the view on standard error.
    """
    from palette_sync.assembly.diagnosis import open_diagnosis

    logging.disable()
    settings = where.settings()
    wrong = settings.problems.get("redis", [])
    if settings.instances is None and settings.redis.url == type(settings.redis)().url:
        wrong = settings.problems["file"]
    if not where.redis_url and wrong:
        hint = "name Redis with --redis or PALETTE_SYNC_REDIS__URL"
        print_problems([*wrong, hint], title="it is unknown where Redis is")
        return Exit.CONFIG

    async def opened() -> Exit:
        async with open_diagnosis(settings) as diagnosis:
            shown = _print_remarks(diagnosis.remarks) if remarks else 0
            code = await work(diagnosis)
            if remarks:
                _print_remarks(diagnosis.remarks[shown:])  # found on the way
            return code

    return run_work(opened)


def _print_remarks(remarks: list[str]) -> int:
    """Print them and return their number."""
    for remark in remarks:
        err().print(Text(f"palette-sync: {visible(remark)}", style="yellow"))
    return len(remarks)

"""The options that several commands share, and what their values mean."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from palette_sync.cli.completion import complete_instance
from palette_sync.cli.exits import Exit

OUTPUTS = ("table", "wide", "name", "json", "yaml")


def _known_output(word: str) -> str:
    one_of(word, OUTPUTS, "--output")
    return word


# `readable` is off because the configuration reports an unreadable file with exit 78. typer would exit with 2, after
# which systemd restarts the service.
ConfigOption = Annotated[
    Path,
    typer.Option("--config", "-c", envvar="PALETTE_SYNC_CONFIG", help="The configuration file.", readable=False),
]
InstanceOption = Annotated[
    list[str] | None,
    typer.Option("--instance", "-i", help="Only this instance; can be repeated.", autocompletion=complete_instance),
]
OneInstanceOption = Annotated[
    str | None, typer.Option("--instance", "-i", help="The instance.", autocompletion=complete_instance)
]
WaitOption = Annotated[str, typer.Option("--wait", help="How long to wait for the daemon's answer, for example 90s.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of tables.")]
OutputOption = Annotated[
    str, typer.Option("--output", "-o", help="table, wide, name, json or yaml.", callback=_known_output)
]
RedisOption = Annotated[
    str,
    typer.Option("--redis", metavar="URL", help="Read this Redis. Give a password by PALETTE_SYNC_REDIS__URL instead."),
]
PrefixOption = Annotated[str, typer.Option("--prefix", help="The prefix of the keys in Redis.")]


def seconds_of(text: str, option: str) -> float:
    """A duration of the command line. A wrong one ends with exit code 2."""
    from palette_sync.core.durations import parse_duration

    try:
        return parse_duration(text).total_seconds()
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def one_of(word: str, words: Sequence[str], option: str) -> None:
    if word not in words:
        raise typer.BadParameter(f"{word!r} is not one of {', '.join(words)}", param_hint=option)


def leave(code: Exit) -> None:
    raise typer.Exit(int(code))

"""`palette-sync config init`: the first configuration, the seal keys, and what to run next.

It overwrites nothing. Secrets come from hidden questions or from files, never from the command line, which other users
of the machine can read; they are written into files that only their owner can read.
"""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import typer
from rich.text import Text

from palette_sync.cli.called import called
from palette_sync.cli.console import err, out, print_json, print_problems
from palette_sync.cli.exits import Exit
from palette_sync.config.starter import DEFAULT_REDIS, DEFAULT_URL, MODES, Starter, problem_with, starter_text

PRIVATE, PUBLIC = 0o600, 0o644


@dataclass(frozen=True, slots=True)
class Given:
    """What the command line gives; "" is asked for, or has its default."""

    target: Path
    instance: str = ""
    url: str = ""
    mode: str = ""
    api_key_file: Path | None = None
    redis_url: str = ""
    redis_url_file: Path | None = None
    seal_keys_file: Path | None = None


class Refused(Exception):
    """A value of the command line cannot be used."""


@dataclass(frozen=True, slots=True)
class _Answers:
    """`api_key` and `redis_login` are secrets; "" where none is written."""

    instance: str
    url: str
    mode: str
    redis_url: str
    api_key: str = ""

    @property
    def redis_login(self) -> bool:
        return "@" in self.redis_url or "password=" in self.redis_url


def run(given: Given, *, as_json: bool) -> Exit:
    """Exit 0: written; 1: a file exists already or cannot be written; 2: a value is missing or wrong."""
    if existing := _existing(given):
        print_problems(existing, title="nothing is overwritten")
        return Exit.FAILED
    try:
        answers = _answers(given)
    except Refused as error:
        print_problems([str(error)], title="wrong arguments")
        return Exit.USAGE
    files, starter = _files(given, answers)
    written: list[Path] = []
    try:
        for path, (text, mode) in files.items():
            _write_new(path, text, mode)
            written.append(path)
    except OSError as error:
        for path in written:
            path.unlink()
        print_problems([f"{path}: {error.strerror}"], title="the configuration cannot be written")
        return Exit.FAILED
    _report(given, written, _missing(given, starter), as_json=as_json)
    return Exit.OK


def _existing(given: Given) -> list[str]:
    problems = []
    if given.target.exists():
        problems.append(f"{given.target}: exists already; choose another name with --out")
    keys = given.target.parent / "seal.keys"
    if given.seal_keys_file is None and keys.exists():
        problems.append(
            f"{keys}: exists already; use it with --seal-keys-file {shlex.quote(str(keys))}, or move it away"
        )
    return problems


# -- asking -----------------------------------------------------------------------------------------------------------


def _answers(given: Given) -> _Answers:
    """Ask for what is not given on a terminal, and take defaults elsewhere. Raises Refused."""
    asks = sys.stdin.isatty() and sys.stderr.isatty()
    if not (asks or given.url):
        raise Refused(f"--url is missing; there is no terminal to ask on. Write for example --url {DEFAULT_URL}")
    if "@" in given.redis_url or "password=" in given.redis_url:
        raise Refused("--redis-url: holds a password, which others can read there; use --redis-url-file")
    instance = _answer("instance", "--instance", given.instance, "A name for the Palette instance", "prod", asks=asks)
    url = _answer("url", "--url", given.url, "The URL of Palette's API", DEFAULT_URL, asks=asks)
    api_key = ""
    if asks and given.api_key_file is None and not _api_key_file(given, instance).exists():
        question = "Its API key (hidden; empty to write the file later)"
        api_key = _answer("api_key", "", "", question, "", asks=True, hidden=True)
    mode = _answer("mode", "--mode", given.mode, f"Access to clusters: {', '.join(MODES)}", MODES[0], asks=asks)
    redis = ""
    if given.redis_url_file is None:
        redis = _answer("redis_url", "--redis-url", given.redis_url, "The URL of Redis", DEFAULT_REDIS, asks=asks)
    return _Answers(instance, url.rstrip("/"), mode, redis, api_key)


def _answer(
    field: str, option: str, given: str, question: str, default: str, *, asks: bool, hidden: bool = False
) -> str:
    """Return the given value, or the answer to the question, which is repeated until it is valid."""
    if given or not asks:
        value = given or default
        if problem := problem_with(field, value):
            raise Refused(f"{option}: {problem}")
        return value
    while True:
        value = str(
            typer.prompt(question, default=default, hide_input=hidden, show_default=bool(default), err=True)
        ).strip()
        problem = problem_with(field, value) if value or default else None
        if problem is None:
            return value
        err().print(Text(f"  {problem}", style="red"))


# -- writing ----------------------------------------------------------------------------------------------------------


def _api_key_file(given: Given, instance: str) -> Path:
    return given.api_key_file or given.target.parent / f"{instance}.api-key"


def _files(given: Given, answers: _Answers) -> tuple[dict[Path, tuple[str, int]], Starter]:
    """Return the text and the mode of each file to write, the configuration last; and what it says."""
    from palette_sync.store.seal import SealKeys

    files: dict[Path, tuple[str, int]] = {}
    folder = given.target.parent
    keys = given.seal_keys_file or folder / "seal.keys"
    if not keys.exists():
        files[keys] = (SealKeys.generate_line() + "\n", PRIVATE)
    api_key_file = _api_key_file(given, answers.instance)
    if answers.api_key:
        files[api_key_file] = (answers.api_key + "\n", PRIVATE)
    redis_file = given.redis_url_file
    if answers.redis_login:
        redis_file = folder / "redis.url"
        files[redis_file] = (answers.redis_url + "\n", PRIVATE)
    starter = Starter(
        instance=answers.instance,
        url=answers.url,
        mode=answers.mode,
        api_key_file=_relative(api_key_file, folder),
        keys_file=_relative(keys, folder),
        redis_url=answers.redis_url,
        redis_url_file=_relative(redis_file, folder) if redis_file else "",
    )
    files[given.target] = (starter_text(starter), PUBLIC)
    return files, starter


def _relative(file: Path, folder: Path) -> str:
    """Paths in the configuration are relative to it, and those of the command line to where it runs."""
    return str(file) if file.is_absolute() else os.path.relpath(file, folder)


def _write_new(path: Path, text: str, mode: int) -> None:
    """Raises OSError, also if the file exists."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)


# -- reporting --------------------------------------------------------------------------------------------------------


def _missing(given: Given, starter: Starter) -> list[Path]:
    """The files that the configuration names and somebody has to write."""
    named = [starter.api_key_file, *([starter.redis_url_file] if starter.redis_url_file else [])]
    return [path for one in named if not (path := given.target.parent / one).exists()]


def _report(given: Given, written: list[Path], missing: list[Path], *, as_json: bool) -> None:
    config = shlex.quote(str(given.target))
    following = f"{called()} check --config {config}"
    if as_json:
        print_json({"written": list(map(str, written)), "to_write": list(map(str, missing)), "next": following})
        return
    console = out()
    for path in written:
        note = "" if path == given.target else "  (only its owner can read it)"
        console.print(Text.assemble(("wrote ", "green"), f"{path}{note}"), soft_wrap=True)
    for path in missing:
        console.print(Text("then write the secret into its file, and end with Ctrl-D:"), soft_wrap=True)
        console.print(Text(f"  (umask 077; cat > {shlex.quote(str(path))})"), soft_wrap=True)
    console.print(Text("next:"))
    console.print(Text(f"  {following}", style="bold"), soft_wrap=True)

"""The pages for people: links lead somewhere, commands parse, configurations load, make targets exist."""

from __future__ import annotations

import re
import shlex
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from palette_sync.cli.main import app
from palette_sync.config.loading import _Loaded

ROOT = Path(__file__).parents[2]
FOLDERS = ("", "docs", "deploy", "deploy/backstage", "deploy/backstage-catalog", "deploy/backstage-frontend")
PAGES = sorted(path.relative_to(ROOT).as_posix() for folder in FOLDERS for path in (ROOT / folder).glob("*.md"))
CHANGES = {"CHANGELOG.md"}  # it speaks of what was
PLACEHOLDERS = {"VERSION": "7"}
BASE = {"instances": {"prod": {"url": "https://api.example.com", "api_key": "some-key"}}, "seal": "none"}


@cache
def text_of(page: str) -> str:
    return (ROOT / page).read_text()


@cache
def anchors(page: str) -> frozenset[str]:
    """The anchors of a page's headings, as a forge makes them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text_of(page), flags=re.DOTALL), re.MULTILINE)
    return frozenset(re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings)


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)]*))?\)", text_of(page)):
        if re.match(r"[a-z]+:", target):
            continue
        there = (ROOT / page).parent / target if target else ROOT / page
        assert there.exists(), f"{page}: {target}"
        if anchor:
            assert anchor in anchors(there.resolve().relative_to(ROOT).as_posix()), f"{page}: {target}#{anchor}"


def blocks(page: str, *languages: str) -> list[str]:
    return [
        code for language, code in re.findall(r"```(\w*)\n(.*?)```", text_of(page), re.DOTALL) if language in languages
    ]


def called(page: str) -> list[str]:
    """Every call of palette-sync on a page: in blocks of a console, and between backticks."""
    lines = [line for block in blocks(page, "console", "sh") for line in block.replace("\\\n", " ").splitlines()]
    lines = [line for line in lines if not re.match(r"[$#] (helm|kubectl)", line)]
    found = [match[1] for line in lines if (match := re.search(r"(?:^|[\s/(])palette-sync ([a-z][^|;&>#)]*)", line))]
    prose = re.sub(r"```.*?```", "", text_of(page), flags=re.DOTALL)
    return found + re.findall(r"`palette-sync ([a-z][^`]*)`", prose)


CALLS = sorted({(page, one.strip()) for page in set(PAGES) - CHANGES for one in called(page)})


@pytest.mark.parametrize(("page", "call"), CALLS, ids=[f"{page}: {call}" for page, call in CALLS])
def test_every_command_can_be_called_as_it_is_written(page: str, call: str) -> None:
    del page
    words = [PLACEHOLDERS.get(word, word) for word in shlex.split(re.sub(r"[\[\]]", "", call))]
    command: Any = get_command(app)
    while hasattr(command, "commands"):
        command, words = command.commands[words[0]], words[1:]
    parsed = command.make_context("palette-sync", words, resilient_parsing=not words)

    assert parsed.command is command


CONFIGURATIONS = [(page, block) for page in PAGES for block in blocks(page, "toml")]


@pytest.mark.parametrize(("page", "block"), CONFIGURATIONS, ids=[page for page, _ in CONFIGURATIONS])
def test_every_configuration_loads(page: str, block: str) -> None:
    del page
    document = merged(BASE, _without_files(tomllib.loads(block)))

    assert _Loaded(document=document).instances  # type: ignore[call-arg]  # as `load` builds it


def merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    both = {**one, **other}
    for key in one.keys() & other.keys():
        if isinstance(one[key], dict) and isinstance(other[key], dict):
            both[key] = merged(one[key], other[key])
    return both


def _without_files(document: dict[str, Any]) -> dict[str, Any]:
    """Without the keys that name files of secrets: they are read before the settings are built."""
    kept = {
        key: _without_files(value) if isinstance(value, dict) else value
        for key, value in document.items()
        if key not in {"api_key_file", "url_file", "keys_file", "token_file"}
    }
    return {key: value for key, value in kept.items() if value != {} or document[key] == {}}


@pytest.mark.parametrize("page", sorted(set(PAGES) - CHANGES))
def test_every_make_target_exists(page: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", text_of_makefile(), re.MULTILINE))
    named = set(re.findall(r"`make ([a-z-]+)", text_of(page)))
    named |= {
        word for block in blocks(page, "console") for word in re.findall(r"^\$ make ([a-z-]+)", block, re.MULTILINE)
    }

    assert named <= targets


def text_of_makefile() -> str:
    return (ROOT / "Makefile").read_text()

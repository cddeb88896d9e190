"""`palette-sync config show` and `config example`: what is in force and why, and every key with its default."""

from __future__ import annotations

import json
import sys
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from palette_sync.cli.console import out, print_json, print_problems
from palette_sync.cli.exits import Exit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from palette_sync.config.origins import Origin

REPOSITORY_EXAMPLE = Path(__file__).parents[3] / "config.example.toml"  # where it is installed as editable


def show(config: Path, *, changed: bool, as_json: bool) -> Exit:
    """Exit 0: shown; 78: the configuration is wrong. `changed`: without what has its default."""
    from palette_sync.config.effective import effective
    from palette_sync.config.errors import ConfigError
    from palette_sync.config.loading import load_with_layers
    from palette_sync.config.origins import Origins

    try:
        settings, layers = load_with_layers(config)
    except ConfigError as error:
        print_problems(error.problems, title="the configuration cannot be used")
        return Exit.CONFIG
    origins = Origins(layers, config.read_text(encoding="utf-8-sig"))
    found = [(keys, value, origins.of(keys)) for keys, value in effective(settings)]
    if changed:
        found = [one for one in found if one[2].kind != "default"]
    if as_json:
        print_json([_document(keys, value, origin) for keys, value, origin in found])
    else:
        _print(found)
    return Exit.OK


def _document(keys: Sequence[str], value: Any, origin: Origin) -> dict[str, Any]:
    more = {"where": origin.where, "line": origin.line, "inherited_from": origin.key, "secret_file": origin.secret_file}
    return {"key": ".".join(keys), "value": value, "from": origin.kind} | {
        name: one for name, one in more.items() if one
    }


def _print(found: Sequence[tuple[tuple[str, ...], Any, Origin]]) -> None:
    """Print TOML with the origins as comments. A line is never broken, so that it can be copied."""
    console = out()
    table: tuple[str, ...] = ()
    for number, (keys, value, origin) in enumerate(found):
        if keys[:-1] != table:
            table = keys[:-1]
            console.print(Text(f"{chr(10) if number else ''}[{'.'.join(table)}]", style="bold"), soft_wrap=True)
        line = Text(f"# {keys[-1]} is not set" if value is None else f"{keys[-1]} = {_toml(value)}")
        style = "dim" if origin.kind == "default" else "cyan"
        console.print(Text.assemble(line, "  ", (f"# {origin}", style)), soft_wrap=True)


def _toml(value: Any) -> str:
    """Inline TOML. Texts are written as JSON has them, which TOML reads as the same."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)


def example() -> Exit:
    """Print config.example.toml, which lies in the wheel."""
    packed = files("palette_sync.config") / "example.toml"
    sys.stdout.write((packed if packed.is_file() else REPOSITORY_EXAMPLE).read_text(encoding="utf-8"))
    return Exit.OK

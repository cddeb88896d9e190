"""The forms of a list: tables for people, names for a shell, JSON and YAML for programs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from rich.text import Text

from palette_sync.cli.console import out, print_json
from palette_sync.core.text import visible

if TYPE_CHECKING:
    from collections.abc import Iterable

DOCUMENTS = frozenset({"json", "yaml"})


def print_document(document: Any, output: str) -> None:
    """Print a whole answer as `json` or `yaml`."""
    print_json(document) if output == "json" else print_yaml(document)


def print_yaml(document: Any) -> None:
    import orjson
    import yaml

    plain = orjson.loads(orjson.dumps(document, default=str))
    sys.stdout.write(yaml.dump(plain, Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=False))


def print_names(names: Iterable[str]) -> None:
    """Print each name once, one per line."""
    console = out()
    for name in dict.fromkeys(names):
        console.print(Text(visible(name)), soft_wrap=True)

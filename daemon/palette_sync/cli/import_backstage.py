"""`palette-sync import-backstage`: our configuration from that of the in-process plugin in Backstage.

References such as `${VAR}` and `$file` stay references: no variable and no other file is read.
"""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.text import Text

from palette_sync.cli.console import out, print_json, print_problems, table_of
from palette_sync.cli.exits import Exit
from palette_sync.core.backstage_files import BackstageConfigError, merge
from palette_sync.core.backstage_import import translate
from palette_sync.core.backstage_output import app_config_text, config_text, variable_lines
from palette_sync.kube.kubeconfig_yaml import YamlRefused, read_yaml

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from palette_sync.core.backstage_import import Imported

_PRIVATE = 0o600


def run(files: Sequence[Path], target: Path, *, as_json: bool) -> Exit:
    """Exit 0: written; 1: the files cannot be used, or `target` exists."""
    try:
        imported = translate(merge((str(file.absolute().parent), _read(file)) for file in files))
    except BackstageConfigError as error:
        print_problems([f"{', '.join(map(str, files))}: {error}"], title="Backstage's configuration cannot be used")
        return Exit.FAILED
    try:
        _write(target, config_text(imported))
    except OSError as error:
        hint = "name another file with --out" if isinstance(error, FileExistsError) else "correct the path"
        print_problems([f"{target}: cannot be written: {error.strerror}; {hint}"], title="nothing was written")
        return Exit.FAILED
    if as_json:
        print_json(
            {
                "written": str(target),
                "keys": [asdict(row) for row in imported.rows],
                "variables": variable_lines(imported),
                "app_config": app_config_text(imported),
            }
        )
    else:
        _print(imported, target)
    return Exit.OK


def _read(file: Path) -> object:
    """Raises BackstageConfigError."""
    try:
        return read_yaml(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise BackstageConfigError(f"{file.name} cannot be read: {error.strerror}") from None
    except (UnicodeError, YamlRefused):
        raise BackstageConfigError(f"{file.name} is not a YAML file that can be read") from None


def _write(target: Path, text: str) -> None:
    """Write a new file that only its owner can read. Raises FileExistsError, OSError."""
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _PRIVATE)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)


def _print(imported: Imported, target: Path) -> None:
    console = out()
    rows = [(row.fate.value, row.key, row.here, row.remark) for row in imported.rows]
    console.print(table_of(("", "in Backstage", "here", "remark"), rows, console=console))
    console.print(Text(f"\nWritten: {target}"))
    if imported.variables:
        console.print(Text("\nThe daemon needs these variables beside it:\n", style="bold"))
        for line in variable_lines(imported):
            console.print(Text(line))
    console.print(Text("\nFor app-config.yaml, once you cut over:\n", style="bold"))
    console.print(Text(app_config_text(imported)))
    console.print(
        Text(
            f"Next: palette-sync seal-key > {target.parent / 'seal.keys'}, set [redis] url, then "
            f"palette-sync check --config {target} and palette-sync plan --config {target}. docs/migrate.md goes on."
        )
    )

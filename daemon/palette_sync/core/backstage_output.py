"""What an import of Backstage's configuration writes and prints: our configuration, variables, a block for app-config.

Pure. No value of a reference is in it.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from palette_sync.core.backstage_files import Variable

if TYPE_CHECKING:
    from palette_sync.core.backstage_import import Imported, Shell

_HEAD = """\
# Written by `palette-sync import-backstage`. Every other key has its default; config.example.toml explains all of them.
"""
_TAIL = """
[redis]
url = "redis://127.0.0.1:6379/0"

[seal]
keys_file = "seal.keys"
"""


def config_text(imported: Imported) -> str:
    """Our configuration file, TOML."""
    sections = [_HEAD]
    for name, table in imported.instances.items():
        sections.append("\n".join(_table(f"instances.{name}", table)) + "\n")
    return "\n".join(sections) + _TAIL


def _table(name: str, table: dict[str, Any]) -> list[str]:
    below = {key: value for key, value in table.items() if isinstance(value, dict)}
    lines = [f"[{name}]", *(f"{key} = {_value(value)}" for key, value in table.items() if key not in below)]
    for key, value in below.items():
        if value:
            lines += _table(f"{name}.{key}", value)
    return lines


def _value(value: object) -> str:
    """A value of TOML. Its basic strings have the escapes of JSON, and DEL must be escaped too."""
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key} = {_value(one)}' for key, one in value.items())} }}"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def variable_lines(imported: Imported) -> list[str]:
    """Lines of a shell that set the daemon's variables from those that Backstage has."""
    return [f"export {name}={_quoted(shell)}" for name, shell in imported.variables.items()]


def _quoted(shell: Shell) -> str:
    return '"' + "".join(_expansion(part) if isinstance(part, Variable) else _literal(part) for part in shell) + '"'


def _expansion(variable: Variable) -> str:
    default = "" if variable.default is None else f":-{_literal(variable.default)}"
    return f"${{{variable.name}{default}}}"


def _literal(text: str) -> str:
    return re.sub(r'(["\\$`])', r"\\\1", text)


def app_config_text(imported: Imported) -> str:
    """The block for app-config.yaml that lets Backstage read what the daemon publishes."""
    lines = [
        "paletteSync:",
        "  redis:",
        "    url: ${PALETTE_SYNC_REDIS_URL}",
        "  sealKeys: ${PALETTE_SYNC_SEAL_KEYS}",
    ]
    if imported.default_owner:
        lines += [
            "catalog:",
            "  providers:",
            "    paletteSync:",
            f"      defaultOwner: {json.dumps(imported.default_owner)}",
        ]
    return "\n".join(lines) + "\n"

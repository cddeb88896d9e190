"""The references of configuration and commands, from the settings models, config.example.toml and the command line.

`docs/generate.py` writes them into the pages. Types and defaults come from the models, the words from the comments of
the example.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import SecretStr
from typer.main import get_command

from palette_sync.cli.main import app
from palette_sync.config import cloud_settings, settings, values

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import BaseModel

ROOT = Path(__file__).parents[1]
TABLES: dict[str, type[BaseModel]] = {
    "defaults": settings.DefaultsSettings,
    "defaults.auth": settings.AuthSettings,
    "defaults.oidc": settings.OidcSettings,
    "defaults.cloud.aws": cloud_settings.AwsSettings,
    "defaults.cloud.google": cloud_settings.GoogleSettings,
    "defaults.cloud.azure": cloud_settings.AzureSettings,
    "defaults.trust": settings.TrustSettings,
    "defaults.rbac": settings.RbacSettings,
    "defaults.token": settings.TokenSettings,
    "instances.prod": settings.InstanceSettings,
    "redis": settings.RedisSettings,
    "seal": settings.SealSettings,
    "service": settings.ServiceSettings,
    "http": settings.HttpSettings,
    "otel": settings.OtelSettings,
    "network": settings.NetworkSettings,
}
_ALIASES = {
    "Duration": "duration",
    "DurationOrNever": 'duration, or "never"',
    "DurationOrZero": "duration, or 0",
    "Names": "list of texts",
    "Networks": "list of networks",
    "HttpsUrl": "https address",
    "CollectorUrl": "address",
    "ProxyUrl": "http address",
    "ApiKey": "secret text",
}
_KEY = re.compile(r"(?P<off># )?(?P<key>[a-z_]+) = (?P<rest>.+)")
_INLINE = re.compile(r"\s+# (?P<words>.+)$")


class Example:
    """What config.example.toml says: for each table its words, for each (table, key) its words, value and a sample."""

    def __init__(self, text: str) -> None:
        self.tables: dict[str, str] = {}
        self.words: dict[tuple[str, str], str] = {}
        self.samples: dict[tuple[str, str], str] = {}
        self.values: dict[tuple[str, str], str] = {}
        table, above = "", list[str]()
        for line in re.sub(r"([\[,])\n# +(?=[{\]])", r"\1 ", text).splitlines():
            if header := re.fullmatch(r"\[([a-z.]+)\]", line):
                table, self.tables[header[1]] = header[1], _joined(above)
                above = []
            elif line.startswith("# ----") or not line:
                above = []
            elif entry := _KEY.fullmatch(line):
                self._key(table, entry, above)
                above = []
            elif line.startswith("#"):
                above.append(line.removeprefix("#").strip())

    def _key(self, table: str, entry: re.Match[str], above: list[str]) -> None:
        where, rest = (table, entry["key"]), entry["rest"]
        inline = _INLINE.search(rest)
        words = " ".join(filter(None, [_joined(above), inline["words"] if inline else ""]))
        if words and where not in self.words:
            self.words[where] = words
        value = rest[: inline.start()] if inline else rest.strip()
        (self.samples if entry["off"] else self.values)[where] = value


def _joined(lines: list[str]) -> str:
    return " ".join(line for line in lines if not line.startswith(("{", "]")))


def configuration() -> str:
    """One table of keys for each table of the configuration."""
    example = Example((ROOT / "config.example.toml").read_text())
    parts = []
    for table, model in TABLES.items():
        rows = list(_rows(example, table, model))
        title = table.replace("instances.prod", "instances.NAME")
        parts += [f"## `[{title}]`", ""]
        if words := example.tables.get(table):
            parts += [words, ""]
        parts += ["| key | value | default | meaning |", "|---|---|---|---|", *rows, ""]
    return "\n".join(parts).rstrip()


def _rows(example: Example, table: str, model: type[BaseModel]) -> Iterator[str]:
    hints = get_type_hints(model, include_extras=True)
    for key, field in model.model_fields.items():
        if f"{table}.{key}" in TABLES or key == "cloud":
            continue
        if table == "instances.prod" and key in settings.InheritedSettings.model_fields:
            continue
        where = table if (table, key) in example.words else table.replace("defaults", "instances.prod", 1)
        words = example.words.get((table, key)) or example.words.get((where, key), "")
        file_key = (table, f"{key}_file")
        sample = example.samples.get((table, key))
        if sample and file_key not in example.words:
            words = f"{words.rstrip('.')}{'; ' if words else ''}for example {_code(sample)}"
        # Where a file can give the value, the example has the default as a comment.
        default = _default(field, example.values.get((table, key), sample))
        yield f"| `{key}` | {_type(hints[key], field.metadata)} | {default} | {_cell(words)} |"
        if file_key in example.words:
            yield f"| `{key}_file` | file | - | {_cell(example.words[file_key])} |"


def _type(hint: Any, metadata: list[Any]) -> str:
    for name, words in _ALIASES.items():
        if hint == getattr(values, name):
            return words
    origin, arguments = get_origin(hint), [one for one in get_args(hint) if one is not NoneType]
    if origin is Literal:
        return ", ".join(f"`{json.dumps(one)}`" for one in arguments)
    if origin in {Union, UnionType}:
        return " or ".join(dict.fromkeys(_type(one, metadata) for one in arguments))
    if hasattr(hint, "__metadata__"):
        return _type(arguments[0], [*metadata, *hint.__metadata__])
    if hint is int:
        return _number(metadata)
    if origin is tuple:
        return "list"
    if origin is dict:
        return "table"
    plain = {bool: "true or false", str: "text", SecretStr: "secret text", Path: "file"}
    return plain.get(hint, "text")


def _number(metadata: list[Any]) -> str:
    limits = [one for rule in metadata for one in getattr(rule, "metadata", [rule])]
    low = next((one.ge for one in limits if hasattr(one, "ge")), None)
    high = next((one.le for one in limits if hasattr(one, "le")), None)
    return "number" if low is None or high is None else f"{low} to {high}"


def _default(field: Any, written: str | None) -> str:
    if field.is_required():
        return "required"
    return "-" if field.get_default(call_default_factory=True) is None or written is None else _code(written)


def _code(text: str) -> str:
    return f"`{text}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;") or "-"


def commands() -> str:
    """One section for each command: what it does, how it is called, its options."""
    parts = []
    for name, command in sorted(_all_commands(get_command(app), "palette-sync")):
        pieces = ["[OPTIONS]", *(_placed(one) for one in command.params if one.param_type_name == "argument")]
        words = [re.sub(r"\s*\n\s*", " ", one).strip() for one in (command.help or "").split("\n\n")]
        rows = [_row(one) for one in command.params if not one.hidden and one.name != "help"]
        parts += [f"## {name.removeprefix('palette-sync ')}", "", *_apart(words)]
        parts += ["```", " ".join([name, *pieces]), "```", ""]
        parts += ["| option | meaning |", "|---|---|", *rows, ""] if rows else []
    return "\n".join(parts).rstrip()


def _all_commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    for sub, one in command.commands.items():
        if hasattr(one, "commands"):
            yield from _all_commands(one, f"{name} {sub}")
        elif not one.hidden:
            yield f"{name} {sub}", one


def _apart(paragraphs: list[str]) -> Iterator[str]:
    for paragraph in paragraphs:
        yield from (paragraph, "")


def _placed(argument: Any) -> str:
    """An argument in the line that calls a command."""
    name = argument.metavar or argument.name.upper()
    return f"{name if argument.required else f'[{name}]'}{'...' if argument.nargs == -1 else ''}"


def _row(parameter: Any) -> str:
    value = (
        "" if getattr(parameter, "is_flag", False) else f" {parameter.metavar or _VALUES.get(_kind(parameter), 'TEXT')}"
    )
    if parameter.param_type_name == "argument":
        return f"| `{parameter.metavar or parameter.name.upper()}` | {_cell(parameter.help or '')} |"
    names = sorted(parameter.opts, key=len, reverse=True)
    variable = f" Environment: `{parameter.envvar}`." if parameter.envvar else ""
    shown = parameter.default not in (None, False, True, "", ()) and not variable
    default = f" Default: `{parameter.default}`." if shown else ""
    needed = " Required." if parameter.required else ""
    return f"| `{', '.join(names)}{value}` | {_cell(parameter.help or '')}{needed}{default}{variable} |"


def _kind(parameter: Any) -> Any:
    return parameter.type_descriptor.annotation


_VALUES = {int: "NUMBER", float: "NUMBER", Path: "FILE", Path | None: "FILE"}

"""Backstage's configuration as its loader merges it, with every reference kept as a reference. Pure.

Facts about the format are those of Backstage's own loader (`packages/config-loader`): of several files the later ones
win, objects are merged key by key, lists and single values replace what was there, and `null` counts as absent. A text
may contain `${VAR}` or `${VAR:-default}`; `$${VAR}` is the text `${VAR}`. An object with one of the keys `$env`,
`$file` and `$include` has no other key.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable

_WORDS = {"$env": "env", "$file": "file", "$include": "include"}
_VARIABLE = re.compile(r"\$?\$\{([^{}]*)\}")


class BackstageConfigError(Exception):
    """The files cannot be used. The text names the place and quotes no value."""


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable of the environment inside of a text, with the default that the text gives, if any."""

    name: str
    default: str | None = None


@dataclass(frozen=True, slots=True)
class Reference:
    """A value that stands elsewhere.

    `env`: `parts` are the texts and variables that make the value. `file` and `include`: `target` is what the file
    names, `folder` is the directory of the file that names it, from which a relative path is read.
    """

    kind: Literal["env", "file", "include"]
    parts: tuple[str | Variable, ...] = ()
    target: str = ""
    folder: str = ""


def merge(documents: Iterable[tuple[str, object]]) -> dict[str, Any]:
    """Merge parsed files, later ones over earlier ones. Each comes with its directory. Raises BackstageConfigError."""
    merged: Any = {}
    for folder, document in documents:
        read = _read(document, folder, "")
        if read is not None and not isinstance(read, dict):
            raise BackstageConfigError("is not an object with keys such as `spectrocloud`")
        merged = _over(merged, read or {})
    return dict(merged)


def _over(below: Any, above: Any) -> Any:
    if not isinstance(below, dict) or not isinstance(above, dict):
        return above
    return {**below, **{key: _over(below.get(key), value) for key, value in above.items()}}


def _read(node: object, folder: str, at: str) -> Any:
    """Replace what refers to something by a `Reference`; leave out what is null."""
    if isinstance(node, str):
        return _text(node)
    if isinstance(node, list):
        read = (_read(one, folder, f"{at}[{number}]") for number, one in enumerate(node))
        return [one for one in read if one is not None]
    if not isinstance(node, dict):
        return node
    words = [key for key in node if key in _WORDS]
    if words:
        if len(node) > 1 or not isinstance(node[words[0]], str):
            raise BackstageConfigError(f"{at or 'the file'}: {words[0]} must stand alone, with a text")
        return _reference(words[0], node[words[0]], folder)
    read_keys = {str(key): _read(one, folder, f"{at}.{key}".lstrip(".")) for key, one in node.items()}
    return {key: one for key, one in read_keys.items() if one is not None}


def _reference(word: str, target: str, folder: str) -> Reference:
    if word == "$env":
        return Reference("env", parts=(Variable(target.strip()),))
    return Reference("file" if word == "$file" else "include", target=target.strip(), folder=folder)


def _text(text: str) -> str | Reference:
    """A text with its escapes undone; a Reference where it names variables."""
    parts: list[str | Variable] = []
    literal, end = "", 0
    for found in _VARIABLE.finditer(text):
        literal += text[end : found.start()]
        end = found.end()
        if found[0].startswith("$$"):
            literal += found[0][1:]
            continue
        name, colon, default = found[1].strip().partition(":-")
        parts += [literal, Variable(name, default if colon else None)]
        literal = ""
    literal += text[end:]
    if not parts:
        return literal
    return Reference("env", parts=tuple(part for part in (*parts, literal) if part))

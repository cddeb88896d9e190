"""Where each value of the configuration comes from: a line of the file, a secret, a variable, or its default."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from palette_sync.config.layers import FILE, PREFIX, has

if TYPE_CHECKING:
    from palette_sync.config.layers import Layers

Keys = tuple[str, ...]
_HEADER = re.compile(r"\s*\[\s*([^\[\]]+?)\s*\]\s*(#.*)?$")
_ENTRY = re.compile(r"""\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*=""")
_PART = re.compile(r"""[A-Za-z0-9_-]+|"[^"]*"|'[^']*'""")


@dataclass(frozen=True, slots=True)
class Origin:
    """`where`: the path of the file, or the name of the secret or of the variable; "" for a default.

    `line`: in the file, counted from 1. `key`: the key of `[defaults]` that gave the value; "" where it is not
    inherited. `secret_file`: the file that `<key>_file` names.
    """

    kind: Literal["file", "secret", "variable", "default"]
    where: str = ""
    line: int | None = None
    key: str = ""
    secret_file: str = ""

    def __str__(self) -> str:
        line = f":{self.line}" if self.line else ""
        text = {"file": f"{self.where}{line}", "default": "default"}.get(self.kind, f"{self.kind} {self.where}")
        return ", ".join(filter(None, (text, self.key, f"read from {self.secret_file}" if self.secret_file else "")))


class Origins:
    """Answers for one configuration that was loaded without a problem."""

    def __init__(self, layers: Layers, text: str) -> None:
        """`text`: that of the file."""
        self._layers = layers
        self._lines = lines_of(text)

    def of(self, keys: Keys) -> Origin:
        """The origin of the value at `keys`, for example `("redis", "url")`."""
        candidates = [keys]
        if keys[:1] == ("instances",):
            candidates.append(("defaults", *keys[2:]))
        for candidate in candidates:
            for kind, document in (
                ("variable", self._layers.environment),
                ("secret", self._layers.secrets),
                ("file", self._layers.file),
            ):
                for twin in (candidate, (*candidate[:-1], candidate[-1] + FILE)):
                    if has(document, list(twin)):
                        return self._found(kind, twin, keys)
        return Origin("default")

    def _found(self, kind: str, twin: Keys, keys: Keys) -> Origin:
        key = ".".join(twin) if twin[:-1] != keys[:-1] else ""
        document = {"variable": self._layers.environment, "secret": self._layers.secrets}.get(kind, self._layers.file)
        value: object = document
        for part in twin:
            value = value[part] if isinstance(value, dict) else None
        secret_file = str(value) if twin[-1] != keys[-1] else ""
        if kind == "variable":
            return Origin("variable", PREFIX + "__".join(twin).upper(), None, key, secret_file)
        if kind == "secret":
            return Origin("secret", "__".join(twin), None, key, secret_file)
        return Origin("file", str(self._layers.path), self._line(twin), key, secret_file)

    def _line(self, keys: Keys) -> int | None:
        """The line of the value, or of the inline table that holds it."""
        for length in range(len(keys), 0, -1):
            if keys[:length] in self._lines:
                return self._lines[keys[:length]]
        return None


def lines_of(text: str) -> dict[Keys, int]:
    """Map the keys of each entry and table of a valid TOML text to its line, counted from 1.

    Arrays of tables are left out.
    """
    found: dict[Keys, int] = {}
    table: Keys | None = ()
    pending = ""  # the lines of a statement that has not ended yet
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(keepends=True), start=1):
        begins = not pending
        pending = "" if _is_whole(pending + line) else pending + line
        if not begins:
            continue
        if header := _HEADER.match(line):
            table = _parts(header.group(1))
            found.setdefault(table, number)
        elif line.lstrip().startswith("[["):
            table = None
        elif (entry := _ENTRY.match(line)) and table is not None:
            found[(*table, *_parts(entry.group(1)))] = number
    return found


def _is_whole(statement: str) -> bool:
    """Whether every string and array that these lines open has ended."""
    try:
        tomllib.loads(statement)
    except tomllib.TOMLDecodeError:
        return False
    return True


def _parts(text: str) -> Keys:
    return tuple(part.strip("\"'") for part in _PART.findall(text))

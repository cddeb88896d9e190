"""Wraps text so that what people copy stays whole: commands in backticks, lines of TOML, URLs, paths and names."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rich.cells import cell_len

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.text import Text

# A line of TOML up to its last bracket; what holds backticks; a word.
_UNIT = re.compile(r"\b[a-z_]+ = \[.*\]\S*|\S*`[^`\n]*`\S*|\S+")


def wrapped(text: Text, width: int, *, hang: int | None = None) -> Iterator[Text]:
    """Yield lines of at most `width` columns, and longer ones where a unit is longer.

    Further lines of a paragraph are indented by `hang`; without it a little more than its first one, if that is
    indented.
    """
    for paragraph in text.split("\n", allow_blank=True):
        yield from _wrapped(paragraph, width, hang)


def _wrapped(paragraph: Text, width: int, hang: int | None) -> Iterator[Text]:
    plain = paragraph.plain
    if cell_len(plain) <= width:
        yield paragraph
        return
    leading = len(plain) - len(plain.lstrip())
    indent = " " * (hang if hang is not None else leading + 2 if leading else 0)
    start = end = 0
    for unit in _UNIT.finditer(plain):
        room = width - (len(indent) if start else 0)
        if end > start and cell_len(plain[start : unit.end()]) > room and plain[start:end].strip():
            yield _line(paragraph[start:end], indent if start else "")
            start = unit.start()
        end = unit.end()
    yield _line(paragraph[start:], indent if start else "")


def _line(line: Text, indent: str) -> Text:
    line.rstrip()
    if indent:
        line.pad_left(len(indent))
    return line

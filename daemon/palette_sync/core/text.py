"""Foreign text made fit for logs, records and terminals. Pure.

Names and messages come from Palette, API servers and whoever answers in their place. A control character could
move a cursor or begin another line, a bidirectional one could turn a name around. Both leave before such text is stored
or shown.
"""

from __future__ import annotations

_CUT = " ... "
_READ_AT_MOST = 64 * 1024  # characters of a text that are looked at


def visible(text: str) -> str:
    """Replace every character that is not printable by a space: controls, bidirectional marks, line separators."""
    return text if text.isprintable() else "".join(one if one.isprintable() else " " for one in text)


def label(text: str, longest: int) -> str:
    """Return a short foreign value, such as a name or a state: printable, at most `longest` characters, end cut."""
    return visible(text[:longest])


def one_line(text: str, longest: int) -> str:
    """Return the text on one line of at most `longest` characters, with white space folded.

    Of a longer text the middle is cut: a message often begins with what was asked and ends with the cause.
    """
    line = " ".join(visible(text[:_READ_AT_MOST]).split())
    if len(line) <= longest:
        return line
    kept = longest - len(_CUT)
    end = kept // 2
    return line[: kept - end].rstrip() + _CUT + line[len(line) - end :].lstrip()


def counted(number: int, what: str) -> str:
    """Return the number with its noun: `1 cluster`, `2 clusters`."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"

"""What people see: foreign text is text, never markup, and moves no cursor."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from rich.table import Table
from rich.text import Text

from palette_sync.cli import status
from palette_sync.cli.console import complain, err, out, plain, span

if TYPE_CHECKING:
    from typing import Any


def test_square_brackets_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    out().print("see [/il] and [bold]this[/bold] :smile:")
    complain(["see [/il]"], title="[red]wrong")
    table = Table("what")
    table.add_row("[/il]")
    out().print(table)

    shown = capsys.readouterr()
    assert shown.out.count("[/il]") == 2
    assert "[bold]this[/bold] :smile:" in shown.out
    assert "[/il]" in shown.err


def test_what_palette_says_breaks_no_status(capsys: pytest.CaptureFixture[str]) -> None:
    instance: dict[str, Any] = {"state": "leading", "access": {}, "error": "HTTP 403: see [/il]\x1b]0;pwn\x07\nnext"}
    document = {
        "version": "1",
        "pid": 1,
        "state": "ready",
        "started_at": "",
        "config": {"loaded_at": "", "rejected": ["[/x]"]},
        "orphaned": ["[/y]"],
        "instances": {"alpha": instance},
    }

    status._print(document)

    shown = capsys.readouterr().out
    assert "see [/il]" in shown
    assert "\x1b]0" not in shown
    assert "[/x]" in shown
    assert "[/y]" in shown


def test_nothing_that_a_table_or_a_line_holds_moves_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    evil = "\x1b]0;title\x07\x9b31m\u202e"
    table = Table(evil)
    table.add_row(f"first{evil}\nsecond")
    table.add_row(Text(evil, style="red"))

    for console in (out(), err()):
        console.print(table)
        console.print(Text(f"note: {evil}"))
        console.print(evil)

    shown = capsys.readouterr()
    for stream in (shown.out, shown.err):
        assert all(line.isprintable() for line in stream.split("\n"))
        assert "first]0;title31m" in stream
        assert "note: ]0;title31m\n" in stream


def test_plain_text_is_one_line() -> None:
    assert plain("a\x1b[2Jb\nc\u202ed") == "a [2Jb c d"


@pytest.mark.parametrize(
    ("seconds", "told"), [(0, "0s"), (59, "59s"), (60, "1m00s"), (3_661, "1h01m"), (90_061, "1d01h")]
)
def test_a_span_has_its_two_largest_units(seconds: int, told: str) -> None:
    assert span(seconds) == told

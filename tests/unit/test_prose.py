"""What people copy is not broken over lines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text

from palette_sync.cli.prose import wrapped


def lines(text: str, width: int) -> list[str]:
    return [line.plain for line in wrapped(Text(text), width)]


@pytest.mark.parametrize(
    ("text", "width", "found"),
    [
        pytest.param("one two three", 80, ["one two three"], id="short"),
        pytest.param("one two three", 8, ["one two", "three"], id="words"),
        pytest.param("  run one two three", 11, ["  run one", "    two", "    three"], id="indented"),
        pytest.param("Run `a b c d e`, now", 8, ["Run", "`a b c d e`,", "now"], id="a command"),
        pytest.param(
            "write: issuers = [{ a = [1, 2] }] now", 10, ["write:", "issuers = [{ a = [1, 2] }]", "now"], id="TOML"
        ),
        pytest.param(
            "at https://palette.example/a/b now", 10, ["at", "https://palette.example/a/b", "now"], id="a URL"
        ),
        pytest.param("a\n\nb c d", 3, ["a", "", "b c", "d"], id="paragraphs"),
        pytest.param("      " + "x" * 9, 8, ["      " + "x" * 9], id="one long word"),
        pytest.param("中文字 中文字", 8, ["中文字", "中文字"], id="wide characters"),
    ],
)
def test_a_text_is_wrapped_between_units(text: str, width: int, found: list[str]) -> None:
    assert lines(text, width) == found


def test_further_lines_hang_where_they_are_told_to() -> None:
    assert [one.plain for one in wrapped(Text("ok  a b c"), 6, hang=4)] == ["ok  a", "    b", "    c"]


@given(st.text(alphabet="ab `\n=[]", max_size=60), st.integers(2, 20))
def test_nothing_but_blanks_is_added_or_lost(text: str, width: int) -> None:
    assert "".join("".join(lines(text, width)).split()) == "".join(text.split())


def test_styles_stay() -> None:
    line = list(wrapped(Text.assemble("plain ", ("red", "red"), " plain"), 7))[1]

    assert [(one.style, line.plain[one.start : one.end]) for one in line.spans] == [("red", "red")]

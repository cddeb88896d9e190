"""Foreign text is made fit for a line: nothing moves a cursor, and a cut keeps both ends."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from palette_sync.core.text import counted, one_line, visible


def test_a_noun_agrees_with_its_number() -> None:
    assert (counted(0, "cluster"), counted(1, "cluster"), counted(2, "cluster")) == (
        "0 clusters",
        "1 cluster",
        "2 clusters",
    )


def test_white_space_is_folded_and_controls_leave() -> None:
    assert one_line("  a \t b\x00c\u2028d ", 20) == "a b c d"
    assert visible("a\x1b[2Jb\nc\u202ed\u2066e") == "a [2Jb c d e"


def test_a_long_text_keeps_its_beginning_and_its_cause() -> None:
    text = (
        "clusterroles is forbidden: user " + "x" * 400 + " is attempting to grant RBAC permissions not currently held"
    )

    cut = one_line(text, 120)

    assert len(cut) <= 120
    assert cut.startswith("clusterroles is forbidden")
    assert cut.endswith("grant RBAC permissions not currently held")
    assert " ... " in cut


@given(st.text(), st.integers(20, 200))
def test_the_result_is_printable_and_never_longer(text: str, longest: int) -> None:
    line = one_line(text, longest)

    assert line.isprintable()
    assert len(line) <= longest

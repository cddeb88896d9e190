"""The console shows foreign text as text: never as markup, and without control characters."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table
from rich.text import Text

from palette_sync.cli import status
from palette_sync.cli.called import called
from palette_sync.cli.console import err, out, print_json, print_problems, table_of
from palette_sync.cli.pass_report import EFFECTS, changes_table
from palette_sync.cli.styles import ACCESS_STATES, RUNNER_STATES
from palette_sync.core.durations import short_duration
from palette_sync.core.model import AccessState
from palette_sync.core.reasons import Reason
from palette_sync.core.text import visible
from palette_sync.reconcile.report import Change, Effect
from palette_sync.runner.status import RunnerState


@pytest.fixture(autouse=True)
def _no_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of the tests may set a width, as `watch` does."""
    monkeypatch.delenv("COLUMNS", raising=False)


def test_square_brackets_are_not_read_as_markup(capsys: pytest.CaptureFixture[str]) -> None:
    out().print("see [/il] and [bold]this[/bold] :smile:")
    print_problems(["see [/il]"], title="[red]wrong")
    table = Table("what")
    table.add_row("[/il]")
    out().print(table)

    shown = capsys.readouterr()
    assert shown.out.count("[/il]") == 2
    assert "[bold]this[/bold] :smile:" in shown.out
    assert "[/il]" in shown.err


def document(**changes: Any) -> dict[str, Any]:
    """A status document with one instance and the given problems."""
    return {
        "version": "1",
        "pid": 1,
        "state": "running",
        "started_at": "",
        "config": {"loaded_at": "", "rejected": []},
        "orphaned": [],
        "problems": [],
        "instances": {"alpha": {"state": "leading", "access": {"ready": 3}}},
    } | changes


def problem(**changes: Any) -> dict[str, Any]:
    return {
        "severity": "problem",
        "reason": "ListingFailed",
        "instance": "alpha",
        "text": "the last pass failed: HTTP 403",
        "by_itself": "It lists again.",
    } | changes


def shown_status(capsys: pytest.CaptureFixture[str], **changes: Any) -> str:
    status.print_status(document(**changes), console=out())
    return capsys.readouterr().out


def test_a_message_from_palette_does_not_break_the_status(capsys: pytest.CaptureFixture[str]) -> None:
    shown = shown_status(capsys, problems=[problem(text="HTTP 403: see [/il]\x1b]0;pwn\x07\nnext")])

    assert "see [/il]" in shown
    assert "\x1b]0" not in shown


@pytest.mark.parametrize(
    ("problems", "line"),
    [
        pytest.param([], "palette-sync 1: all is well", id="nothing"),
        pytest.param([problem()], "palette-sync 1: 1 problem", id="one"),
        pytest.param(
            [problem(), problem(), problem(severity="notice")], "palette-sync 1: 2 problems, 1 notice", id="three"
        ),
        pytest.param([problem(severity="notice")], "palette-sync 1: all is well, 1 notice", id="a notice is not wrong"),
    ],
)
def test_the_first_line_of_the_status_counts_what_is_wrong(
    capsys: pytest.CaptureFixture[str], problems: list[dict[str, Any]], line: str
) -> None:
    assert shown_status(capsys, problems=problems).splitlines()[0] == line


def test_a_problem_says_since_when_what_happens_next_and_what_to_run(capsys: pytest.CaptureFixture[str]) -> None:
    shown = shown_status(
        capsys,
        problems=[
            problem(
                since="2026-03-01T12:00:00Z",
                next_at="2126-03-01T12:00:00Z",
                remedy="Look at Palette.",
                command="palette-sync check",
            )
        ],
    )

    assert "alpha: ListingFailed since 2026-03-01 12:00:00 UTC (" in shown
    assert "by itself: It lists again. Next at 2126-03-01 12:00:00 UTC (in " in shown
    assert "what to do: Look at Palette." in shown
    assert "run: palette-sync check\n" in shown


def test_a_command_to_run_is_not_broken_on_a_narrow_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    command = "palette-sync clusters --instance alpha --reason KubeconfigForbidden"

    assert f"run: {command}\n" in shown_status(capsys, problems=[problem(command=command)])


HEADINGS = ("name", "project", "version", "reason")
ROWS = (("a-name-of-a-cluster-with-40-characters-x", "payments", "v1.34.1", "Unreachable: it did not answer"),)


def lines(width: int) -> list[str]:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(table_of(HEADINGS, ROWS, console=console, optional=("version", "project")))
    return [line.rstrip() for line in capture.get().splitlines()]


def test_a_line_written_to_a_pipe_is_not_wrapped(capsys: pytest.CaptureFixture[str]) -> None:
    name, reason = "n" * 100, "r" * 300

    out().print(table_of(("name", "reason"), ((name, reason),), console=out()))

    assert f"{name}  {reason}" in capsys.readouterr().out


def test_a_terminal_that_is_wide_enough_shows_every_column() -> None:
    assert lines(100) == [
        f"{'name':40}  project   version  reason",
        f"{ROWS[0][0]}  payments  v1.34.1  Unreachable: it did not answer",
    ]


def test_a_narrow_terminal_shows_whole_names_and_drops_less_important_columns() -> None:
    assert lines(80) == [
        f"{'name':40}  project   reason",
        f"{ROWS[0][0]}  payments  Unreachable: it did not",
        " " * 52 + "answer",
    ]
    assert lines(62)[0] == f"{'name':40}  reason"
    assert all(line.startswith((ROWS[0][0], " ", "name")) for line in lines(62))


def test_a_terminal_that_is_too_narrow_cuts_nothing_off() -> None:
    shown = "".join(line[: lines(30)[0].index("reason")].strip() for line in lines(30)[1:])

    assert shown == ROWS[0][0]


def test_nothing_in_a_table_or_a_line_moves_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
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


def test_visible_text_is_one_line() -> None:
    assert visible("a\x1b[2Jb\nc\u202ed") == "a [2Jb c d"


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0s"), (59, "59s"), (60, "1m00s"), (3_661, "1h01m"), (90_061, "1d01h")]
)
def test_a_span_has_its_two_largest_units(seconds: int, shown: str) -> None:
    assert short_duration(seconds) == shown


def test_the_demo_names_the_command_as_it_was_called(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "argv", [".venv/bin/palette-sync", "demo"])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert called() == ".venv/bin/palette-sync"

    (tmp_path / "palette-sync").touch(0o755)
    assert called() == "palette-sync"


def test_the_table_of_changes_keeps_reasons_whole_on_a_narrow_terminal() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    effects = (Effect.FAILED, Effect.PUBLISHED)
    refused = Change(
        "c1", "alpha-payments-kubelogin-05", "payments", effects, Reason.ADMIN_CREDENTIAL_REFUSED, "x" * 60
    )

    console.print(changes_table([refused], console=console))

    assert "AdminCredentialRefused:" in console.export_text()


def test_every_effect_and_state_has_a_style() -> None:
    assert EFFECTS.keys() == set(Effect)
    assert ACCESS_STATES.keys() == set(AccessState)
    assert RUNNER_STATES.keys() == {state.value for state in RunnerState}


def test_json_for_programs_is_plain_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"name": "\x1b[2J\u202eevil\u2028 ü\x7f\x9b"})

    shown = capsys.readouterr().out
    assert shown.isascii()
    assert all(one.isprintable() or one == "\n" for one in shown)
    assert json.loads(shown) == {"name": "\x1b[2J\u202eevil\u2028 ü\x7f\x9b"}

"""The documentation names every event, metric and reason, and no other."""

from __future__ import annotations

import ast
import importlib.util
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from typer.main import get_command

import palette_sync
from palette_sync.cli.exits import Exit
from palette_sync.cli.main import app
from palette_sync.core.reasons import Reason, Shown
from palette_sync.telemetry.metrics import Metrics

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "operations.md").read_text()
PACKAGE = Path(palette_sync.__file__).parent
LOGGERS = {"log", "self._log"}
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}


def modules(containing: str) -> Iterator[tuple[Path, list[ast.AST]]]:
    """Every module of the package in whose text a pattern is found, and all of its syntax nodes."""
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        if re.search(containing, text):
            yield path, list(ast.walk(ast.parse(text)))


def logged() -> set[str]:
    """The event of every call of a logger in the package."""
    found = set()
    for path, walked in modules(rf"log\.({'|'.join(LEVELS)})\("):
        for node in walked:
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
                continue
            target, first = node.func, node.args[0]
            if target.attr in LEVELS and ast.unparse(target.value) in LOGGERS:
                assert isinstance(first, ast.Constant), f"{path}:{node.lineno}"
                found.add(str(first.value))
    return found


def test_every_event_is_documented_and_no_other() -> None:
    section = PAGE.partition("## Events in the log")[2]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    documented = {name for row in rows for name in re.findall(r"`([a-z_]+)`", row)}
    assert logged() == documented


def test_every_metric_is_documented_and_no_other() -> None:
    metrics = Metrics()
    described = {
        one._name + ("_total" if one._type == "counter" else ""): set(one._labelnames) - {"palette_instance"}
        for one in (*metrics._gauges, *metrics._counters, metrics._duration, *metrics.of_process)
    }
    found = re.findall(r"`(palette_sync_[a-z_]+)(?:\{([a-z,]+)\})?`", PAGE)
    assert described == {name: set(filter(None, labels.split(","))) for name, labels in found}


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATED = ["README.md", "docs/commands.md", "docs/configuration.md", "docs/reasons.md", "docs/runbook.md"]


@pytest.mark.parametrize("page", GENERATED)
def test_generated_parts_are_up_to_date(page: str) -> None:
    text = (ROOT / page).read_text()

    assert script("generate").generated(page, text) == text, "run `make docs`"


def test_every_reason_of_a_record_is_in_the_readme() -> None:
    rows = re.findall(r"^\| `([A-Za-z]+)` \|", (ROOT / "README.md").read_text(), re.MULTILINE)

    assert set(rows) >= {reason.value for reason in Reason if Shown.RECORD in reason.shown}


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_is_explained(reason: Reason) -> None:
    assert re.fullmatch(r"[A-Z][A-Za-z]{2,39}", reason.value)
    for text in (reason.meaning, reason.by_itself):
        assert text.endswith("."), text
    assert not reason.remedy or reason.remedy.endswith(".")


def test_a_reason_of_another_version_is_unknown_and_readable() -> None:
    assert Reason.read("Verified") is Reason.VERIFIED
    assert Reason.read("NoSuchReason") is Reason.UNKNOWN_REASON


# Words of Kubernetes, Palette or Python that are spelled like a reason but mean something else in these modules.
FOREIGN = {
    "kube/errors.py": {"NamespaceTerminating"},
    "palette/errors.py": {"TooManyRequests"},
    "palette/rows.py": {"Paused"},
    "core/model.py": {"Deleting", "Deleted"},
}


def test_no_reason_is_written_as_a_bare_string() -> None:
    """A decision compares members of `Reason`; a string that spells one would escape mypy."""
    spelled = {reason.value for reason in Reason}
    found: dict[str, set[str]] = {}
    for path, walked in modules(rf"['\"]({'|'.join(spelled)})['\"]"):
        name = path.relative_to(PACKAGE).as_posix()
        if name.startswith("simulator/") or name == "core/reasons.py":
            continue
        listed = {id(one) for node in walked if isinstance(node, ast.List) for one in ast.walk(node)}  # __all__
        words = {
            node.value
            for node in walked
            if isinstance(node, ast.Constant) and node.value in spelled and id(node) not in listed
        }
        if words - FOREIGN.get(name, set()):
            found[name] = words
    assert found == {}, "compare members of Reason, or list a word of Palette or Kubernetes in FOREIGN"


def test_the_drawing_is_up_to_date() -> None:
    assert (ROOT / "docs" / "architecture.svg").read_text() == script("draw_architecture").drawing(), "run `make docs`"


def test_the_architecture_page_names_every_layer_and_library() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    layers = project["tool"]["importlinter"]["contracts"][0]["layers"]
    for layer in re.findall(r"palette_sync\.(\w+)", " ".join(layers)):
        assert re.search(rf"^\| .*`{layer}`", page, re.MULTILINE), layer
    libraries = page.partition("## Libraries")[2].partition("## Decided")[0].lower()
    extras = project["project"]["optional-dependencies"].values()
    for requirement in [*project["project"]["dependencies"], *(one for extra in extras for one in extra)]:
        assert re.split(r"[<>=\[]", requirement)[0].lower() in libraries, requirement


def test_every_invariant_that_a_comment_cites_exists() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text().partition("## Invariants")[2].partition("## Words")[0]
    numbered = set(re.findall(r"^(\d+)\. ", page, re.MULTILINE))
    cited = {
        number
        for path in PACKAGE.rglob("*.py")
        for group in re.findall(r"invariants? (\d+(?:(?:, | and )\d+)*)", path.read_text())
        for number in re.findall(r"\d+", group)
    }
    assert cited
    assert cited <= numbered


def test_pre_commit_runs_what_make_lint_runs() -> None:
    recipe = (ROOT / "Makefile").read_text().partition("\nlint: ")[2].partition("\n\n")[0].splitlines()[1:]
    variables = {"@": "", "$(BIN)": ".venv/bin", "$(MAKE)": "make"}
    commands = [line.strip() for line in recipe]
    for variable, value in variables.items():
        commands = [command.replace(variable, value) for command in commands]
    (repository,) = yaml.load((ROOT / ".pre-commit-config.yaml").read_text(), yaml.CSafeLoader)["repos"]

    assert commands
    assert [hook["entry"] for hook in repository["hooks"]] == commands
    assert repository["repo"] == "local", "a hook from another repository could differ from what make lint runs"


def test_every_reason_is_given_somewhere() -> None:
    package = Path(palette_sync.__file__).parent
    sources = " ".join(path.read_text() for path in package.rglob("*.py") if path.name != "reasons.py")
    by_value = {Reason.DELETING, Reason.DELETED, Reason.UNKNOWN_REASON}  # by `Reason.read`

    unused = {reason for reason in Reason if f"Reason.{reason.name}" not in sources} - by_value
    assert unused == set()


COMMANDS = set(get_command(app).commands)  # type: ignore[attr-defined]


def test_every_command_is_in_the_readme() -> None:
    section = (ROOT / "README.md").read_text().partition("### Commands")[2].partition("\n### ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]

    assert {name for row in rows for name in re.findall(r"`([a-z-]+)`", row)} == COMMANDS


def test_the_exit_codes_of_every_command_are_documented() -> None:
    section = PAGE.partition("### Exit codes")[2].partition("\n#")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]

    assert {name for row in rows for name in re.findall(r"`([a-z-]+)(?: --[a-z-]+)?`", row)} == COMMANDS
    for code in Exit:
        assert code in {Exit.OK, Exit.FAILED} or f"**{code.value}**" in section


@pytest.mark.parametrize("reason", [one for one in Reason if one.shown & (Shown.RECORD | Shown.STATUS)])
def test_every_reason_that_people_see_has_a_section_in_the_runbook(reason: Reason) -> None:
    assert f"\n### {reason}\n" in (ROOT / "docs" / "runbook.md").read_text()

"""The contracts of import-linter cover every package and every library."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

import palette_sync

PACKAGE = Path(palette_sync.__file__).parent
ROOT = Path(__file__).parents[2]
REQUIREMENTS = ROOT / "requirements"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CORE = {"orjson", "cronsim"}  # the libraries that the core may use


def contract(start: str) -> dict[str, Any]:
    (found,) = [one for one in PROJECT["tool"]["importlinter"]["contracts"] if one["name"].startswith(start)]
    return dict(found)


def libraries() -> set[str]:
    """The import names of everything that the project depends on, extras included."""
    return modules([*PROJECT["project"]["dependencies"], *extras()])


def extras() -> list[str]:
    return [one for extra in PROJECT["project"]["optional-dependencies"].values() for one in extra]


def modules(requirements: list[str]) -> set[str]:
    required = {re.split(r"[<>=\[]", one)[0].lower().replace("_", "-") for one in requirements}
    return {
        module
        for module, distributions in packages_distributions().items()
        if not module.startswith("_") and required & {one.lower().replace("_", "-") for one in distributions}
    }


def imported(package: Path) -> set[str]:
    """The first word of every absolute import below a package."""
    found = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            found |= imports_of(node)
    return found


def imports_of(node: ast.AST) -> set[str]:
    names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
    names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
    return {name.partition(".")[0] for name in names}


def test_the_core_uses_only_the_libraries_that_its_contract_names() -> None:
    core = contract("The core is pure")

    assert imported(PACKAGE / "core") - {"palette_sync"} - sys.stdlib_module_names == CORE
    assert libraries() - CORE <= set(core["forbidden_modules"])
    assert not CORE & set(core["forbidden_modules"])
    assert all(name in core["name"] for name in CORE)


def test_every_package_has_a_layer() -> None:
    layers = set(re.findall(r"palette_sync\.(\w+)", " ".join(contract("Imports point down only")["layers"])))
    packages = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}

    assert packages - layers == {"__init__"}


def test_no_package_is_left_out_of_the_contract_against_circles() -> None:
    circles = contract("No package imports in a circle")

    assert (circles["type"], circles["ancestors"]) == ("acyclic_siblings", ["palette_sync"])
    assert circles.keys() == {"name", "type", "ancestors"}


def test_what_an_extra_brings_is_imported_only_inside_functions() -> None:
    optional = modules(extras())
    assert optional

    imported_at_start = {
        f"{path.relative_to(PACKAGE)}: {module}"
        for path in PACKAGE.rglob("*.py")
        for node in ast.parse(path.read_text()).body
        for module in imports_of(node)
        if module in optional
    }
    assert imported_at_start == set()
    assert optional & imported(PACKAGE), "the extra is used"


@pytest.mark.parametrize("name", PROJECT["project"]["optional-dependencies"])
def test_the_lock_files_hold_an_extra_apart(name: str) -> None:
    required = PROJECT["project"]["optional-dependencies"][name]
    listed = (REQUIREMENTS / f"{name}.in").read_text().splitlines()

    assert [line for line in listed if line[0] not in "#-"] == required
    assert modules(required)
    assert not modules(required) & modules((REQUIREMENTS / "runtime.txt").read_text().split())

"""`make bench` installs what it measures, and says what it does not measure."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from bench import adapter
from release.places import ROOT

LOCK = "deploy/backstage/package-lock.json"
NEEDED = ("make", "bash", "sh", "python3")


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder of programs without Node."""
    for name in NEEDED:
        found = shutil.which(name)
        assert found, name
        (tmp_path / name).symlink_to(found)
    return tmp_path


def planned(programs: Path) -> str:
    """What `make bench` would do after a change of the adapter's lock file."""
    return subprocess.run(
        ["make", "-n", "-W", LOCK, "-o", ".venv/.created", "bench"],
        cwd=ROOT,
        env={"PATH": str(programs)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout


def test_the_packages_of_the_adapter_are_installed_first(programs: Path) -> None:
    node = programs / "node"
    node.write_text("#!/bin/sh\nexit 0\n")
    node.chmod(0o755)

    plan = planned(programs)

    assert "installing Backstage for the adapter's tests" in plan
    assert plan.index("npm ci --ignore-scripts") < plan.index("-m bench")


def test_without_node_it_says_what_is_not_measured_and_measures_the_rest(programs: Path) -> None:
    plan = planned(programs)

    assert "not measured: the Backstage adapter, because node is missing" in plan
    assert "npm" not in plan
    assert "-m bench" in plan


def test_the_row_of_the_adapter_says_that_node_is_missing(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(programs))

    assert adapter.left_out() == "node is missing"


def test_the_row_of_the_adapter_says_how_its_packages_are_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    npm = tmp_path / "npm"
    npm.touch(0o755)
    shutil.copy(ROOT / "deploy" / "backstage" / "package.json", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(adapter, "ADAPTER", tmp_path)

    assert adapter.left_out() == "its packages are missing; make bench installs them"

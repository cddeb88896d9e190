"""The commands of `docs/releasing.md`, run in a copy of the project where they need neither a network nor an engine."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from release import version
from release.places import NPM_LOCKS, ROOT

PAGE = (ROOT / "docs" / "releasing.md").read_text()
MADE = re.findall(r"^\$ make ([\w-]+)", PAGE, re.MULTILINE)
# Made by `.ci/run`, by the workflows, or in the tests below; `release-check` tries the release itself.
ELSEWHERE = {"lint", "test", "release-check"}
NPM = """#!/bin/sh
echo '{"vulnerabilities": {}}'
"""
PIP_AUDIT = """#!/bin/sh
echo '{"dependencies": [{"name": "a", "version": "1", "vulns": []}]}'
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the files that the commands read and write, with the environment of the tests."""
    for name in ("Makefile", "pyproject.toml", "CHANGELOG.md", "config.example.toml"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("release", "requirements"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for file in {ROOT / place.file for place in version.PLACES} | set(NPM_LOCKS):
        (tmp_path / file.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, tmp_path / file.relative_to(ROOT))
    environment, real = tmp_path / ".venv", Path(sys.prefix)
    (environment / "bin").mkdir(parents=True)
    (environment / ".created").touch()
    (environment / "bin" / "python").symlink_to(real / "bin" / "python")
    for name in ("lib", "pyvenv.cfg"):
        (environment / name).symlink_to(real / name)
    for folder, name, text in ((environment / "bin", "pip-audit", PIP_AUDIT), (tmp_path / "bin", "npm", NPM)):
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return tmp_path


def make(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run make as if the environment were up to date, which is installed from the network."""
    return subprocess.run(
        ["make", "--no-print-directory", "-o", ".venv/.created", "-o", ".venv/.dev", *arguments],
        cwd=tree,
        env={"PATH": f"{tree / 'bin'}:/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"},
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )


def test_every_command_of_the_page_is_run_by_a_test_or_before_a_release() -> None:
    assert set(MADE) == ELSEWHERE | {"audit", "version"}
    assert (ROOT / "deploy" / "pin-images.sh").stat().st_mode & 0o111
    assert "$ python3 -m release.version --tag v1.2.3" in PAGE


def test_version_and_tag_as_the_page_says(tree: Path) -> None:
    ran = make(tree, "version", "VERSION=1.2.3")
    assert (ran.returncode, ran.stderr) == (0, "")
    tag = [sys.executable, "-m", "release.version", "--tag", "v1.2.3"]
    refused = subprocess.run(tag, cwd=tree, capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 1
    assert refused.stderr.startswith("CHANGELOG.md has no section [1.2.3] with a date")

    changelog = tree / "CHANGELOG.md"
    heading = re.search(r"`(## \[1\.2\.3\][^`]*)`", PAGE)
    assert heading
    changelog.write_text(changelog.read_text().replace("## [Unreleased]", f"## [Unreleased]\n\n{heading[1]}", 1))

    printed = subprocess.run(tag, cwd=tree, capture_output=True, text=True, timeout=60, check=True).stdout
    assert printed.startswith("### ")


def test_audit_checks_licences_and_asks_for_the_advisories_of_each_lock_file(tree: Path) -> None:
    ran = make(tree, "audit")

    assert ran.returncode == 0, ran.stderr
    assert re.search(r"^licences: all \d+ locked packages may be used$", ran.stdout, re.MULTILINE)
    assert ran.stdout.splitlines()[1:] == [
        "ok: pip-audit",
        "ok: npm audit of deploy/backstage",
        "ok: npm audit of deploy/backstage/test/backstage-oldest",
        "ok: npm audit of deploy/backstage-ui",
    ]


def test_audit_without_a_database_says_so_and_fails_where_it_is_required(tree: Path) -> None:
    (tree / "bin" / "npm").write_text("#!/bin/sh\necho 'npm error network' >&2; exit 1\n")

    ran = make(tree, "audit", "AUDIT_ARGS=--required")

    assert ran.returncode == 2
    assert "SKIPPED, for the database could not be asked: npm audit of deploy/backstage: npm error" in ran.stdout


def test_sbom_writes_one_for_each_package(tree: Path) -> None:
    ran = make(tree, "sbom")

    assert ran.returncode == 0, ran.stderr
    assert len(list((tree / "build" / "sbom").glob("*.cdx.json"))) == 4
    assert "build/sbom/palette-sync.cdx.json: " in ran.stdout

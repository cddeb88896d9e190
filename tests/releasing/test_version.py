"""Every file that names the version names the same one, and one command changes them all."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

import palette_sync
from release import version
from release.places import ROOT, own_files

CHANGELOG = """# Changelog

## [Unreleased]

- later

## [1.2.3] - 2027-01-31

### Added

- A thing.

## [1.2.2] - 2026-12-31

- before
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The files that name the version, and the changelog."""
    for place in version.PLACES:
        (tmp_path / place.file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / place.file, tmp_path / place.file)
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    return tmp_path


def test_all_files_name_the_version_of_the_package() -> None:
    assert version.differing(ROOT, palette_sync.__version__) == []


def test_no_published_file_with_a_version_is_forgotten() -> None:
    """A package.json that is not private, and a Chart.yaml."""
    manifests = {one for one in own_files("package.json") if not json.loads(one.read_text()).get("private")}
    published = {str(one.relative_to(ROOT)) for one in {*manifests, *own_files("Chart.yaml")}}

    assert len(published) == 4
    assert published <= {place.file for place in version.PLACES}


def test_one_command_writes_it_everywhere_and_changes_nothing_else(tree: Path) -> None:
    before = {place.file: (tree / place.file).read_text() for place in version.PLACES}

    assert version.main(["1.2.3"], tree) == 0

    assert version.differing(tree, "1.2.3") == []
    for place in version.PLACES:
        changed = [
            line
            for line, old in zip(
                (tree / place.file).read_text().splitlines(), before[place.file].splitlines(), strict=True
            )
            if line != old
        ]
        assert len(changed) == place.times, place.file
        assert all("1.2.3" in line for line in changed)


@pytest.mark.parametrize("wrong", ["1.2", "v1.2.3", "1.2.3rc1", "1.2.3-rc.1", "latest"])
def test_what_is_no_version_is_refused(tree: Path, wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert version.main([wrong], tree) == 2
    assert version.differing(tree, palette_sync.__version__) == []
    assert "three numbers" in capsys.readouterr().err


def test_a_file_that_no_longer_names_it_is_an_error(tree: Path) -> None:
    chart = tree / "deploy" / "helm" / "palette-sync" / "Chart.yaml"
    chart.write_text(re.sub(r"^appVersion: .*\n", "", chart.read_text(), flags=re.MULTILINE))

    with pytest.raises(ValueError, match="names a version 1 times, not 2"):
        version.main(["1.2.3"], tree)
    assert version.SOURCE.stated(tree) == [palette_sync.__version__], "nothing is written before all is known"


def test_a_tag_is_released_with_its_section_of_the_changelog(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    version.main(["1.2.3"], tree)

    assert version.main(["--tag", "v1.2.3"], tree) == 0
    assert capsys.readouterr().out == "### Added\n\n- A thing.\n"


@pytest.mark.parametrize(
    ("tag", "message"),
    [("v1.2.4", "Chart.yaml names another version than v1.2.4"), ("v1.2.4", "no section [1.2.4] with a date")],
)
def test_a_tag_that_does_not_fit_is_refused(
    tree: Path, tag: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    version.main(["1.2.3"], tree)

    assert version.main(["--tag", tag], tree) == 1
    assert message in capsys.readouterr().err

"""What `make release-check` refuses. That a whole release passes is what the command itself shows."""

from __future__ import annotations

import io
import tarfile
import zipfile
from typing import TYPE_CHECKING

import helm_python as helm
import pytest

from release import check
from release.artefacts import Artefacts
from release.places import CHART, PACKAGE, ROOT
from release.version import SOURCE

if TYPE_CHECKING:
    from pathlib import Path

VERSION = SOURCE.stated(ROOT)[0]
FILES = [
    str(one.relative_to(PACKAGE.parent))
    for one in PACKAGE.rglob("*")
    if one.is_file() and "__pycache__" not in one.parts
]


def artefacts(folder: Path, *, wheel: list[str] = FILES, sdist: list[str] = FILES, version: str = VERSION) -> Artefacts:
    """Archives with these files of the package, all empty, and the real chart."""
    built = Artefacts(version, folder / "a.whl", folder / "a.tar.gz", {}, folder / f"palette-sync-{VERSION}.tgz")
    with zipfile.ZipFile(built.wheel, "w") as zipped:
        for name in [*wheel, "palette_sync-0.dist-info/METADATA"]:
            zipped.writestr(name, "")
    with tarfile.open(built.sdist, "w:gz") as tar:
        for name in [*(f"daemon/{one}" for one in sdist), "README.md"]:
            tar.addfile(tarfile.TarInfo(f"palette_sync-{version}/{name}"), io.BytesIO())
    with helm.Chart.load(str(CHART)) as chart:
        chart.save(str(folder))
    return built


def test_archives_with_the_files_of_the_package_pass(tmp_path: Path) -> None:
    check.holds_the_package(artefacts(tmp_path))


@pytest.mark.parametrize("archive", ["wheel", "sdist"])
@pytest.mark.parametrize(
    ("files", "message"),
    [
        (FILES[1:], "lacks \\['palette_sync/"),
        ([*FILES, "palette_sync/notes.txt"], "besides \\['palette_sync/notes.txt'"),
    ],
    ids=["one missing", "one too many"],
)
def test_an_archive_with_other_files_is_refused(tmp_path: Path, archive: str, files: list[str], message: str) -> None:
    built = artefacts(tmp_path, **{archive: files})  # type: ignore[arg-type]

    with pytest.raises(check.CheckError, match=message):
        check.holds_the_package(built)


def test_the_packed_chart_runs_the_image_of_this_version(tmp_path: Path) -> None:
    assert {one["kind"] for one in check.rendered(artefacts(tmp_path))} >= {"Deployment", "Service", "ConfigMap"}
    with pytest.raises(check.CheckError, match=r"not palette-sync:9\.9\.9"):
        check.rendered(artefacts(tmp_path, version="9.9.9"))


def test_nothing_of_this_checkout_or_its_configuration_reaches_the_environments(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("PYTHONPATH", "PALETTE_SYNC_CONFIG", "NODE_PATH", "VIRTUAL_ENV"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("npm_config_registry", "kept")

    found = check._environment()

    assert "x" not in found.values()
    assert found["npm_config_registry"] == "kept"

"""Build what is released into `dist/`: wheel, source distribution, npm packages, chart, bills of materials, checksums.

`python -m release.artefacts` needs nothing but this checkout and its environments. The frontend package needs
`deploy/backstage-ui/node_modules`; the make targets `dist` and `release-check` install that.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import helm_python as helm

from release.places import CHART, DIST, NPM_PACKAGES, ROOT
from release.sbom import document, subjects
from release.version import SOURCE


@dataclass(frozen=True)
class Artefacts:
    """The files in `dist/`. `npm`: by name of the package."""

    version: str
    wheel: Path
    sdist: Path
    npm: dict[str, Path]
    chart: Path


def build(dist: Path = DIST) -> Artefacts:
    """Build everything into an empty folder, from the files of this checkout.

    Raises subprocess.CalledProcessError, with its output, where a build fails.
    """
    shutil.rmtree(dist, ignore_errors=True)
    dist.mkdir(parents=True)
    (version,) = SOURCE.stated(ROOT)
    hatchling = Path(sys.executable).with_name("hatchling")
    _run([str(hatchling), "build", "--directory", str(dist), "--target", "sdist", "--target", "wheel"], ROOT)
    npm = {}
    for folder in NPM_PACKAGES:
        name = json.loads((folder / "package.json").read_text(encoding="utf-8"))["name"]
        _run(["npm", "run", "--silent", "build"], folder)
        _run(["npm", "pack", "--silent", "--ignore-scripts", "--pack-destination", str(dist)], folder)
        npm[name] = dist / f"{name}-{version}.tgz"
    with helm.Chart.load(str(CHART)) as chart:
        chart.save(str(dist))
    for subject in subjects():
        (dist / f"{subject.name}-{version}.cdx.json").write_text(document(subject), encoding="utf-8")
    built = Artefacts(
        version,
        wheel=dist / f"palette_sync-{version}-py3-none-any.whl",
        sdist=dist / f"palette_sync-{version}.tar.gz",
        npm=npm,
        chart=dist / f"palette-sync-{version}.tgz",
    )
    _write_checksums(dist)
    return built


def _write_checksums(dist: Path) -> None:
    """Write `SHA256SUMS`, which `sha256sum --check` reads."""
    files = sorted(one for one in dist.iterdir() if not one.name.startswith("."))
    lines = [f"{hashlib.sha256(one.read_bytes()).hexdigest()}  {one.name}\n" for one in files]
    (dist / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")


def _run(command: list[str], folder: Path) -> None:
    # The time of the commit in archives, so that the same commit gives the same wheel and source distribution.
    asked = ["git", "log", "-1", "--format=%ct"]
    when = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    environment = os.environ | ({"SOURCE_DATE_EPOCH": when} if when else {})
    subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True, timeout=600)


def main() -> int:
    build()
    for one in sorted(DIST.iterdir()):
        sys.stdout.write(f"{one.relative_to(ROOT)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

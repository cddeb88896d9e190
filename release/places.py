"""Where the parts of a release are in the repository."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
DIST = ROOT / "dist"
BUILD = ROOT / "build"
CHART = DEPLOY / "helm" / "palette-sync"
PACKAGE = ROOT / "daemon" / "palette_sync"
REQUIREMENTS = ROOT / "requirements"

# Each npm package that is published, and the folder whose package-lock.json pins what it needs.
NPM_PACKAGES = {
    DEPLOY / "backstage": DEPLOY / "backstage",
    DEPLOY / "backstage-catalog": DEPLOY / "backstage",
    DEPLOY / "backstage-frontend": DEPLOY / "backstage-ui",
}
# What users install of Python packages: the daemon, and its extras, each with a lock file of its name.
RUNTIME = REQUIREMENTS / "runtime.txt"
EXTRAS = tuple(
    REQUIREMENTS / f"{name}.txt"
    for name in tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
)


def own_files(name: str) -> tuple[Path, ...]:
    """Return the files of this name in `deploy/`, without what npm installed and what builds left."""
    found = []
    for folder, below, files in os.walk(DEPLOY):
        below[:] = [one for one in below if one != "node_modules" and not one.startswith(".")]
        found += [Path(folder, name)] if name in files else []
    return tuple(sorted(found))


NPM_LOCKS = own_files("package-lock.json")

"""Where the parts of a release are in the repository."""

from __future__ import annotations

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
# What users install of Python packages: the daemon, and its extras.
RUNTIME = REQUIREMENTS / "runtime.txt"
EXTRAS = tuple(REQUIREMENTS / f"{name}.txt" for name in ("embedded", "aws", "google", "azure"))

"""Build the pages as a site, strictly: a link that leads nowhere is an error. `make site` runs it.

The pages link to each other and to files of the repository, so the site has the repository's folders: every file that
git knows is copied, except what only machines read.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
LEFT_OUT = ("tests/bench/", "requirements/", ".github/", ".ci/", "docs/mkdocs.yml")


def main(source: Path = ROOT / "build" / "site-source", site: Path = ROOT / "build" / "site") -> int:
    """Build the site from copies of the pages in `source`. Return mkdocs' exit code."""
    shutil.rmtree(source, ignore_errors=True)
    for name in _tracked():
        if not name.startswith(LEFT_OUT) and (ROOT / name).is_file():
            target = source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target)
    configuration = source.with_name("mkdocs.yml")
    configuration.write_text(
        f"INHERIT: {json.dumps(str(ROOT / 'docs' / 'mkdocs.yml'))}\ndocs_dir: {json.dumps(str(source))}\n"
    )
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(configuration), "-d", str(site)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode  # noqa: S603 - our own command


def _tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S607
    return [name for name in listed.stdout.split("\0") if name]


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:])))

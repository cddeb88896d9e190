"""The version, which `palette_sync.__version__` states for all: the other files that must name it follow.

`python -m release.version 0.2.0` writes it everywhere. `--tag v0.2.0` writes nothing: it fails unless every file names
this version and the changelog has a section of it, and prints that section, which is the text of the release.
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from release.places import ROOT

if TYPE_CHECKING:
    from pathlib import Path

VERSION = r"\d+\.\d+\.\d+"
_JSON = r'^ {{{indent}}}"version": "({version})"'


@dataclass(frozen=True)
class Place:
    """A file that names the version, and the pattern whose first group it is, `times` times."""

    file: str
    pattern: str
    times: int = 1

    def stated(self, root: Path) -> list[str]:
        """Return the version as often as the file names it.

        Raises ValueError where the file names it in more or fewer places than are known here.
        """
        found: list[str] = re.findall(self.pattern, (root / self.file).read_text(encoding="utf-8"), re.MULTILINE)
        if len(found) < self.times:
            raise ValueError(f"{self.file} names a version {len(found)} times, not {self.times}")
        return found[: self.times]

    def write(self, root: Path, version: str) -> None:
        path = root / self.file
        replaced = re.sub(
            self.pattern,
            lambda match: match[0].replace(match[1], version),
            path.read_text(encoding="utf-8"),
            count=self.times,
            flags=re.MULTILINE,
        )
        path.write_text(replaced, encoding="utf-8")


SOURCE = Place("daemon/palette_sync/__init__.py", rf'^__version__ = "({VERSION})"$')
PLACES = (
    SOURCE,
    *(
        Place(f"deploy/{folder}/package.json", _JSON.format(indent=2, version=VERSION))
        for folder in ("backstage", "backstage-catalog", "backstage-frontend")
    ),
    # The root of the lock file, and its entry in the list of packages; the first two in the file.
    Place("deploy/backstage/package-lock.json", rf'^ +"version": "({VERSION})"', 2),
    Place("deploy/helm/palette-sync/Chart.yaml", rf"^(?:version|appVersion): ({VERSION})$", 2),
)


def differing(root: Path, version: str) -> list[str]:
    """Return the files that name another version."""
    return [place.file for place in PLACES if set(place.stated(root)) != {version}]


def section(changelog: str, version: str) -> str | None:
    """Return what the changelog says of a version, without its heading; None where it has no such section."""
    found = re.search(
        rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d\n(.*?)(?=^## \[|^\[|\Z)",
        changelog,
        re.MULTILINE | re.DOTALL,
    )
    return found[1].strip() if found else None


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(prog="python -m release.version", description=__doc__)
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("version", nargs="?", help="write this version into every file that names it")
    choice.add_argument("--tag", help="check that this tag can be released, and print its section of the changelog")
    found = parser.parse_args(arguments)
    if found.tag is not None:
        return _releasable(root, found.tag)
    if found.version is None:
        sys.stdout.write(SOURCE.stated(root)[0] + "\n")
        return 0
    if re.fullmatch(VERSION, found.version) is None:
        sys.stderr.write(f"a version has three numbers, such as 1.2.3: {found.version!r}\n")
        return 2
    for place in PLACES:
        place.stated(root)
    for place in PLACES:
        place.write(root, found.version)
    return 0


def _releasable(root: Path, tag: str) -> int:
    version = tag.removeprefix("v")
    problems = [f"{file} names another version than {tag}" for file in differing(root, version)]
    text = section((root / "CHANGELOG.md").read_text(encoding="utf-8"), version)
    if text is None:
        problems.append(f"CHANGELOG.md has no section [{version}] with a date")
    if problems:
        sys.stderr.write("\n".join([*problems, "docs/releasing.md says what to do before a tag is set", ""]))
        return 1
    sys.stdout.write(f"{text}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

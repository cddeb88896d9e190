"""What the lock files pin. Functions of their text."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Iterable

_PINNED = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)\s*(?:;\s*([^\\]+?))?\s*\\?$")
_HASH = re.compile(r"--hash=(sha256):([0-9a-f]{64})")
_VIA = re.compile(r"^\s+# (?:via|  ) ?(.*)$")


@dataclass(frozen=True)
class Package:
    """A pinned package. `via`: names of what needs it; `-r FILE` stands for the project itself.

    `licence`: an SPDX expression or what the package says instead; None where the lock file does not have it, as those
    of Python. `marker`: on which platforms it is installed; None for all. `key`: unique in its lock file.
    """

    ecosystem: str
    name: str
    version: str
    hashes: tuple[tuple[str, str], ...] = ()
    via: tuple[str, ...] = ()
    needs: tuple[str, ...] = field(default=(), compare=False)
    marker: str | None = None
    licence: str | None = None
    key: str = ""

    @property
    def purl(self) -> str:
        """The package URL, https://github.com/package-url/purl-spec: `pkg:npm/%40scope/name@1.2.3`."""
        return f"pkg:{self.ecosystem}/{quote(self.name, safe='/')}@{quote(self.version)}"


def python_packages(text: str) -> list[Package]:
    """Return the packages of a file that `uv pip compile --generate-hashes` wrote.

    Raises ValueError for a package without a hash, and for a line that is not of such a file.
    """
    found: list[Package] = []
    for block in re.split(r"\n(?=\S)", text):
        first, *rest = block.rstrip().splitlines() or [""]
        if not first or first.startswith("#"):
            continue
        pinned = _PINNED.match(first)
        if pinned is None:
            raise ValueError(f"not a pinned package: {first}")
        name, version, marker = pinned.groups()
        via = [match[1].strip() for line in rest if (match := _VIA.match(line))]
        package = Package(
            "pypi",
            re.sub(r"[-_.]+", "-", name).lower(),
            version,
            hashes=tuple(sorted(("SHA-256", match[2]) for line in rest if (match := _HASH.search(line)))),
            via=tuple(one for one in via if one and not one.startswith("-c ")),
            marker=marker,
        )
        if not package.hashes:
            raise ValueError(f"{name} has no hash")
        found.append(package)
    return found


def npm_packages(text: str) -> list[Package]:
    """Return every package of a package-lock.json (version 3), without the folders of the project itself."""
    entries: dict[str, dict[str, Any]] = json.loads(text)["packages"]
    return [
        _npm_package(entries, path) for path in entries if "node_modules/" in path and not entries[path].get("link")
    ]


def npm_closure(text: str, roots: Iterable[str]) -> tuple[list[Package], tuple[str, ...]]:
    """Return what is installed for packages of these names, and the keys of these packages themselves.

    Optional peers are not installed with a package. Raises KeyError for a root that the lock file does not have.
    """
    entries: dict[str, dict[str, Any]] = json.loads(text)["packages"]
    waiting = [f"node_modules/{name}" for name in roots]
    first = tuple(waiting)
    found: dict[str, Package] = {}
    while waiting:
        path = waiting.pop()
        if path not in found:
            found[path] = _npm_package(entries, path)
            waiting += found[path].needs
    return [found[path] for path in sorted(found)], first


def _npm_package(entries: dict[str, dict[str, Any]], path: str) -> Package:
    entry = entries[path]
    algorithm, _, digest = entry.get("integrity", "").partition("-")
    hashes = ((f"SHA-{algorithm[3:]}", base64.b64decode(digest).hex()),) if digest else ()
    peers = entry.get("peerDependencies", {})
    required = {name for name in peers if not entry.get("peerDependenciesMeta", {}).get(name, {}).get("optional")}
    names = sorted({*entry.get("dependencies", {}), *entry.get("optionalDependencies", {}), *required})
    return Package(
        "npm",
        entry.get("name", path.rpartition("node_modules/")[2]),
        entry["version"],
        hashes=hashes,
        needs=tuple(one for name in names if (one := _place(entries, path, name)) is not None),
        licence=_licence(entry),
        key=path,
    )


def _place(entries: dict[str, dict[str, Any]], path: str, name: str) -> str | None:
    """Return where Node finds a package that the one at `path` imports; None for what this lock file leaves out."""
    while True:
        candidate = f"{path}/node_modules/{name}" if path else f"node_modules/{name}"
        if candidate in entries:
            return candidate
        if not path:
            return None
        path = path.rpartition("/node_modules/")[0] if "/node_modules/" in path else ""


def _licence(entry: dict[str, Any]) -> str | None:
    """Return the field `license`: an SPDX expression, or in old packages a list of licences to choose from."""
    stated = entry.get("license")
    return " OR ".join(stated) if isinstance(stated, list) else stated

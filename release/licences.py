"""Whether the licence of every locked package is one that `release/licences.toml` allows. `make audit` runs it.

For npm, the lock files state the licences. For Python, the metadata of what is installed does. What neither says stands
in the file, with how it is known.
"""

from __future__ import annotations

import sys
import tomllib
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import TYPE_CHECKING

from license_expression import ExpressionError, get_spdx_licensing

from release.locked import Package, npm_packages, python_packages
from release.places import NPM_LOCKS, REQUIREMENTS
from release.sbom import subjects

if TYPE_CHECKING:
    from collections.abc import Iterable

FILE = Path(__file__).with_name("licences.toml")
_SPDX = get_spdx_licensing()
_LONGEST = 80  # characters of an expression; many old packages put the whole text into the field `License`
# Trove classifiers that name one licence: https://pypi.org/classifiers/
_CLASSIFIERS = {
    "License :: OSI Approved :: Apache Software License": "Apache-2.0",
    "License :: OSI Approved :: BSD License": "BSD-3-Clause",
    "License :: OSI Approved :: ISC License (ISCL)": "ISC",
    "License :: OSI Approved :: MIT License": "MIT",
    "License :: OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "License :: OSI Approved :: Python Software Foundation License": "PSF-2.0",
}


@dataclass(frozen=True)
class Rules:
    """What `licences.toml` says. Keys of `stated` and `exceptions` are `pypi:name` and `npm:name`."""

    allowed: frozenset[str]
    stated: dict[str, str] = field(default_factory=dict)
    exceptions: dict[str, str] = field(default_factory=dict)
    only_development: frozenset[str] = frozenset()


def rules(text: str) -> Rules:
    """Read the file. Raises KeyError or TypeError where an entry lacks its licence or its reason."""
    document = tomllib.loads(text)
    stated = {name: one["licence"] for name, one in document["stated"].items() if one["known_from"]}
    exceptions = {name: one["licence"] for name, one in document["exceptions"].items() if one["reason"]}
    development = {name for name, one in document["exceptions"].items() if one.get("only_development")}
    return Rules(frozenset(document["allowed"]), stated, exceptions, frozenset(development))


def allows(allowed: frozenset[str], licence: str) -> bool:
    """Return whether an SPDX expression can be met with allowed licences: one side of OR is enough, AND needs both.

    `WITH` an exception gives more rights than the licence alone, so that the licence decides.
    """
    try:
        parsed = _SPDX.parse(licence, validate=True)
    except ExpressionError:
        return False
    if parsed is None:
        return False
    return _met(parsed, allowed)


def _met(node: object, allowed: frozenset[str]) -> bool:
    operator = getattr(node, "operator", "").strip()
    parts = [_met(one, allowed) for one in getattr(node, "args", ())]
    if operator == "OR":
        return any(parts)
    if operator == "AND":
        return all(parts)
    symbol = getattr(node, "license_symbol", node)
    return getattr(symbol, "key", "") in allowed


def problems(packages: Iterable[Package], shipped: frozenset[str], found: Rules) -> list[str]:
    """Return what is wrong: unknown licences, ones that are not allowed, and rules that no package needs."""
    lines: set[str] = set()
    used: set[str] = set()
    for package in packages:
        name = f"{package.ecosystem}:{package.name}"
        licence = found.stated.get(name, package.licence)
        used |= {name} & found.stated.keys()
        if licence is None:
            lines.add(f"{name} {package.version}: its licence is not known here; add it to [stated]")
        elif allows(found.allowed, licence):
            continue
        elif found.exceptions.get(name) != licence:
            lines.add(f"{name} {package.version}: {licence} is not allowed")
        else:
            used.add(name)
            if name in found.only_development and name in shipped:
                lines.add(f"{name} {package.version}: {licence} is allowed for development only, but it is shipped")
    unused = (found.stated.keys() | found.exceptions.keys()) - used
    return [*sorted(lines), *(f"{name}: no locked package needs this entry" for name in sorted(unused))]


def of_installed(name: str) -> str | None:
    """Return the licence of an installed Python package as SPDX, or None."""
    try:
        found = metadata(name)
    except PackageNotFoundError:
        return None
    for one in (*found.get_all("License-Expression", []), *found.get_all("License", [])):
        if one and len(one) < _LONGEST:
            try:
                parsed = _SPDX.parse(one, validate=True)
            except ExpressionError:
                continue
            if parsed is not None:
                return str(parsed.render())
    named = {_CLASSIFIERS[one] for one in found.get_all("Classifier", []) if one in _CLASSIFIERS}
    return " OR ".join(sorted(named)) or None


def locked() -> list[Package]:
    """Return every package of every lock file, with its licence where that is known."""
    npm = [one for lock in NPM_LOCKS for one in npm_packages(lock.read_text(encoding="utf-8"))]
    python = [one for file in sorted(REQUIREMENTS.glob("*.txt")) for one in python_packages(file.read_text("utf-8"))]
    installed = {name: of_installed(name) for name in {one.name for one in python}}
    return [
        *npm,
        *(Package(one.ecosystem, one.name, one.version, one.hashes, licence=installed[one.name]) for one in python),
    ]


def main() -> int:
    packages = locked()
    shipped = frozenset(f"{one.ecosystem}:{one.name}" for subject in subjects() for one in subject.packages)
    wrong = problems(packages, shipped, rules(FILE.read_text(encoding="utf-8")))
    for line in wrong:
        sys.stderr.write(f"{line}\n")
    distinct = len({one.purl for one in packages})
    if wrong:
        sys.stderr.write(f"licences: {len(wrong)} problems; the rules are in release/{FILE.name}\n")
    else:
        sys.stdout.write(f"licences: all {distinct} locked packages may be used\n")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())

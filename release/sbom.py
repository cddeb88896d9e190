"""The bill of materials of each published package: CycloneDX JSON, from the lock files alone.

`python -m release.sbom` writes `build/sbom/NAME.cdx.json`. The same lock files and version give the same bytes: they
hold no time, and the serial number is a hash of the content.
"""

from __future__ import annotations

import json
import sys
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.model.license import DisjunctiveLicense, LicenseExpression
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from cyclonedx.spdx import is_expression, is_supported_id
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

from release.locked import Package, npm_closure, python_packages
from release.places import BUILD, EXTRAS, NPM_PACKAGES, ROOT, RUNTIME
from release.version import SOURCE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

SCHEMA = SchemaVersion.V1_6


@dataclass(frozen=True)
class Subject:
    """What a bill of materials is of: a published package, what an installation of it brings, and who needs what.

    `direct` (what it names itself) and `needs` hold the `Package.key` of npm packages, the name of Python packages.
    `optional`: names of what only an extra brings.
    """

    name: str
    version: str
    ecosystem: str
    packages: Sequence[Package]
    direct: frozenset[str]
    needs: Mapping[str, frozenset[str]]
    optional: frozenset[str] = frozenset()


def python_subject(version: str) -> Subject:
    """Return palette-sync itself, with what its extras bring as optional."""
    by_name: dict[str, Package] = {}
    needs: dict[str, set[str]] = {}
    direct: set[str] = set()
    required: set[str] = set()
    for file in (RUNTIME, *EXTRAS):
        for package in python_packages(file.read_text(encoding="utf-8")):
            by_name.setdefault(package.name, package)
            if file == RUNTIME:
                required.add(package.name)
            for other in package.via:
                if other.startswith("-r "):
                    direct.add(package.name)
                else:
                    needs.setdefault(_bare(other), set()).add(package.name)
    return Subject(
        "palette-sync",
        version,
        "pypi",
        [by_name[name] for name in sorted(by_name)],
        frozenset(direct),
        {name: frozenset(found) for name, found in needs.items()},
        frozenset(by_name.keys() - required),
    )


def npm_subject(folder: Path, lock_folder: Path) -> Subject:
    """Return a package of this project with what an installation of it brings, in the pinned versions."""
    manifest = json.loads((folder / "package.json").read_text(encoding="utf-8"))
    optional = {name for name, one in manifest.get("peerDependenciesMeta", {}).items() if one.get("optional")}
    roots = sorted({*manifest["dependencies"], *manifest.get("peerDependencies", {})} - optional)
    packages, direct = npm_closure((lock_folder / "package-lock.json").read_text(encoding="utf-8"), roots)
    needs = {one.key: frozenset(one.needs) for one in packages}
    return Subject(manifest["name"], manifest["version"], "npm", packages, frozenset(direct), needs)


def subjects() -> list[Subject]:
    (version,) = SOURCE.stated(ROOT)
    return [python_subject(version), *(npm_subject(folder, lock) for folder, lock in NPM_PACKAGES.items())]


def document(subject: Subject) -> str:
    """Return the bill of materials as CycloneDX JSON, checked against the schema.

    Raises ValueError where it does not follow the schema.
    """
    root = Component(
        type=ComponentType.APPLICATION if subject.ecosystem == "pypi" else ComponentType.LIBRARY,
        name=subject.name,
        version=subject.version,
        bom_ref=subject.name,
        purl=PackageURL(subject.ecosystem, None, subject.name, subject.version),
        licenses=[DisjunctiveLicense(id="Apache-2.0")],
    )
    keyed = {one.key or one.name: _component(one, optional=one.name in subject.optional) for one in subject.packages}
    bom = Bom(components=keyed.values(), serial_number=uuid.UUID(int=0))
    bom.metadata.timestamp = None  # type: ignore[assignment]
    bom.metadata.component = root
    bom.metadata.tools.components.clear()
    bom.register_dependency(root, [keyed[key] for key in sorted(subject.direct)])
    for key, component in keyed.items():
        bom.register_dependency(component, [keyed[one] for one in sorted(subject.needs.get(key, ())) if one in keyed])
    bom.serial_number = uuid.uuid5(uuid.NAMESPACE_OID, _json(bom))
    text = _json(bom)
    wrong = JsonStrictValidator(SCHEMA).validate_str(text)
    if wrong is not None:
        raise ValueError(f"the bill of materials of {subject.name} is invalid: {wrong}")
    return text + "\n"


def _component(package: Package, *, optional: bool) -> Component:
    group, _, name = package.name.rpartition("/")
    return Component(
        type=ComponentType.LIBRARY,
        group=group or None,
        name=name,
        version=package.version,
        bom_ref=f"{package.purl}#{package.key}" if package.key else package.purl,
        purl=PackageURL(package.ecosystem, group or None, name, package.version),
        scope=ComponentScope.OPTIONAL if optional else ComponentScope.REQUIRED,
        # Of a Python package every file has a hash of its own, and which one is installed depends on the platform.
        hashes=[HashType(alg=HashAlgorithm(algorithm), content=digest) for algorithm, digest in package.hashes],
        licenses=_licences(package.licence),
    )


def _licences(stated: str | None) -> list[DisjunctiveLicense | LicenseExpression]:
    if stated is None:
        return []
    if is_supported_id(stated):
        return [DisjunctiveLicense(id=stated)]
    return [LicenseExpression(stated)] if is_expression(stated) else [DisjunctiveLicense(name=stated)]


def _json(bom: Bom) -> str:
    return make_outputter(bom, OutputFormat.JSON, SCHEMA).output_as_string(indent=2)


def _bare(name: str) -> str:
    return name.partition("[")[0]


def main() -> int:
    folder = BUILD / "sbom"
    folder.mkdir(parents=True, exist_ok=True)
    for subject in subjects():
        path = folder / f"{subject.name}.cdx.json"
        path.write_text(document(subject), encoding="utf-8")
        sys.stdout.write(f"{path.relative_to(ROOT)}: {len(subject.packages)} packages\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

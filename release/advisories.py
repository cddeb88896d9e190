"""Known vulnerabilities of the locked packages, by pip-audit and npm audit. `make audit` runs it.

Both ask a database. Where it cannot be reached, nothing is known, which is reported and is no success: `--required`,
which the workflows set, then fails.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from release.places import NPM_LOCKS, REQUIREMENTS, ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping

FILE = Path(__file__).with_name("advisories.toml")
# npm's severities that fail the audit; others are only listed. pip-audit gives none, so each of its findings fails.
SEVERE = ("high", "critical")


@dataclass(frozen=True)
class Answer:
    """`skipped`: why nothing is known. `found`: advisories that fail the audit; `minor`: those that are only listed."""

    found: tuple[str, ...] = ()
    minor: tuple[str, ...] = ()
    accepted: frozenset[str] = frozenset()
    skipped: str | None = None


def of_pip_audit(output: str, errors: str, accepted: Mapping[str, str]) -> Answer:
    """Read `pip-audit --format json`.

    It exits with 0 and writes "No known vulnerabilities found" where the database knows no package at all, such as
    behind a mirror without one. Every package has a `skip_reason` then.
    """
    try:
        packages: list[dict[str, Any]] = json.loads(output)["dependencies"]
    except (ValueError, KeyError):
        return Answer(skipped=_last_line(errors) or "pip-audit printed no JSON")
    unknown = [one for one in packages if "skip_reason" in one]
    if len(unknown) == len(packages):
        return Answer(skipped=f"it knows none of the {len(packages)} packages")
    found = [f"{one['name']}: {one['skip_reason']}" for one in unknown]
    used: set[str] = set()
    for package in packages:
        for one in package.get("vulns", ()):
            names = {one["id"], *one.get("aliases", ())}
            if names & accepted.keys():
                used |= names & accepted.keys()
                continue
            fixed = ", ".join(one.get("fix_versions", ())) or "no version"
            found.append(f"{package['name']} {package['version']}: {one['id']}, fixed in {fixed}")
    return Answer(tuple(found), accepted=frozenset(used))


def of_npm_audit(output: str, errors: str, accepted: Mapping[str, str]) -> Answer:
    """Read `npm audit --json`. A registry without the endpoint answers it with a status of 400 or more."""
    try:
        document: dict[str, Any] = json.loads(output)
        packages: dict[str, dict[str, Any]] = document["vulnerabilities"]
    except ValueError:
        return Answer(skipped=_last_line(errors) or "npm audit printed no JSON")
    except KeyError:
        error = document.get("error") or {}
        return Answer(skipped=str(document.get("message") or error.get("summary") or _last_line(errors)))
    found: set[str] = set()
    minor: set[str] = set()
    used: set[str] = set()
    for name, package in packages.items():
        # A text among `via` names another package of the list, which has the advisory.
        for one in (one for one in package["via"] if isinstance(one, dict)):
            advisory = one["url"].rpartition("/")[2]
            if advisory in accepted:
                used.add(advisory)
                continue
            line = f"{name} {one['range']}: {advisory}, {one['severity']}, {one['title']}"
            (found if one["severity"] in SEVERE else minor).add(line)
    return Answer(tuple(sorted(found)), tuple(sorted(minor)), frozenset(used))


def accepted_ones(text: str) -> dict[str, str]:
    """Return the accepted advisories with their reasons. Raises ValueError for one without a reason."""
    found: dict[str, str] = tomllib.loads(text)["accepted"]
    for name, reason in found.items():
        if not reason.strip():
            raise ValueError(f"{name} is accepted without a reason")
    return found


def report(answers: Mapping[str, Answer], accepted: Mapping[str, str], *, required: bool) -> tuple[list[str], bool]:
    """Return the lines to print, and whether the audit fails."""
    lines: list[str] = []
    failed = False
    for what, answer in answers.items():
        if answer.skipped is not None:
            lines.append(f"SKIPPED, for the database could not be asked: {what}: {answer.skipped}")
            failed |= required
            continue
        lines += [f"vulnerable: {what}: {one}" for one in answer.found]
        lines += [f"minor: {what}: {one}" for one in answer.minor]
        if not answer.found:
            lines.append(f"ok: {what}")
        failed |= bool(answer.found)
    if all(answer.skipped is None for answer in answers.values()):
        used = {name for answer in answers.values() for name in answer.accepted}
        for name in sorted(accepted.keys() - used):
            lines.append(f"{name}: accepted in release/{FILE.name}, but no locked package has it")
            failed = True
    return lines, failed


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def _ask(command: list[str], folder: Path) -> tuple[str, str]:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600, check=False)
    return done.stdout, done.stderr


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m release.advisories", description=__doc__)
    parser.add_argument("--required", action="store_true", help="fail where a database cannot be asked")
    required: bool = parser.parse_args().required
    accepted = accepted_ones(FILE.read_text(encoding="utf-8"))
    pip_audit = [str(Path(sys.executable).with_name("pip-audit")), "--format", "json", "--progress-spinner", "off"]
    files = [part for file in sorted(REQUIREMENTS.glob("*.txt")) for part in ("--requirement", file.name)]
    asked = _ask([*pip_audit, "--no-deps", "--disable-pip", *files], REQUIREMENTS)
    answers = {"pip-audit": of_pip_audit(*asked, accepted)}
    npm = shutil.which("npm")
    for folder in (lock.parent for lock in NPM_LOCKS):
        name = f"npm audit of {folder.relative_to(ROOT)}"
        if npm is None:
            answers[name] = Answer(skipped="npm is missing")
            continue
        asked = _ask([npm, "audit", "--audit", "--package-lock-only", "--json"], folder)
        answers[name] = of_npm_audit(*asked, accepted)
    lines, failed = report(answers, accepted, required=required)
    sys.stdout.write("\n".join([*lines, ""]))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

"""The workflows in `.github`: pinned, with the least rights, and in step with what `.ci/run` and the Makefile say.

`make lint` runs actionlint and zizmor over them.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from release.places import EXTRAS, ROOT

GITHUB = ROOT / ".github"
WORKFLOWS = {one.stem: one for one in sorted((GITHUB / "workflows").glob("*.yml"))}
MAKEFILE = (ROOT / "Makefile").read_text()
_PINNED = re.compile(r"[\w.-]+/[\w.-]+(?:/[\w.-]+)*@[0-9a-f]{40} # v\d+\.\d+\.\d+")


def workflow(name: str) -> dict[Any, Any]:
    found: dict[Any, Any] = yaml.load(WORKFLOWS[name].read_text(), yaml.CSafeLoader)
    return found


def steps(name: str) -> list[dict[str, Any]]:
    return [step for job in workflow(name)["jobs"].values() for step in job.get("steps", ())]


FORMS = GITHUB / "ISSUE_TEMPLATE"
SCHEMAS = {
    "github-workflows": list(WORKFLOWS.values()),
    "renovate": [GITHUB / "renovate.json"],
    "github-issue-config": [FORMS / "config.yml"],
    "github-issue-forms": sorted(one for one in FORMS.glob("*.yml") if one.stem != "config"),
}


@pytest.mark.parametrize("schema", SCHEMAS)
def test_each_file_follows_its_schema(schema: str) -> None:
    assert SCHEMAS[schema]
    check = Path(sys.executable).with_name("check-jsonschema")
    ran = subprocess.run(
        [check, "--builtin-schema", f"vendor.{schema}", *SCHEMAS[schema]],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout


def test_every_action_is_pinned_by_commit_with_its_version_and_each_to_one() -> None:
    used = [line for one in WORKFLOWS.values() for line in re.findall(r"uses: (.+)", one.read_text())]
    others = [one for one in used if not one.startswith("$/")]

    assert [one for one in others if not _PINNED.fullmatch(one)] == []
    assert len({one.partition("@")[0] for one in others}) == len(set(others))


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_has_no_rights_and_each_job_names_those_that_it_needs(name: str) -> None:
    found = workflow(name)

    assert found["permissions"] == {}
    assert all("permissions" in job for job in found["jobs"].values())
    assert "pull_request_target" not in found[True]  # what YAML 1.1 makes of `on`
    writes = {right for job in found["jobs"].values() for right, how in job["permissions"].items() if how == "write"}
    assert name == "release" or not writes


def test_no_checkout_leaves_its_token_behind() -> None:
    found = [step for name in WORKFLOWS for step in steps(name) if step.get("uses", "").startswith("actions/checkout@")]

    assert found
    assert all(step["with"]["persist-credentials"] is False for step in found)


def test_the_jobs_that_may_sign_or_publish_run_no_code_of_packages() -> None:
    """A build script of a dependency must not get the identity of the workflow."""
    for name, job in workflow("release")["jobs"].items():
        if "id-token" in job["permissions"] or job["permissions"].get("contents") == "write":
            runs = " ".join(step.get("run", "") for step in job["steps"])
            assert not re.search(r"\bmake\b|\bpip\b|npm (ci|install)|\.ci/run", runs), name


def test_ci_runs_what_a_change_must_pass_on_every_supported_version() -> None:
    matrix = workflow("ci")["jobs"]["run"]["strategy"]["matrix"]["include"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    stated = [one.rpartition(" ")[2] for one in project["classifiers"] if "Python :: 3." in one]

    assert [step["run"] for step in steps("ci") if "run" in step].count(".ci/run") == 1
    assert [one["python"] for one in matrix] == stated
    assert project["requires-python"] == f">={stated[0]}"
    assert [int(one.removeprefix("3.")) for one in stated] == [*range(11, 11 + len(stated))], "none is left out"
    assert {one["node"] for one in matrix} == {"20", "22", "24"}


@pytest.mark.parametrize("name", ["ci", "release"])
def test_the_image_holds_every_extra_but_the_embedded_server(name: str) -> None:
    (extras,) = re.findall(r"EXTRAS=\"?([a-z ]+)", WORKFLOWS[name].read_text())

    assert extras.split() == [one.stem for one in EXTRAS if one.stem != "embedded"]


def test_a_release_is_made_of_what_passed() -> None:
    jobs = workflow("release")["jobs"]

    assert jobs["ci"]["uses"] == "$/.github/workflows/ci.yml"
    for name in jobs:
        if name not in {"ci", "build"}:
            needed, waiting = set(), [name]
            while waiting:
                more = jobs[waiting.pop()].get("needs", [])
                needed |= set(more)
                waiting += more
            assert {"ci", "build"} <= needed, name
    assert {step["with"]["platforms"] for step in steps("release") if "platforms" in step.get("with", {})} == {
        "linux/${{ matrix.architecture }}"
    }
    built = {one["architecture"] for one in jobs["image-build"]["strategy"]["matrix"]["include"]}
    assert built == {"amd64", "arm64"}


@pytest.mark.parametrize("name", WORKFLOWS)
def test_each_target_that_a_workflow_makes_exists(name: str) -> None:
    made = {one for step in steps(name) for one in re.findall(r"^make ([\w-]+)", step.get("run", ""), re.MULTILINE)}

    assert all(re.search(rf"^([\w-]+ )*{one}( [\w-]+)*:", MAKEFILE, re.MULTILINE) for one in made), made


def test_renovate_can_read_how_each_lock_file_is_compiled() -> None:
    """Its manager pip-compile takes the command from the first lines, and the names of files from this command."""
    for file in sorted((ROOT / "requirements").glob("*.txt")):
        _, command = file.read_text().splitlines()[:2]
        assert command == (
            "#    uv pip compile --universal --python-version 3.11 --generate-hashes "
            f"--output-file={file.name} {file.stem}.in"
        )
    assert "--output-file=$$name.txt $$name.in" in MAKEFILE

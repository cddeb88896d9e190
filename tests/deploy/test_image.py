"""`deploy/Dockerfile` by a linter and by what matters at run time; no engine is needed."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from typer.main import get_command

from deploy.dockerfile import DOCKERFILE, last, stages
from deploy.places import ROOT
from palette_sync.cli.main import app


def test_the_linter_finds_nothing_to_say() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    ran = subprocess.run([hadolint, "--no-color", DOCKERFILE], capture_output=True, text=True, timeout=30, check=False)

    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_the_process_is_not_root_and_kubernetes_can_see_it() -> None:
    user = last("USER").rest

    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    words = [one.word for one in stages()[-1]]
    assert "RUN" not in words[words.index("USER") :]


def test_signals_reach_the_daemon() -> None:
    assert last("ENTRYPOINT").array == ["palette-sync"]
    assert last("STOPSIGNAL").rest == "SIGTERM"


def test_what_it_runs_are_commands_that_exist() -> None:
    known = get_command(app).commands
    program, *health = last("HEALTHCHECK").array

    assert last("CMD").array[0] in known
    assert program == "palette-sync"
    assert health[0] in known


def test_nothing_is_installed_without_a_hash_or_from_anywhere_else() -> None:
    runs = [one.rest for stage in stages() for one in stage if one.word == "RUN"]
    installs = [part for run in runs for part in run.split("&&") if re.search(r"\bpip\b.* (install|wheel) ", part)]

    assert len(installs) == 5
    assert all("--require-hashes" in one or "--no-index" in one for one in installs), installs
    assert all("--no-deps" in one for one in installs), installs
    assert not re.search(r"curl|wget|apt|https?://", " ".join(runs))
    assert "ADD" not in {one.word for stage in stages() for one in stage}


def test_the_base_has_a_version_that_is_new_enough_and_may_have_a_digest() -> None:
    image = next(one.rest for one in stages()[0] if one.rest.startswith("BASE="))
    found = re.fullmatch(r"BASE=python:(\d+)\.(\d+)-slim-\w+(?:@sha256:[0-9a-f]{64})?", image)

    assert found
    assert tuple(map(int, found.groups())) >= (3, 11)
    assert all(one.rest.split()[0] == "${BASE}" for stage in stages()[1:] for one in stage if one.word == "FROM")


def test_logs_are_not_held_back() -> None:
    assert "PYTHONUNBUFFERED=1" in last("ENV").rest.split()


def test_a_user_that_is_not_in_passwd_has_a_home() -> None:
    """kubernetes_asyncio raises RuntimeError at its import where there is none."""
    assert "HOME=/var/lib/palette-sync" in last("ENV").rest.split()


def test_no_variable_of_the_image_is_a_secret() -> None:
    given = " ".join(one.rest for stage in stages() for one in stage if one.word in {"ARG", "ENV", "LABEL"})

    assert not re.search(r"key|secret|password|token", given, re.IGNORECASE)


def copied() -> list[str]:
    """What is copied from the build context."""
    sources = [one.rest.split()[:-1] for stage in stages() for one in stage if one.word == "COPY"]
    return [source.rstrip("/") for line in sources for source in line if not line[0].startswith("--from=")]


def test_the_build_context_is_what_is_copied_and_no_more() -> None:
    lines = [one for one in (ROOT / ".dockerignore").read_text().splitlines() if one and not one.startswith("#")]
    allowed = {one.removeprefix("!") for one in lines if one.startswith("!")}

    assert lines[0] == "*"
    assert {path for one in allowed for path in [one.split("/")[0]]} == set(copied())
    assert all((ROOT / one).exists() for one in allowed)


@pytest.mark.timeout(120)
def test_what_is_copied_makes_a_whole_wheel(tmp_path: Path) -> None:
    """Scripts and schemas too, and without the network: what builds it is locked."""
    source = tmp_path / "src"
    source.mkdir()
    for name in copied():
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "wheel"]
    subprocess.run(
        [*pip, "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", tmp_path, source],
        check=True,
        capture_output=True,
        timeout=100,
    )

    with zipfile.ZipFile(next(tmp_path.glob("palette_sync-*.whl"))) as wheel:
        packed = {name for name in wheel.namelist() if name.startswith("palette_sync/")}
        metadata = {Path(name).name: name for name in wheel.namelist()}
        scripts = wheel.read(metadata["entry_points.txt"]).decode()
    daemon = source / "daemon"
    example = {"palette_sync/config/example.toml"}  # from the root of the repository
    assert packed == {str(one.relative_to(daemon)) for one in daemon.rglob("*") if one.is_file()} | example
    assert "palette-sync = palette_sync.cli.main:main" in scripts
    assert "LICENSE" in metadata

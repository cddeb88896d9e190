"""`deploy/pin-images.sh` writes digests behind the tags, and replaces those of before."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from deploy.places import DEPLOY

FIRST, SECOND = "a" * 64, "b" * 64
FAKE = """#!/bin/sh
echo "$@" >> "$CALLS"
echo "sha256:$DIGEST"
"""


def pinned(tree: Path, digest: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": f"{tree / 'bin'}:{os.environ['PATH']}", "CALLS": str(tree / "calls"), "DIGEST": digest}
    script = tree / "deploy" / "pin-images.sh"
    return subprocess.run([script], env=environment, capture_output=True, text=True, timeout=30, check=False)


def tree_of(folder: Path) -> Path:
    (folder / "deploy").mkdir()
    (folder / "bin").mkdir()
    shutil.copy(DEPLOY / "pin-images.sh", folder / "deploy")
    for name in ("deploy/Dockerfile", "docker-compose.yml"):
        # As before the first time: a release is made of pinned ones.
        (folder / name).write_text(re.sub(r"@sha256:[0-9a-f]{64}", "", (DEPLOY.parent / name).read_text()))
    docker = folder / "bin" / "docker"
    docker.write_text(FAKE)
    docker.chmod(0o755)
    return folder


def test_images_are_pinned_and_the_digests_renewed(tmp_path: Path) -> None:
    tree = tree_of(tmp_path)
    before = (tree / "docker-compose.yml").read_text()

    for digest in (FIRST, SECOND):
        done = pinned(tree, digest)
        assert done.returncode == 0, done.stderr
        dockerfile, compose = (tree / "deploy" / "Dockerfile").read_text(), (tree / "docker-compose.yml").read_text()
        (base,) = [line for line in dockerfile.splitlines() if line.startswith("ARG BASE=")]
        assert base.endswith(f"-bookworm@sha256:{digest}")
        assert compose == before.replace("valkey:9.1", f"valkey:9.1@sha256:{digest}")
        assert "image: palette-sync\n" in compose, "our own image has no registry"
    assert "valkey/valkey:9.1" in (tree / "calls").read_text()


def test_a_registry_that_gives_no_digest_changes_nothing(tmp_path: Path) -> None:
    tree = tree_of(tmp_path)
    (tree / "bin" / "docker").write_text("#!/bin/sh\necho none\n")
    before = (tree / "deploy" / "Dockerfile").read_text()

    done = pinned(tree, FIRST)

    assert done.returncode == 1
    assert "names no digest" in done.stderr
    assert (tree / "deploy" / "Dockerfile").read_text() == before

"""What docs/install.md lets people type does what it says; deploy/README.md names what is there."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from deploy.places import DEPLOY, ROOT
from deploy.users_server import READER, WRITER, serving
from palette_sync.store.redis import Store

if TYPE_CHECKING:
    from pathlib import Path

    from palette_sync.store.seal import SealKeys

README = (DEPLOY / "README.md").read_text()
INSTALL = (ROOT / "docs/install.md").read_text()


def commands(heading: str) -> list[str]:
    """The lines of the first console block below a heading, without their prompt."""
    section = INSTALL.split(f"\n## {heading}\n", 1)[1]
    block = section.split("```console\n", 1)[1].split("```", 1)[0]
    return re.findall(r"^[$#] (.+)$", block, re.MULTILINE)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is missing: apt-get install openssl")
def test_the_users_are_made_as_it_says(tmp_path: Path, seal_keys: SealKeys) -> None:
    (tmp_path / "deploy").symlink_to(DEPLOY)
    script = "\n".join(["set -eu", *commands("Redis users"), 'printf "%s\\n" "$writer" "$reader"'])

    ran = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=30, check=True)

    passwords = dict(zip((WRITER, READER), ran.stdout.split(), strict=True))
    with serving((tmp_path / "users.acl").read_text()) as socket:

        async def instances(url: str) -> set[str]:
            async with Store.open(url, prefix="palette-sync", sealer=seal_keys) as store:
                return await store.instances()

        for user, password in passwords.items():
            assert asyncio.run(instances(f"unix://{user}:{password}@{socket}")) == set()


def test_every_file_it_names_is_there() -> None:
    for name in re.findall(r"^\| `([^|]+)` \|", README, re.MULTILINE):
        for one in re.split(r"`, `", name):
            assert (DEPLOY / one).exists(), one
    for name in set(re.findall(r"deploy/[\w./-]+\w", README + INSTALL)) - {"deploy/palette-sync"}:
        assert (ROOT / name).exists(), name

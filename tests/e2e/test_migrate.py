"""docs/migrate.md, command by command, from a world that the in-process plugin left behind."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from e2e.command import COMMAND, environment
from integration.test_pass_access import put_what_the_plugin_leaves

if TYPE_CHECKING:
    from collections.abc import Callable

    from e2e.conftest import World

PAGE = (Path(__file__).parents[2] / "docs" / "migrate.md").read_text()
NAMESPACE, SECRET = "backstage-system", "backstage-sa-token"
OURS = "app.kubernetes.io/managed-by"

APP_CONFIG = """\
app: { title: Example }
spectrocloud:
  annotationPrefix: example.com
  environments:
    - url: https://palette.example
      tenant: unused
      apiToken: canary-of-the-lower-file
"""
PRODUCTION = """\
spectrocloud:
  environments:
    - url: ${PALETTE_URL}
      tenant: alpha-org
      apiToken: { $env: PALETTE_TOKEN }
      name: corp
      clusterProvider: { refreshIntervalSeconds: 300 }
"""


def commands(heading: str) -> list[str]:
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    blocks = "".join(re.findall(r"```console\n(.*?)```", section, re.DOTALL))
    return re.findall(r"^\$ (.+)$", blocks, re.MULTILINE)


def kube_of(world: World, uid: str) -> Any:
    """A cluster of the simulator as `put_what_the_plugin_leaves` uses it."""
    world.control("PATCH", f"/clusters/{uid}", {"fill_delay": 0})

    def put(kind: str, namespace: str | None, name: str, body: dict[str, Any]) -> None:
        world.control("PUT", f"/clusters/{uid}/kube/{kind}/{namespace or '-'}/{name}", body)

    return SimpleNamespace(kube=SimpleNamespace(put=put))


def labels(world: World, uid: str, kind: str, namespace: str, name: str) -> dict[str, str]:
    found = world.control("GET", f"/clusters/{uid}/kube/{kind}/{namespace}/{name}")
    return found["metadata"].get("labels") or {}


@pytest.fixture
def left_behind(world_of: Callable[..., World], tmp_path: Path) -> World:
    world = world_of("--instances", "1", "--projects", "1", "--clusters", "3")
    world.all_by_token()
    for uid in world.clusters():
        put_what_the_plugin_leaves(kube_of(world, uid))
    (tmp_path / "config.toml").rename(tmp_path / "simulated.toml")
    (tmp_path / "seal.keys").unlink()
    return world


def test_a_world_of_the_plugin_migrates_by_the_commands_of_the_page(
    left_behind: World, tmp_path: Path, redis: dict[str, str]
) -> None:
    world, uids = left_behind, left_behind.clusters()
    (tmp_path / "app-config.yaml").write_text(APP_CONFIG)
    (tmp_path / "app-config.production.yaml").write_text(PRODUCTION)
    key = (tmp_path / "alpha.api-key").read_text().strip()
    backstage = {"PALETTE_URL": world.document["instances"][0]["url"], "PALETTE_TOKEN": key}
    simulated = {
        "PALETTE_SYNC_INSTANCES__CORP__CA_FILE": str(tmp_path / "alpha.ca.pem"),
        "PALETTE_SYNC_NETWORK__ALLOW": '["127.0.0.0/8"]',
    }

    def run(command: str, *exports: str) -> str:
        path = f"{COMMAND.parent}{os.pathsep}{os.environ['PATH']}"
        script = "\n".join(["set -eu", *exports, command])
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=tmp_path,
            env={**environment(**redis, **simulated, **backstage), "PATH": path},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    printed = "".join(run(command) for command in commands("1. Write the configuration"))
    config = (tmp_path / "config.toml").read_text()
    for secret in (key, "canary-of-the-lower-file", "PALETTE_TOKEN}"):
        assert secret not in config
    assert key not in printed
    assert "paletteSync:" in printed
    exports = re.findall(r"^export .+$", printed, re.MULTILINE)
    assert sorted(exports) == [
        'export PALETTE_SYNC_INSTANCES__CORP__API_KEY="${PALETTE_TOKEN}"',
        'export PALETTE_SYNC_INSTANCES__CORP__URL="${PALETTE_URL}"',
    ]

    for command in commands("2. Run side by side"):
        printed = run(command, *exports)
    names = {one["name"] for one in world.document["instances"][0]["clusters"]}
    for name in names:
        assert f"corp-{name}" in printed, "cluster names stay the same"
    assert printed.count("LegacyToken") >= len(uids)
    for uid in uids:
        for kind, namespace, name in (
            ("ServiceAccount", NAMESPACE, "backstage-sa"),
            ("Secret", NAMESPACE, SECRET),
            ("ClusterRole", "-", "backstage-read-only"),
            ("ClusterRoleBinding", "-", "backstage-read-only-binding"),
        ):
            assert labels(world, uid, kind, namespace, name)[OURS] == "palette-sync", "it is adopted"
        assert OURS not in labels(world, uid, "Namespace", "-", NAMESPACE)

    shown, deleted = (run(command, *exports) for command in commands("4. Delete the old tokens"))
    assert shown.count("would delete") == deleted.count(f"deleted {SECRET}") == len(uids)
    assert "LegacyToken" not in run("palette-sync clusters --config config.toml", *exports)
    for uid in uids:
        secrets = world.control("GET", f"/clusters/{uid}/kube/Secret")
        assert secrets[NAMESPACE] == [f"{SECRET}-2"]

"""Ten incidents, each shown by `status` on one screen and by the page: what, since when, and what to do."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis

from e2e.command import palette_sync
from e2e.daemon import Daemon, ValkeyProcess, daemon, until
from palette_sync.core.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from e2e.conftest import World

SCREEN = 24  # lines
QUICK = {
    "PALETTE_SYNC_DEFAULTS__REFRESH_INTERVAL": "1s",
    "PALETTE_SYNC_DEFAULTS__VERIFY_INTERVAL": "2s",
    "PALETTE_SYNC_DEFAULTS__TOKEN__SHORTEST": "1s",
}


@dataclass(frozen=True)
class Scene:
    """A world with 12 clusters that have tokens, and a daemon that serves them."""

    world: World
    run: Daemon
    valkey: ValkeyProcess

    def control(self, method: str, path: str, body: Any = None) -> None:
        self.world.control(method, path, body)

    def drop(self, *uids: str) -> None:
        """The API servers of these clusters do not answer any more."""
        for uid in uids:
            self.control("POST", "/faults", {"target": "kube", "kind": "drop", "cluster": uid})


def palette_is_down(scene: Scene) -> None:
    scene.control("POST", "/faults", {"target": "palette", "kind": "status", "status": 503})


def the_key_has_expired(scene: Scene) -> None:
    scene.control("PATCH", "/instances/alpha", {"key_active": False})


def the_key_lost_its_projects(scene: Scene) -> None:
    scene.control("PATCH", "/instances/alpha", {"key_permission": "project", "key_projects": []})


def one_cluster_does_not_answer(scene: Scene) -> None:
    scene.drop(scene.world.clusters()[0])


def half_of_the_clusters_do_not_answer(scene: Scene) -> None:
    scene.drop(*scene.world.clusters()[:6])


def tokens_are_about_to_lapse(scene: Scene) -> None:
    uid = scene.world.clusters()[0]
    path = "/serviceaccounts/.*/token"
    scene.control("PATCH", f"/clusters/{uid}", {"token_cap": 60})
    scene.control("POST", f"/clusters/{uid}/revoke-tokens")
    scene.run.wait_for("token_issued", cluster=uid, count=2)
    scene.control("POST", "/faults", {"target": "kube", "kind": "status", "status": 500, "cluster": uid, "path": path})


def redis_is_lost(scene: Scene) -> None:
    scene.valkey.kill()


def redis_is_wiped(scene: Scene) -> None:
    with Redis.from_url(scene.valkey.url) as client:
        client.flushall()


def many_clusters_vanish(scene: Scene) -> None:
    for uid in scene.world.clusters()[:5]:
        scene.control("DELETE", f"/clusters/{uid}")


def the_configuration_is_broken(scene: Scene) -> None:
    scene.world.config.write_text(scene.world.config.read_text() + "\n[defaults]\nrefresh_intervall = '5m'\n")
    palette_sync("reload", "--config", scene.world.config, PALETTE_SYNC_REDIS__URL=scene.valkey.url)


INCIDENTS: list[tuple[Callable[[Scene], None], Reason, tuple[str, ...], str]] = [
    (palette_is_down, Reason.LISTING_FAILED, ("HTTP 503",), "palette-sync check --instance alpha"),
    (
        the_key_has_expired,
        Reason.LISTING_FAILED,
        ("Palette refuses the API key",),
        "palette-sync check --instance alpha",
    ),
    (
        the_key_lost_its_projects,
        Reason.ACCESS_LOST,
        ("no longer lists 12 clusters", "held"),
        "palette-sync resync --allow-prune --instance alpha",
    ),
    (
        one_cluster_does_not_answer,
        Reason.UNREACHABLE,
        ("1 cluster has a token that lives",),
        "palette-sync show alpha-",
    ),
    (
        half_of_the_clusters_do_not_answer,
        Reason.UNREACHABLE,
        ("6 clusters have a token that lives",),
        "palette-sync clusters --instance alpha --reason Unreachable",
    ),
    (
        tokens_are_about_to_lapse,
        Reason.RENEWAL_FAILING,
        ("the token of 1 cluster is due and cannot be renewed", "lapses at"),
        "palette-sync show alpha-",
    ),
    (redis_is_lost, Reason.STORE_UNAVAILABLE, ("Redis cannot be used",), "palette-sync check"),
    (redis_is_wiped, Reason.STORE_REFILLED, ("Redis had lost what was published",), "palette-sync check"),
    (
        many_clusters_vanish,
        Reason.PRUNE_HELD,
        ("no longer lists 5 clusters", "dropped at"),
        "palette-sync resync --allow-prune --instance alpha",
    ),
    (the_configuration_is_broken, Reason.CONFIG_REJECTED, ("refresh_intervall",), "palette-sync check"),
]


def words(text: str) -> str:
    """The words of a page or of an output."""
    text = re.sub(r"</?(code|time)\b[^>]*>", "", text)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", text)).split())


def plain(text: str) -> str:
    """A reason's text as people see it: without the marks of code."""
    return text.replace("`", "")


@pytest.mark.parametrize(
    ("happens", "reason", "said", "command"), INCIDENTS, ids=[one[0].__name__ for one in INCIDENTS]
)
def test_an_incident_is_shown_by_status_and_by_the_page(
    world_of: Callable[..., World],
    tmp_path: Path,
    happens: Callable[[Scene], None],
    reason: Reason,
    said: tuple[str, ...],
    command: str,
) -> None:
    world = world_of("--instances", "1", "--projects", "2", "--clusters", "12")
    world.all_by_token()
    valkey = ValkeyProcess(tmp_path / "valkey")
    valkey.start()
    try:
        with daemon(world.config, PALETTE_SYNC_REDIS__URL=valkey.url, **QUICK) as run:
            run.wait_for("pass_finished", instance="alpha", access={"ready": 12})
            until(run.idle)
            happens(Scene(world, run, valkey))
            until(
                lambda: any(one["reason"] == reason and said[0] in one["text"] for one in run.status()["problems"]),
                within=120,
            )

            status = palette_sync(
                "status", "--config", world.config, PALETTE_SYNC_HTTP__LISTEN=run.url.removeprefix("http://")
            )
            code, page = run.get("/")
    finally:
        valkey.kill()

    assert status.code == (0 if reason is Reason.STORE_REFILLED else 1), status.err
    assert len(status.out.splitlines()) <= SCREEN, status.out
    assert re.search(rf"{reason} since 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC \(\d+ ?\w+ ago\)", status.out), status.out
    assert f"run: {command}" in status.out
    assert code == 200
    for told in (words(status.out), words(page)):
        for expected in (reason.value, *said, plain(reason.by_itself), plain(reason.remedy), command):
            assert expected in told.replace("`", ""), told

"""Sentinels name another master: the daemon publishes there at once, whether or not the former master answers."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from e2e.daemon import daemon, until
from sentinels import Sentinels

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from e2e.conftest import World
    from sentinels import Server

HEAD = "{palette-sync:alpha}:head"
# Longer than a failover takes, so that the lease is not lost by it.
VARIABLES = {"PALETTE_SYNC_SERVICE__LEASE_TTL": "20s", "PALETTE_SYNC_DEFAULTS__REFRESH_INTERVAL": "1s"}


def head(server: Server) -> dict[bytes, bytes]:
    with closing(server.client()) as client:
        found: dict[bytes, bytes] = client.hgetall(HEAD)
        return found


@pytest.mark.parametrize("ordered", [True, False], ids=["ordered", "killed"])
def test_the_daemon_publishes_on_the_new_master_and_issues_no_token(
    world_of: Callable[..., World],
    tmp_path: Path,
    ordered: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    world = world_of("--instances", "1", "--clusters", "3")
    with Sentinels(tmp_path / "redis") as servers:
        # On an empty Redis a daemon waits for `lease_ttl`, so the first one has a short one.
        redis: dict[str, Any] = {"PALETTE_SYNC_REDIS__URL": servers.url}
        with daemon(world.config, PALETTE_SYNC_SERVICE__LEASE_TTL="1s", **redis) as first:
            first.wait_for("pass_finished", access={"ready": 3})
            assert first.stop() == 0
        issued = world.issued()
        with daemon(world.config, **redis, **VARIABLES) as run:
            run.wait_for("pass_finished")
            before = servers.master()

            new = servers.fail_over() if ordered else servers.kill_master()
            at_switch = head(new)
            until(lambda: head(new)[b"checked_at"] > at_switch[b"checked_at"])

            if ordered:
                with closing(before.client()) as client:
                    assert client.role()[0] == b"master", "it could still be written to"
                run.wait_for("store_moved")
            assert world.issued() == issued
            assert run.stop() == 0

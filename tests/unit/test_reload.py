"""Reloads that several requests ask for at the same time."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from palette_sync.config import ConfigError
from palette_sync.service import reload
from palette_sync.service.configuration import ActiveConfiguration
from palette_sync.service.reload import Reloader, changed_instances, restart_needed
from palette_sync.service.supervisor import Supervisor


async def test_whoever_asks_during_a_reload_shares_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    begun, all_have_asked = threading.Event(), threading.Event()

    def load(_: Path) -> None:
        read.append(len(read) + 1)
        begun.set()
        all_have_asked.wait()
        raise ConfigError([f"reading {read[-1]}"])

    monkeypatch.setattr(reload, "load", load)
    nothing = cast("Any", None)
    configuration = ActiveConfiguration(Path("config.toml"), nothing, loaded_at=datetime(2026, 7, 15, tzinfo=UTC))
    reloader = Reloader(configuration, nothing, Supervisor(nothing, nothing, configuration))
    async with asyncio.TaskGroup() as group:
        first = group.create_task(reloader.reload())
        await asyncio.to_thread(begun.wait)
        others = [group.create_task(reloader.reload()) for _ in range(4)]
        await asyncio.sleep(0)  # they have all asked
        all_have_asked.set()

    assert first.result() == ["reading 1"], "what was read before they asked is not for the others"
    assert [one.result() for one in others] == [["reading 2"]] * 4
    assert await reloader.reload() == ["reading 3"]


def settings(**changes: Any) -> Any:
    tables = {"instances": {"prod": "p", "dev": "d"}, "seal": "s", "service": "v", "redis": "r", "http": "h"}
    return SimpleNamespace(**(tables | changes))


@pytest.mark.parametrize(
    ("changes", "changed"),
    [
        pytest.param({}, set(), id="nothing"),
        pytest.param({"instances": {"prod": "other", "dev": "d"}}, {"prod"}, id="one instance"),
        pytest.param({"instances": {"prod": "p", "new": "n"}}, set(), id="one removed and one added"),
        pytest.param({"seal": "other"}, {"prod", "dev"}, id="seal keys concern every instance"),
        pytest.param({"service": "other"}, {"prod", "dev"}, id="so does the table service"),
        pytest.param({"service": "other", "instances": {"prod": "p"}}, {"prod"}, id="but not a removed one"),
        pytest.param({"redis": "other", "http": "other"}, set(), id="what needs a restart changes no instance"),
    ],
)
def test_which_instances_a_reload_changes(changes: dict[str, Any], changed: set[str]) -> None:
    assert changed_instances(settings(), settings(**changes)) == changed


def test_redis_and_http_need_a_restart() -> None:
    assert restart_needed(settings(), settings(seal="other", service="other", instances={})) == []
    assert restart_needed(settings(), settings(redis="other", http="other")) == ["redis", "http"]

"""Reloads that several requests ask for at the same time."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from palette_sync.config import ConfigError
from palette_sync.service import reload
from palette_sync.service.configuration import ActiveConfiguration
from palette_sync.service.reload import Reloader
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

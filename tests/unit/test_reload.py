"""Reloads that many ask for at once."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any, cast

import pytest

from palette_sync.config import ConfigError
from palette_sync.service import daemon as service
from palette_sync.service.daemon import Service


async def test_whoever_asks_during_a_reload_shares_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    begun, all_have_asked = threading.Event(), threading.Event()

    def load(_: Path) -> None:
        read.append(len(read) + 1)
        begun.set()
        all_have_asked.wait()
        raise ConfigError([f"reading {read[-1]}"])

    monkeypatch.setattr(service, "load", load)
    nothing = cast("Any", None)
    daemon = Service(Path("config.toml"), nothing, notifier=nothing, metrics=nothing)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(daemon.reload())
        await asyncio.to_thread(begun.wait)
        others = [group.create_task(daemon.reload()) for _ in range(4)]
        await asyncio.sleep(0)  # they have all asked
        all_have_asked.set()

    assert first.result() == ["reading 1"], "what was read before they asked is not for the others"
    assert [one.result() for one in others] == [["reading 2"]] * 4
    assert await daemon.reload() == ["reading 3"]

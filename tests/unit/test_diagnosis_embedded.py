"""Commands that only look, with a Redis that no other process reaches."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from palette_sync.assembly.diagnosis import open_diagnosis
from palette_sync.assembly.store import StartError
from palette_sync.config.partial import load_partial

if TYPE_CHECKING:
    from pathlib import Path


def test_an_embedded_server_is_not_reached_and_what_can_be_done_is_named(tmp_path: Path) -> None:
    settings = load_partial(tmp_path / "none.toml", redis_url="embedded://", environ={})

    async def opened() -> None:
        async with open_diagnosis(settings):
            pytest.fail("it opened")

    with pytest.raises(StartError, match="use `palette-sync status`"):
        asyncio.run(opened())

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
from palette_sync.core.prune import FilterReview
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

    assert first.result().problems == ["reading 1"], "what was read before they asked is not for the others"
    assert [one.result().problems for one in others] == [["reading 2"]] * 4
    assert (await reloader.reload()).problems == ["reading 3"]


class _Runners:
    """Reviews every configuration as one that deselects too much."""

    def runtimes(self, shared: Any) -> dict[str, Any]:
        return {}

    def review(self, runtimes: Any) -> dict[str, FilterReview]:
        return {"prod": FilterReview("deselects too much", ["a pattern matches nothing"])}


@pytest.mark.parametrize("allow", [True, False])
async def test_filters_that_deselect_too_much_need_somebody_who_allows_it(
    monkeypatch: pytest.MonkeyPatch, *, allow: bool
) -> None:
    applied: list[object] = []
    monkeypatch.setattr(reload, "load", lambda _: "settings")
    monkeypatch.setattr(reload, "reconfigured", lambda _shared, settings: settings)
    monkeypatch.setattr(Reloader, "_apply", lambda _self, shared, _runtimes: applied.append(shared))
    configuration = ActiveConfiguration(
        Path("config.toml"), cast("Any", None), loaded_at=datetime(2026, 7, 15, tzinfo=UTC)
    )
    monkeypatch.setattr(ActiveConfiguration, "find_orphaned", lambda _self: asyncio.sleep(0))
    runners = cast("Any", _Runners())
    reloader = Reloader(configuration, runners, Supervisor(cast("Any", None), runners, configuration))

    found = await reloader.reload(allow_prune=allow)
    again = await reloader.reload()

    assert found.problems == ([] if allow else ["instances.prod: deselects too much"])
    assert found.notes == ["instances.prod: a pattern matches nothing"]
    assert applied == (["settings"] if allow else [])
    assert again.problems, "a permission counts once"


def settings(**changes: Any) -> Any:
    tables = {
        "instances": {"prod": "p", "dev": "d"},
        "seal": "s",
        "service": "v",
        "redis": "r",
        "http": "h",
        "otel": "o",
    }
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
    assert restart_needed(settings(), settings(redis="r2", http="h2", otel="o2")) == ["redis", "http", "otel"]

"""When the API key expires: looked up with a listing, and logged ahead of time."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from structlog.testing import capture_logs

from integration.runners import running, runtime
from integration.store_builders import until
from palette_sync.simulator import Fault

if TYPE_CHECKING:
    from integration.runners import Running
    from integration.stage import Stage


def keys(logs: list[dict[str, Any]]) -> list[tuple[str, Any]]:
    return [
        (line["event"], line.get("days", line["reason"])) for line in logs if str(line["event"]).startswith("api_key")
    ]


async def look_at_key(one: Running) -> None:
    """Requests are taken in turn, so once a later resync is answered, the key was looked up."""
    one.mailbox.check_key()
    await until(lambda: not one.mailbox.wanted.is_set() and one.status.busy_since is None)


async def test_the_expiry_of_the_api_key_is_logged_once_14_7_and_1_days_ahead(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=1, oidc_share=0.0)
    palette = stage.simulator.world.instances["alpha"]
    palette.key_expires_at = datetime.fromtimestamp(int(stage.clock().timestamp()), stage.clock().tzinfo)
    palette.key_expires_at += timedelta(days=15, hours=1)
    async with running(stage) as one:
        logged: list[int] = []
        for _ in range(17):
            with capture_logs() as logs:
                await look_at_key(one)
                await look_at_key(one)
            logged += [days for _, days in keys(logs)]
            stage.advance(days=1)

        assert logged == [13, 6, 0], "whole days that are left, at the first look within 14, 7 and 1 days"
        assert one.status.key_expires_at == palette.key_expires_at
        assert one.watcher.reports == [], "looking at the key is no pass"

        palette.key_expires_at += timedelta(days=400)
        with capture_logs() as logs:
            await look_at_key(one)
        assert keys(logs) == []
        assert one.status.key_expires_at == palette.key_expires_at

        await one.list()
        status = (await stage.state()).status
        assert status["api_key"]["name"] == palette.api_key_name  # type: ignore[index]


async def test_a_key_that_never_ends_warns_of_nothing(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=1, oidc_share=0.0)
    body = {"items": [{"metadata": {"name": "palette-sync-alpha", "uid": "k1"}, "spec": {"user": {}}}]}
    stage.simulator.faults.add(
        Fault(target="palette", kind="status", status=200, path="apiKeys", body=json.dumps(body))
    )
    async with running(stage) as one:
        with capture_logs() as logs:
            await look_at_key(one)

        assert keys(logs) == []
        assert (one.status.key_name, one.status.key_expires_at) == ("palette-sync-alpha", None)


async def test_a_key_without_a_configured_name_is_not_looked_up(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=1, oidc_share=0.0)
    async with running(stage, runtime(stage, api_key_name=None)) as one:
        await one.list()
        with capture_logs() as logs:
            await look_at_key(one)

        assert keys(logs) == []
        assert stage.simulator.requests.count("palette", path_regex="apiKeys") == 0
        assert "api_key" not in (await stage.state()).status


async def test_nothing_is_known_of_another_key_that_a_reload_names(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=1, oidc_share=0.0)
    async with running(stage) as one:
        await look_at_key(one)
        assert one.status.key_expires_at is not None
        stage.simulator.faults.add(Fault(target="palette", kind="status", status=403, path="apiKeys"))

        one.runner.configure(runtime(stage, api_key_name="another"))
        await one.passes(1)
        await until(lambda: one.status.key_name == "another" and one.status.busy_since is None)

        assert one.status.key_expires_at is None


async def test_a_key_that_palette_does_not_list_is_logged_as_unknown(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=1, oidc_share=0.0)
    async with running(stage, runtime(stage, api_key_name="another")) as one:
        with capture_logs() as logs:
            await look_at_key(one)

        assert keys(logs) == [("api_key_unknown", "Palette lists no key of that name")]
        assert (one.status.key_name, one.status.key_expires_at) == ("another", None)


async def test_while_palette_fails_the_known_expiry_stays(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=1, oidc_share=0.0)
    async with running(stage) as one:
        await look_at_key(one)
        known = one.status.key_expires_at
        assert known is not None
        stage.simulator.faults.add(Fault(target="palette", kind="status", status=403, path="apiKeys"))
        with capture_logs() as logs:
            await look_at_key(one)

        assert [event for event, _ in keys(logs)] == ["api_key_unknown"]
        assert one.status.key_expires_at == known


async def test_a_key_that_could_not_be_looked_up_is_looked_up_with_the_next_listing(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=1, oidc_share=0.0)
    fault = stage.simulator.faults.add(Fault(target="palette", kind="status", status=403, path="apiKeys"))
    async with running(stage) as one:
        await one.list()  # the first pass of a runner always lists
        await look_at_key(one)
        assert one.status.key_expires_at is None
        stage.simulator.faults.remove(fault)

        await one.nudge()
        assert one.status.key_expires_at is None
        await one.list()
        await until(lambda: one.status.key_expires_at is not None)
        await one.list()
        await until(lambda: one.status.busy_since is None)

        assert stage.simulator.requests.count("palette", path_regex="apiKeys") == 2

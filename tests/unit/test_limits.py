"""Palette's rate limits: which bucket a path counts against, bursts, fairness, and that waiting is cheap."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from palette_sync.palette.limits import DOCUMENTED_RATES, HostLimits, Limits, Rate

if TYPE_CHECKING:
    import looptime

SEARCH = "/v1/dashboard/spectroclusters/search"
ASSETS = "/v1/spectroclusters/{}/assets/adminKubeconfig"


@pytest.mark.parametrize(
    ("path", "per_second", "burst"),
    [
        (SEARCH, 10, 50),
        ("/v1/users/info", 10, 50),
        ("/v1/spectroclusters/a/oidc", 50, 250),
        ("/v1/spectroclusters/a/assets/kubeconfig", 10, 50),
        ("/v1/events/components", 50, 250),
        ("/v1/auth/user/password/reset", 2, 10),
    ],
)
@pytest.mark.looptime
async def test_a_burst_passes_at_once_and_the_rest_at_the_documented_rate(
    looptime: looptime.LoopTimeProxy, path: str, per_second: float, burst: int
) -> None:
    limits = HostLimits()

    for _ in range(burst):
        await limits.acquire(path)
    at_once = float(looptime)
    for _ in range(20):
        await limits.acquire(path)

    assert at_once == pytest.approx(0, abs=0.01)
    assert float(looptime) == pytest.approx(20 / per_second, abs=0.05)


@pytest.mark.looptime
async def test_a_rest_fills_the_bucket_again(looptime: looptime.LoopTimeProxy) -> None:
    limits = HostLimits()
    for _ in range(50):
        await limits.acquire(SEARCH)
    await asyncio.sleep(5)

    for _ in range(50):
        await limits.acquire(SEARCH)

    assert float(looptime) == pytest.approx(5, abs=0.05)


@pytest.mark.looptime
async def test_buckets_do_not_wait_for_each_other(looptime: looptime.LoopTimeProxy) -> None:
    limits = HostLimits()
    for _ in range(50):
        await limits.acquire(SEARCH)

    await limits.acquire("/v1/users/info")
    await limits.acquire(ASSETS.format("a"))
    await limits.acquire("/v1/spectroclusters/a/oidc")

    assert float(looptime) == pytest.approx(0, abs=0.01)


@pytest.mark.looptime
async def test_instances_on_one_host_share_their_buckets_and_other_hosts_do_not(
    looptime: looptime.LoopTimeProxy,
) -> None:
    limits = Limits()
    for _ in range(50):
        await limits.of("api.example.com").acquire(SEARCH)

    await limits.of("other.example.com").acquire(SEARCH)
    elsewhere = float(looptime)
    await limits.of("API.example.com").acquire(SEARCH)

    assert elsewhere == pytest.approx(0, abs=0.01)
    assert float(looptime) == pytest.approx(0.1, abs=0.05)
    assert limits.of("api.example.com") is limits.of("API.EXAMPLE.COM")


@pytest.mark.looptime
async def test_limits_can_be_set_and_switched_off(looptime: looptime.LoopTimeProxy) -> None:
    own = Limits(rates=(Rate(r"/v1/users", 1, 1),)).of("host")
    off = Limits(enabled=False).of("host")

    for _ in range(1000):
        await off.acquire(SEARCH)
        await own.acquire("/not/limited")
    unlimited = float(looptime)
    for _ in range(3):
        await own.acquire("/v1/users/info")

    assert own.rate_of("/not/limited") is None
    assert unlimited == pytest.approx(0, abs=0.01)
    assert float(looptime) == pytest.approx(2, abs=0.05)


@pytest.mark.looptime
async def test_a_thousand_waiters_are_served_in_order_and_newcomers_last(looptime: looptime.LoopTimeProxy) -> None:
    limits = HostLimits()
    served: list[int] = []

    async def one(number: int) -> None:
        await limits.acquire(SEARCH)
        served.append(number)

    async with asyncio.TaskGroup() as group:
        for number in range(1000):
            group.create_task(one(number))
        for number in range(1000, 1020):
            await asyncio.sleep(0.1)
            group.create_task(one(number))

    assert served == list(range(1020))
    assert float(looptime) == pytest.approx((1020 - 50) / 10, abs=0.2)


@pytest.mark.looptime
async def test_a_waiter_that_gives_up_takes_nothing_and_blocks_nobody(looptime: looptime.LoopTimeProxy) -> None:
    limits = HostLimits((Rate("/v1", 1, 1),))
    await limits.acquire("/v1")
    first = asyncio.create_task(limits.acquire("/v1"))
    second = asyncio.create_task(limits.acquire("/v1"))
    third = asyncio.create_task(limits.acquire("/v1"))
    await asyncio.sleep(0.1)

    first.cancel()
    second.cancel()
    await third

    assert float(looptime) == pytest.approx(1, abs=0.05)


@pytest.mark.looptime
async def test_a_thousand_waiters_cost_little_while_they_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = HostLimits((Rate("/v1", 8, 1),))  # each 125 ms, which is a whole number of the simulated clock's steps
    tasks = [asyncio.create_task(limits.acquire("/v1")) for _ in range(1000)]
    await asyncio.sleep(0.1)
    loop, woken = asyncio.get_running_loop(), [0]
    call_at = loop.call_at

    def counted(*given: Any, **named: Any) -> Any:
        woken[0] += 1
        return call_at(*given, **named)

    monkeypatch.setattr(loop, "call_at", counted)
    await asyncio.sleep(0.5)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)

    assert 0 < woken[0] < 20, "four were served; who waits behind them sets no timer of its own"


def test_every_path_has_a_documented_rate() -> None:
    assert HostLimits(DOCUMENTED_RATES).rate_of("/anything") is not None


@pytest.mark.parametrize(
    ("path", "bucket"),
    [
        (SEARCH, "/v1/dashboard"),
        ("/v1/dashboard/projects", "/v1/dashboard"),
        ("/v1/users/info", "/v1/users"),
        ("/v1/apiKeys", "/v1/apiKeys"),
        ("/v1/projects", "/v1/projects"),
        (ASSETS.format("a1"), "/v1/spectroclusters/:uid/assets"),
        (ASSETS.format("b2"), "/v1/spectroclusters/:uid/assets"),
        ("/v1/spectroclusters/a1/assets", "/v1/spectroclusters/:uid/assets"),
        ("/v1/spectroclusters/a1/download", "/v1/spectroclusters/:uid/download"),
        ("/v1/spectroclusters/a1/profiles/x", "/v1/spectroclusters/:uid/profiles"),
        ("/v1/spectroclusters/a1/oidc", "/v1/spectroclusters"),
        ("/v1/spectroclusters/assets", "/v1/spectroclusters"),
        ("/v1/spectroclusters/a1/assetsx", "/v1/spectroclusters"),
        ("/v1/spectroclustersx", "/v1/spectroclustersx"),
        ("/v1/events/components/x", "/v1/events/components"),
        ("/v1/events/other", "/v1/events"),
        ("/v1/cloudconfigs/x", "/v1/cloudconfigs"),
        ("/v1/clusterprofiles", "/v1/clusterprofiles"),
        ("/v1/auth/user/password/reset", "/v1/auth/user/password/reset"),
        ("/v1/auth/org", "/v1/auth"),
        ("/elsewhere", ""),
    ],
)
def test_a_path_counts_against_its_documented_prefix(path: str, bucket: str) -> None:
    found = HostLimits().rate_of(path)

    assert found is not None
    assert found[0] == bucket

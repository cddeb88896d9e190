"""Nothing that Palette, a cluster or an issuer sends holds the event loop for long.

The measure is the CPU time of the longest single step of the loop, so other processes do not count. It is compared
with the same pass over ordinary answers in the same run. `make explore` runs these tests, because they measure.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings

from hostile import BODIES, KUBECONFIGS, hostile_kubeconfigs
from palette_sync import kube
from palette_sync.core.model import Secret
from palette_sync.kube.kubeconfig import KubeconfigError
from palette_sync.kube.transport import tls_context
from palette_sync.simulator import Fault, kubeconfig_files

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.stage import Stage

LONGEST = 0.1  # seconds beyond the loop's own cost
pytestmark = pytest.mark.explore


class Longest:
    """The longest step of the event loop so far, in seconds of CPU time."""

    seconds = 0.0


@contextmanager
def longest_step() -> Iterator[Longest]:
    longest, run = Longest(), asyncio.events.Handle._run

    def timed(self: Any) -> None:
        begun = time.thread_time()
        run(self)
        longest.seconds = max(longest.seconds, time.thread_time() - begun)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio.events.Handle, "_run", timed)
        yield longest


async def cost_of(stage: Stage) -> float:
    with longest_step() as longest:
        await stage.run(resync=True)
    return longest.seconds


async def one(stage_of: Any, oidc_share: float = 0.0) -> tuple[Stage, float]:
    """A stage with one cluster, and the loop's own cost: two passes over ordinary answers."""
    stage: Stage = await stage_of(projects=1, clusters=1, oidc_share=oidc_share, tenant_scoped=0)
    return stage, max(await cost_of(stage), await cost_of(stage))


@pytest.mark.parametrize("name", sorted(KUBECONFIGS))
async def test_no_kubeconfig_holds_the_loop(stage_of: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stage, own = await one(stage_of)
    monkeypatch.setattr(kubeconfig_files, "admin_kubeconfig", lambda _cluster: KUBECONFIGS[name])
    for cluster in stage.simulator.world.clusters:
        stage.simulator.world.shut_api_server(cluster)

    assert await cost_of(stage) - own < LONGEST


@pytest.mark.parametrize("target", ["kube", "palette", "issuer"])
@pytest.mark.parametrize("name", sorted(BODIES))
async def test_no_body_holds_the_loop(stage_of: Any, target: Any, name: str) -> None:
    stage, own = await one(stage_of, oidc_share=1.0 if target == "issuer" else 0.0)
    stage.advance(days=1)
    stage.simulator.faults.add(Fault(target=target, kind="status", status=200, body=BODIES[name]))

    assert await cost_of(stage) - own < LONGEST


@given(text=hostile_kubeconfigs())
@settings(suppress_health_check=list(HealthCheck))
def test_no_generated_kubeconfig_holds_the_loop_in_what_is_not_parsed_in_a_thread(text: str) -> None:
    try:
        admin = kube.parse(Secret(text))
    except KubeconfigError:
        return
    begun = time.thread_time()
    with suppress(KubeconfigError):
        tls_context(admin.server, None)
    assert time.thread_time() - begun < LONGEST


def test_the_bodies_are_valid_json_so_that_they_are_read() -> None:
    for body in BODIES.values():
        orjson.loads(body)

"""A leader that is cut off from Palette and the clusters, but not from Redis."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from e2e.daemon import daemon, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from e2e.conftest import World
    from e2e.daemon import Daemon

VARIABLES = {
    "PALETTE_SYNC_SERVICE__STEP_BACK": "2s",
    "PALETTE_SYNC_DEFAULTS__REFRESH_INTERVAL": "1s",
    "PALETTE_SYNC_SERVICE__LEASE_TTL": "3s",
}
# While the file exists, nothing but Redis can be reached, which does not go through aiohttp. Requests are not repeated,
# and an instance may move after two seconds.
CUT = """
import aiohttp, datetime, pathlib
from palette_sync.core import leadership
from palette_sync.palette.client import PaletteClient, Timing
PaletteClient.__init__.__kwdefaults__["timing"] = Timing(attempts=1)
leadership.MOVE_PAUSE = datetime.timedelta(seconds=2)
connect = aiohttp.TCPConnector.connect
async def cut(self, *arguments, **options):
    if pathlib.Path({flag!r}).exists():
        raise aiohttp.ClientConnectionError("cut off")
    return await connect(self, *arguments, **options)
aiohttp.TCPConnector.connect = cut
"""


class Process:
    def __init__(self, run: Daemon, flag: Path) -> None:
        self.run = run
        self._flag = flag

    @property
    def leads(self) -> bool:
        return self.run.status("alpha").get("state") == "leading"

    @property
    def ready(self) -> tuple[int, str]:
        return self.run.get("/readyz")

    def cut(self) -> None:
        self._flag.touch()

    def mend(self) -> None:
        self._flag.unlink()


def settled(processes: list[Process]) -> bool:
    """Whether the process leads that all of them want to lead."""
    standing_by = [one for one in processes if not one.leads]
    details = [one.run.status("alpha").get("detail", "") for one in standing_by]
    return len(standing_by) == len(processes) - 1 and all(one.startswith("AnotherLeads") for one in details)


@pytest.fixture
def start(
    world_of: Callable[..., World], redis: dict[str, str], tmp_path: Path
) -> Iterator[Callable[[int], list[Process]]]:
    """Start so many daemons, and return them, the leader first."""
    with ExitStack() as open_ones:

        def made(count: int) -> list[Process]:
            world = world_of("--instances", "1", "--clusters", "2")
            found = []
            for number in range(count):
                flag = tmp_path / f"cut-{number}"
                run = open_ones.enter_context(
                    daemon(world.config, code=CUT.format(flag=str(flag)), **redis, **VARIABLES)
                )
                run.wait_for("daemon_ready")
                found.append(Process(run, flag))
            until(lambda: settled(found))
            leader = next(one for one in found if one.leads)
            until(lambda: leader.run.status("alpha").get("access") == {"ready": 2})
            return sorted(found, key=lambda one: not one.leads)

        yield made


def test_a_leader_that_is_cut_off_hands_over_to_a_process_that_palette_answers(
    start: Callable[[int], list[Process]],
) -> None:
    leader, other = start(2)

    leader.cut()
    leader.run.wait_for("stepped_back")
    until(lambda: other.leads)
    other.run.wait_for("pass_finished")

    assert other.ready[0] == 200
    code, text = leader.ready
    assert (code, text) == (503, "alpha: Palette does not answer this process, so another one leads\n")
    assert leader.run.get("/livez")[0] == 200, "nothing is restarted"
    status = leader.run.status("alpha")
    assert status["state"] == "standby"
    assert status["detail"].startswith("SteppedBack: ")
    assert "CutOff" in [one["reason"] for one in leader.run.status()["problems"]]
    # It does not take the instance back while Palette does not answer it, although its rest of 2 seconds ends.
    other.run.wait_for("pass_finished", count=8)
    assert not leader.leads

    leader.mend()
    until(lambda: leader.ready == (200, "ok\n"))
    assert sum(one.leads for one in (leader, other)) <= 1


def test_a_leader_alone_goes_on_leading_and_shows_that_it_is_cut_off(start: Callable[[int], list[Process]]) -> None:
    (leader,) = start(1)

    leader.cut()
    until(lambda: leader.ready[0] == 503)

    assert leader.ready[1] == "alpha: Palette does not answer this process, and no other process can take over\n"
    assert leader.run.get("/livez")[0] == 200
    assert leader.leads
    assert leader.run.status()["ok"] is False
    leader.mend()
    until(lambda: leader.ready == (200, "ok\n"))
    assert leader.leads
    assert leader.run.events("stepped_back") == []


def test_of_two_processes_that_are_cut_off_the_leader_goes_on(start: Callable[[int], list[Process]]) -> None:
    leader, other = start(2)
    moves = [len(one.run.events("handed_over")) for one in (leader, other)]

    leader.cut()
    other.cut()
    until(lambda: leader.ready[0] == 503)
    failed = len(leader.run.events("pass_finished"))
    leader.run.wait_for("pass_finished", count=failed + 3)

    assert leader.leads
    assert not other.leads
    assert [len(one.run.events("handed_over")) for one in (leader, other)] == moves
    assert leader.run.events("stepped_back") == other.run.events("stepped_back") == []

"""What signals do to the daemon, shown on the installed command."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from e2e.command import environment, palette_sync
from e2e.daemon import daemon, until
from e2e.published import reader
from integration.ports import reserved_port
from integration.store_builders import raw_client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from e2e.conftest import World

SLOW = "120ms"
# Longer than any test, so that a daemon is ended by what the test does, and not by a timeout.
PATIENT = {"PALETTE_SYNC_SERVICE__GRACE": "5m", "PALETTE_SYNC_SERVICE__DEADLINE": "10m"}


def test_five_resyncs_during_a_pass_are_one_more_pass(world_of: Callable[..., World], redis: dict[str, str]) -> None:
    world = world_of("--instances", "1", "--clusters", "6")
    slow = {"target": "palette", "kind": "latency", "path": "spectroclusters/search", "seconds": 15, "times": 1}
    with daemon(world.config, **redis) as run:
        run.wait_for("pass_finished", action="list")
        world.control("POST", "/faults", slow)
        run.send(signal.SIGUSR1)
        until(lambda: world.control("GET", "/faults")[0]["hits"])
        for number in range(5):
            run.send(signal.SIGUSR1)
            run.wait_for("signal_received", action="resync", count=2 + number)
        assert "busy_since" in run.status("alpha"), "the pass was too short for this test"
        assert len(run.events("pass_finished", action="list")) == 1

        run.wait_for("pass_finished", action="list", count=3)

        until(run.idle)
        run.send(signal.SIGUSR2)
        left = run.wait_for("state_dump_instance", instance="alpha")
        assert not left["mailbox"]["resync"]
        assert [one["due"] for one in run.events("pass_finished", action="list")] == [6, 6, 6]
        assert run.stop() == 0


async def test_a_drain_finishes_what_was_admitted_and_loses_nothing(
    world_of: Callable[..., World], redis: dict[str, str]
) -> None:
    world = world_of("--instances", "1", "--clusters", "40", "--latency", SLOW)
    world.all_by_token()
    patient = {**PATIENT, "PALETTE_SYNC_DEFAULTS__CLUSTER_TIMEOUT": "5m"}
    slow = {**redis, **patient, "PALETTE_SYNC_SERVICE__CONCURRENCY": "4"}
    with daemon(world.config, **slow) as run:
        run.wait_for("token_issued")
        code = run.stop()
        finished = run.wait_for("pass_finished")
        issued = {one["cluster"] for one in run.events("token_issued")}

    assert code == 0
    assert 0 < len(issued) < 40
    assert finished["skipped"] == 40 - len(issued)
    assert {uid for uid, count in world.issued().items() if count} == issued
    assert {uid for uid, count in world.writes().items() if count} == issued, "nothing was left half done"
    async with reader(world.config, **redis) as look:
        state = await look.state()
        assert state.credentials.keys() == issued
        assert await look.refused(state) == []

    world.control("PATCH", "/", {"latency": 0.0})
    written = {uid: count for uid, count in world.writes().items() if uid in issued}
    with daemon(world.config, **redis) as run:
        assert run.wait_for("pass_finished", action="list")["access"] == {"ready": 40}
        assert run.stop() == 0
    assert {uid: count for uid, count in world.writes().items() if uid in issued} == written

    writes, asked = world.writes(), world.requests("kube")
    with daemon(world.config, **redis) as run:
        assert run.wait_for("pass_finished", action="list")["due"] == 0
        assert run.stop() == 0
    assert (world.writes(), world.requests("kube")) == (writes, asked)


def test_a_drain_gives_up_a_listing_that_hangs_at_once(world_of: Callable[..., World], redis: dict[str, str]) -> None:
    world = world_of("--instances", "1", "--clusters", "2")
    begins = "^/v1/users/info"
    world.control("POST", "/faults", {"target": "palette", "kind": "hang", "path": begins})
    # A listing that is not interrupted lasts until the client's deadline, a minute.
    with daemon(world.config, **redis, **PATIENT) as run:
        until(lambda: world.requests("palette", path_regex=begins))
        assert run.stop() == 0
        assert run.events("pass_finished") == []


def test_what_is_late_is_cancelled_after_grace(world_of: Callable[..., World], redis: dict[str, str]) -> None:
    world = world_of("--instances", "1", "--clusters", "6")
    world.all_by_token()
    for uid in world.clusters()[:3]:
        world.control("POST", "/faults", {"target": "kube", "cluster": uid, "kind": "hang"})
    variables = {**redis, "PALETTE_SYNC_SERVICE__GRACE": "1s", "PALETTE_SYNC_DEFAULTS__CLUSTER_TIMEOUT": "60s"}
    with daemon(world.config, **variables) as run:
        until(lambda: len(run.events("token_issued")) == 3)
        assert run.stop() == 0
        assert run.wait_for("pass_finished")["skipped"] == 3


def test_a_second_signal_ends_at_once_with_stacks(world_of: Callable[..., World], redis: dict[str, str]) -> None:
    world = world_of("--instances", "1", "--clusters", "3")
    world.all_by_token()
    world.control("POST", "/faults", {"target": "kube", "kind": "hang"})
    with daemon(world.config, **redis) as run:
        until(lambda: world.requests("kube"))
        run.send(signal.SIGTERM)
        run.wait_for("daemon_stopping")
        run.send(signal.SIGTERM)
        assert run.end() == 1
        assert "daemon_killed" in run.text
        assert re.search(r"task cluster:alpha:.*transport\.py", run.text)


def test_a_loop_that_hangs_is_ended_at_the_deadline_with_stacks(
    world_of: Callable[..., World], redis: dict[str, str]
) -> None:
    world = world_of("--instances", "1", "--clusters", "2")
    hang = (
        "import time\n"
        "from palette_sync.service.runners import Runners\n"
        "Runners.stop_all = lambda self: time.sleep(600)\n"
    )
    variables = {**redis, "PALETTE_SYNC_SERVICE__GRACE": "1s", "PALETTE_SYNC_SERVICE__DEADLINE": "2s"}
    with daemon(world.config, code=hang, **variables) as run:
        run.wait_for("pass_finished")
        assert run.stop() == 1
        assert "Timeout (0:00:02)" in run.text
        assert "_drain" in run.text


def test_a_runner_that_ends_by_a_cancellation_that_nobody_asked_for_ends_the_process(
    world_of: Callable[..., World], redis: dict[str, str]
) -> None:
    """A library may raise it for a future of its own; a daemon without a runner must not look alive."""
    world = world_of("--instances", "2", "--clusters", "4")
    stray = (
        "import asyncio\n"
        "from palette_sync.runner import instance\n"
        "run_pass = instance.run_pass\n"
        "async def stray(ports, **kwargs):\n"
        "    if ports.policy.instance == 'alpha': raise asyncio.CancelledError\n"
        "    return await run_pass(ports, **kwargs)\n"
        "instance.run_pass = stray\n"
    )
    with daemon(world.config, code=stray, **redis) as run:
        assert run.end() == 1
        assert "CancelledError" in str(run.wait_for("daemon_crashed"))


def test_an_exception_in_a_runner_ends_the_process_with_a_stack(
    world_of: Callable[..., World], redis: dict[str, str]
) -> None:
    world = world_of("--instances", "2", "--clusters", "4")
    bug = (
        "from palette_sync.runner import Runner\n"
        "finished = Runner._finished\n"
        "async def broken(self, *args, **kwargs):\n"
        "    await finished(self, *args, **kwargs)\n"
        "    if self.instance == 'alpha': self._hold = None\n"
        "async def rest(self, seconds): raise RuntimeError('a bug')\n"
        "Runner._finished, Runner._rest = broken, rest\n"
        "from palette_sync.store.lease import Lease\n"
        "def check(self): raise __import__('palette_sync.store.errors', fromlist=['x']).LeaseLost('gone')\n"
        "Lease.check = check\n"
    )
    with daemon(world.config, code=bug, **redis) as run:
        for instance in ("alpha", "bravo"):
            run.wait_for("pass_finished", instance=instance)
        run.send(signal.SIGUSR1)
        assert run.end() == 1
        crash = run.wait_for("daemon_crashed")
        assert crash["exception"][0]["exc_type"] == "RuntimeError"
        assert any(frame["name"] == "rest" for frame in crash["exception"][0]["frames"])


def test_an_instance_whose_clusters_and_palette_hang_delays_no_other(
    world_of: Callable[..., World], redis: dict[str, str]
) -> None:
    world = world_of("--instances", "3", "--projects", "3", "--clusters", "24")
    world.all_by_token()
    hanging = {one["name"]: one for one in world.document["instances"]}
    for cluster in hanging["alpha"]["clusters"]:
        world.control("POST", "/faults", {"target": "kube", "cluster": cluster["uid"], "kind": "hang"})
    world.control("POST", "/faults", {"target": "palette", "instance": "bravo", "kind": "hang"})
    few = {**redis, "PALETTE_SYNC_SERVICE__CONCURRENCY": "3", "PALETTE_SYNC_DEFAULTS__CLUSTER_TIMEOUT": "10m"}
    with daemon(world.config, **few) as run:
        run.wait_for("pass_finished", instance="charlie", access={"ready": 8})
        until(lambda: world.requests("kube", instance="alpha"))
        until(lambda: world.requests("palette", instance="bravo"))
        run.send(signal.SIGUSR1)  # again, now that the others hang: the first passes have no fixed order
        run.wait_for("pass_finished", instance="charlie", access={"ready": 8}, count=2)
        assert "busy_since" in run.status("alpha")
        assert "busy_since" in run.status("bravo")
        for_all = {f'palette_instance="{name}"' for name in hanging}
        assert run.metric("palette_sync_pass_attempt_timestamp_seconds").keys() == for_all, "also of those that hang"
        assert run.metric("palette_sync_pass_success_timestamp_seconds").keys() == {'palette_instance="charlie"'}
        requests = run.metric("palette_sync_kube_requests_total")
        token = 'api="create_namespaced_service_account_token",outcome="ok",palette_instance='
        assert {label: count for label, count in requests.items() if label.startswith(token)} == {
            f'{token}"charlie"': 8.0
        }


def test_an_exception_in_a_pass_does_not_end_the_daemon(world_of: Callable[..., World], redis: dict[str, str]) -> None:
    world = world_of("--instances", "2", "--clusters", "4")
    bug = (
        "import palette_sync.runner.instance as instance\n"
        "original = instance.run_pass\n"
        "instance.RETRY_PAUSES = (600.0,)\n"  # so that it happens once
        "async def run_pass(ports, **kwargs):\n"
        "    if ports.policy.instance == 'alpha': raise ValueError('a bug')\n"
        "    return await original(ports, **kwargs)\n"
        "instance.run_pass = run_pass\n"
    )
    with daemon(world.config, code=bug, **redis) as run:
        run.wait_for("pass_failed", instance="alpha")
        run.wait_for("pass_finished", instance="bravo")
        until(lambda: "ValueError" in run.status("alpha").get("error", ""))
        errors = run.metric("palette_sync_unexpected_errors_total")
        assert errors == {'palette_instance="alpha"': 1.0, 'palette_instance="bravo"': 0.0}
        assert run.get("/livez")[0] == 200
        assert run.stop() == 0


def test_reload_keeps_what_runs_when_the_file_is_broken_and_adds_an_instance_when_it_is_good(
    world_of: Callable[..., World], redis: dict[str, str]
) -> None:
    world = world_of("--instances", "2", "--clusters", "8")
    whole = world.config.read_text()
    start, end = whole.index("[instances.bravo]"), whole.index("[redis]")
    world.config.write_text(whole[:start] + whole[end:])
    with daemon(world.config, supervised=True, **redis) as run:
        run.wait_for("pass_finished", instance="alpha")
        run.wait_for("daemon_ready")

        world.config.write_text(whole.replace("[instances.bravo]", "[instances.bravo]\nrefresh_intervall = 5"))
        run.send(signal.SIGHUP)
        rejected = run.wait_for("config_rejected")
        assert "did you mean 'refresh_interval'?" in rejected["problems"][0]
        until(lambda: len(run.sent("READY")) == 2)
        assert "the configuration was rejected" in run.sent("STATUS")[-1]
        assert list(run.status()["instances"]) == ["alpha"]
        assert run.status()["config"]["rejected"]

        world.config.write_text(whole)
        run.send(signal.SIGHUP)
        reloaded = run.wait_for("config_reloaded")
        assert (reloaded["added"], reloaded["changed"], reloaded["removed"]) == (["bravo"], [], [])
        run.wait_for("pass_finished", instance="bravo")
        until(lambda: len(run.sent("READY")) == 3)
        assert len(run.sent("RELOADING")) == 2
        assert "rejected" not in run.sent("STATUS")[-1]

        world.config.write_text(whole[:start] + whole[end:])
        run.send(signal.SIGHUP)
        assert run.wait_for("config_reloaded", count=2)["removed"] == ["bravo"]
        until(lambda: run.status()["orphaned"] == ["bravo"])
        until(lambda: 'palette_instance="bravo"' not in run.get("/metrics")[1])
        assert run.stop() == 0

    listed = palette_sync("clusters", "--config", world.config, **redis)
    assert "\nbravo: " in listed.out
    assert "orphaned" in listed.out


def test_an_instance_that_a_reload_leaves_alone_gets_the_concurrency_of_a_removed_one(
    world_of: Callable[..., World], redis: dict[str, str]
) -> None:
    world = world_of("--instances", "2", "--clusters", "40")
    world.all_by_token()
    whole = world.config.read_text()
    variables = {"PALETTE_SYNC_SERVICE__CONCURRENCY": "16", "PALETTE_SYNC_DEFAULTS__CLUSTER_TIMEOUT": "10m"}
    with daemon(world.config, **redis, **variables) as run:
        for name in (
            "alpha",
            "bravo",
        ):  # a pass that bravo has begun would finish and count
            run.wait_for("pass_finished", instance=name, access={"ready": 20})
        world.config.write_text(whole[: whole.index("[instances.bravo]")] + whole[whole.index("[redis]") :])
        run.send(signal.SIGHUP)
        assert run.wait_for("config_reloaded")["changed"] == []

        world.control("POST", "/faults", {"target": "kube", "kind": "hang"})
        before = world.requests("kube")
        run.send(signal.SIGUSR1)
        until(lambda: world.requests("kube") == before + 16)


def test_reload_applies_the_log_level_and_a_changed_instance(
    world_of: Callable[..., World], redis: dict[str, str]
) -> None:
    world = world_of("--instances", "2", "--clusters", "4")
    with daemon(world.config, **redis) as run:
        for name in ("alpha", "bravo"):
            run.wait_for("pass_finished", instance=name)
        changed = world.config.read_text().replace("[instances.alpha]", '[instances.alpha]\ntitle = "Everything"')
        world.config.write_text(changed + '\n[service]\nlog_level = "warning"\n')
        run.send(signal.SIGHUP)

        until(lambda: run.status("alpha")["passes"] > 1)
        logged = len(run.events("pass_finished"))
        run.send(signal.SIGUSR1)
        until(lambda: run.status("alpha")["passes"] > 2)
        assert len(run.events("pass_finished")) == logged
        assert run.stop() == 0

    listed = palette_sync("clusters", "--config", world.config, "--json", "--instance", "alpha", **redis)
    assert all("(Everything: " in one["title"] for one in listed.document["alpha"]["clusters"])


async def test_seal_keys_are_exchanged_by_a_reload_without_touching_a_cluster(
    world_of: Callable[..., World], redis: dict[str, str]
) -> None:
    world = world_of("--instances", "1", "--clusters", "6")
    keys = world.config.parent / "seal.keys"
    old, new = keys.read_text(), palette_sync("seal-key").out
    with daemon(world.config, **redis) as run:
        run.wait_for("pass_finished", access={"ready": 6})
        issued = world.issued()

        keys.write_text(new + old)
        assert palette_sync("reload", "--config", world.config, **redis).code == 0
        run.wait_for("tokens_resealed")
        keys.write_text(new)
        run.send(signal.SIGHUP)
        run.wait_for("pass_finished", count=3)

        async with reader(world.config, **redis) as look:
            state = await look.state()
            assert state.trusted
            assert await look.refused(state) == []
        assert run.stop() == 0
    assert world.issued() == issued


async def test_a_reload_makes_no_daemon_ready_that_is_not(
    world_of: Callable[..., World], redis: dict[str, str]
) -> None:
    world = world_of("--instances", "1", "--clusters", "1")
    url, prefix = redis["PALETTE_SYNC_REDIS__URL"], redis["PALETTE_SYNC_REDIS__PREFIX"]
    async with raw_client(url) as raw:
        await raw.set(f"{{{prefix}:alpha}}:head", "somebody else's")
        with daemon(world.config, supervised=True, **redis) as run:
            until(lambda: run.status("alpha").get("state") == "storeless")
            for count in (1, 2):  # the second one begins when the first has ended
                run.send(signal.SIGHUP)
                run.wait_for("config_reloaded", count=count)

            assert run.sent("READY") == []
            await raw.delete(f"{{{prefix}:alpha}}:head")
            run.wait_for("daemon_ready")
            until(lambda: run.sent("READY") == ["1"])
            assert run.stop() == 0


def blocked(pid: int) -> int:
    """The mask of blocked signals."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"SigBlk:\s*([0-9a-f]+)", text)[0], 16)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="signal masks are read from /proc, which is Linux's")
def test_early_signals_are_kept_and_children_start_unmasked(world_of: Callable[..., World], tmp_path: Path) -> None:
    world = world_of("--instances", "1", "--clusters", "2")
    kept = {signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2}
    mask = sum(1 << (number - 1) for number in kept)
    embedded = {"PALETTE_SYNC_REDIS__URL": f"embedded://{tmp_path}/data"}
    assert palette_sync("once", "--config", world.config, **embedded).code == 0
    early = tmp_path / "early"
    early.touch()
    wait = f"import pathlib, time\nwhile pathlib.Path({str(early)!r}).exists(): time.sleep(0.02)\n"
    with daemon(world.config, code=wait, **embedded) as run:
        until(lambda: blocked(run.process.pid) & mask == mask)
        for number in kept:
            run.send(number)
        early.unlink()

        assert run.wait_for("pass_finished")["due"] == 2, "nothing was due but by the resync"
        run.wait_for("config_reloaded")
        run.wait_for("state_dump")
        assert blocked(run.process.pid) & mask == 0
        (child,) = Path(f"/proc/{run.process.pid}/task/{run.process.pid}/children").read_text().split()
        assert blocked(int(child)) & mask == 0
        assert run.stop() == 0
        with pytest.raises(ProcessLookupError):
            os.kill(int(child), 0)


@contextmanager
def full_pipe() -> Iterator[int]:
    """The writing end of a pipe that nobody reads and that takes no more."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, b"-" * 4096)
    os.set_blocking(writing, True)
    try:
        yield writing
    finally:
        os.close(reading)
        os.close(writing)


@contextmanager
def unread(config: Path, code: str = "", **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """`palette-sync run` with a log that nobody reads. `code`: Python that is run before, in the same process."""
    call = f"import sys\nsys.argv = ['palette-sync', 'run', '--config', {str(config)!r}]\n"
    program = f"{call}from palette_sync.cli.main import main\n{code}\nmain()"
    with full_pipe() as pipe:
        process = subprocess.Popen(
            [sys.executable, "-c", program], stdout=pipe, stderr=pipe, env=environment(**variables)
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=10) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def test_a_log_that_nobody_reads_stops_neither_the_work_nor_the_end(
    world_of: Callable[..., World], redis: dict[str, str]
) -> None:
    world = world_of("--instances", "1", "--clusters", "2")
    with reserved_port() as port:
        variables = {**redis, "PALETTE_SYNC_HTTP__LISTEN": f"127.0.0.1:{port}"}
        with unread(world.config, **variables) as process:
            until(lambda: answers(port))
            process.send_signal(signal.SIGTERM)
            assert process.wait(40) == 0


@pytest.mark.parametrize("signals", [1, 2], ids=["the deadline", "a second signal"])
def test_a_drain_that_hangs_is_ended_although_nobody_reads_why(
    world_of: Callable[..., World], redis: dict[str, str], tmp_path: Path, signals: int
) -> None:
    draining = tmp_path / "draining"
    world = world_of("--instances", "1", "--clusters", "2")
    hang = (
        "import asyncio, pathlib, time\n"
        "from palette_sync.service.daemon import Daemon\n"
        f"async def hang(*_):\n    pathlib.Path({str(draining)!r}).touch()\n    await asyncio.sleep(600)\n"
        "def stuck(self, side_tasks, set_deadline):\n    set_deadline(2)\n    time.sleep(600)\n"
        f"Daemon._drain = {'stuck' if signals == 1 else 'hang'}\n"
    )
    with reserved_port() as port:
        variables = {**redis, "PALETTE_SYNC_HTTP__LISTEN": f"127.0.0.1:{port}"}
        with unread(world.config, hang, **variables) as process:
            until(lambda: answers(port))
            process.send_signal(signal.SIGTERM)
            if signals > 1:
                until(draining.exists)
                process.send_signal(signal.SIGTERM)
            assert process.wait(40) == 1

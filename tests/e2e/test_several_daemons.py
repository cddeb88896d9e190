"""Several daemons with one Redis: a reload reaches all of them, and those that do not agree show it."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest

from e2e.command import palette_sync
from e2e.daemon import Daemon, daemon, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from e2e.conftest import World


@pytest.fixture
def redis(redis: dict[str, str]) -> dict[str, str]:
    """With leases that last longer than a busy machine keeps a process waiting."""
    return {**redis, "PALETTE_SYNC_SERVICE__LEASE_TTL": "6s"}


def copy_of(config: Path, name: str) -> Path:
    """The file of another host."""
    other = config.with_name(name)
    other.write_text(config.read_text())
    return other


def add(config: Path, text: str) -> None:
    config.write_text(config.read_text() + text)


def reasons(run: Daemon) -> dict[str, str]:
    """What the status of a daemon reports as wrong, with since when."""
    return {one["reason"]: one.get("since", "") for one in run.status()["problems"]}


def process(run: Daemon) -> dict[str, Any]:
    """What a daemon says of itself among the processes."""
    return next((one for one in run.status()["members"] if one.get("me")), {"leads": None})


def led(document: dict[str, Any]) -> list[str]:
    """What all processes lead together, as a status shows it."""
    return sorted(name for one in document["members"] for name in one["leads"])


def leads(run: Daemon, *names: str) -> Callable[[], bool]:
    return lambda: process(run)["leads"] == list(names)


def knows(run: Daemon, number: int) -> Callable[[], bool]:
    return lambda: len(run.status()["members"]) == number


def test_a_reload_reaches_every_daemon_and_shows_the_answer_of_each(
    world_of: Callable[..., World], redis: dict[str, str]
) -> None:
    world = world_of("--instances", "1", "--clusters", "2")
    other = copy_of(world.config, "other.toml")
    with daemon(world.config, **redis) as first, daemon(other, **redis) as second:
        for run in (first, second):
            run.wait_for("daemon_ready")
            until(knows(run, 2))
        for run in (first, second):
            until(lambda run=run: run.status("alpha").get("complete"))
        ids = {process(run)["id"]: run for run in (first, second)}

        for config in (world.config, other):
            add(config, '\n[service]\ngrace = "20s"\n')
        both = palette_sync("reload", "--config", world.config, "--json", **redis)
        assert both.code == 0, both
        assert {name: one["outcome"] for name, one in both.document.items()} == dict.fromkeys(ids, "reloaded")
        assert process(first)["configuration"] == process(second)["configuration"]
        assert reasons(first) == reasons(second) == {}

        world.config.write_text(world.config.read_text().replace('"20s"', '"21s"'))
        other.write_text(other.read_text().replace('"20s"', '"1h"'))
        one = palette_sync("reload", "--config", world.config, **redis)
        assert one.code == 1
        assert f"{process(first)['id']}: reloaded" in one.out
        assert f"{process(second)['id']}: rejected: " in one.out
        assert "grace must be shorter than deadline" in one.out
        for run in (first, second):
            until(lambda run=run: reasons(run).keys() == {"ConfigRejected", "ConfigDiffers"})
            assert all(reasons(run).values()), "each has a since"
        until(leads(first, "alpha"))
        assert second.metric("palette_sync_config_differs") == {"": 1}
        assert second.metric("palette_sync_config_last_reload_successful") == {"": 0}

        first.send(signal.SIGKILL)
        first.end()
        until(leads(second, "alpha"))
        assert "ConfigDiffers" in reasons(second), "it leads with the old configuration, and says so"

        other.write_text(world.config.read_text())
        assert palette_sync("reload", "--config", other, **redis).code == 0
        assert reasons(second) == {}
        assert second.stop() == 0


def test_sighup_to_one_daemon_reloads_all_and_logs_what_they_answered(
    world_of: Callable[..., World], redis: dict[str, str]
) -> None:
    world = world_of("--instances", "1", "--clusters", "1")
    other = copy_of(world.config, "other.toml")
    with daemon(world.config, **redis) as first, daemon(other, **redis) as second:
        for run in (first, second):
            run.wait_for("daemon_ready")
            until(knows(run, 2))
        add(world.config, '\n[service]\ngrace = "20s"\n')
        add(other, '\n[service]\ngrace = "1h"\n')

        first.send(signal.SIGHUP)

        first.wait_for("config_reloaded")
        second.wait_for("config_rejected")
        answered = first.wait_for("reload_answered")
        assert (answered["level"], answered["member"]) == ("warning", process(second)["id"])
        assert "grace must be shorter" in answered["reason"]
        second.send(signal.SIGHUP)
        assert second.wait_for("reload_answered")["level"] == "info"
        assert len(first.events("config_reloaded")) == 2, "it does not answer its own request"


def test_a_daemon_with_a_newer_file_takes_over_and_a_restart_with_the_old_one_does_not(
    world_of: Callable[..., World], redis: dict[str, str]
) -> None:
    """A rolling update of a ConfigMap, and then a host whose file was forgotten."""
    world = world_of("--instances", "2", "--clusters", "4")
    newer = copy_of(world.config, "newer.toml")
    add(newer, '\n[defaults]\nprune_hold = "30d"\n')
    with daemon(world.config, **redis) as old:
        for name in ("alpha", "bravo"):
            old.wait_for("pass_finished", instance=name, access={"ready": 2})
        issued = world.issued()
        with daemon(newer, **redis) as new:
            until(leads(new, "alpha", "bravo"))
            until(lambda: "ConfigDiffers" in reasons(old))
            assert new.get("/readyz")[0] == old.get("/readyz")[0] == 200
            assert old.stop() == 0

            with daemon(world.config, **redis) as again:
                until(lambda: "ConfigDiffers" in reasons(again))
                again.wait_for("standing_by", instance="bravo")
                assert process(again)["leads"] == []
                until(lambda: "ConfigDiffers" in reasons(new))  # every process shows it
                shown = palette_sync("status", "--from", "redis", "--config", newer, **redis)
                assert shown.code == 1
                assert "has an older configuration than the one that was loaded last" in shown.out
                assert leads(new, "alpha", "bravo")()
                assert again.events("handed_over") == []
                assert new.events("handed_over") == []
                assert again.stop() == 0
            until(lambda: reasons(new) == {})
            assert world.issued() == issued
            assert new.stop() == 0


def test_a_daemon_whose_keys_do_not_verify_what_is_published_does_not_lead(
    world_of: Callable[..., World], redis: dict[str, str]
) -> None:
    world = world_of("--instances", "1", "--clusters", "1")
    keys = world.config.with_name("seal.keys")
    other_keys = world.config.with_name("other.keys")
    other_keys.write_text(keys.read_text())
    other_keys.chmod(0o600)
    other = copy_of(world.config, "other.toml")
    other.write_text(other.read_text().replace(str(keys), str(other_keys)))
    with daemon(other, **redis) as second, daemon(world.config, **redis) as first:
        for run in (first, second):
            run.wait_for("daemon_ready")
            until(knows(run, 2))
        keys.write_text(palette_sync("seal-key", "newer").out + keys.read_text())

        asked = palette_sync("reload", "--config", world.config, "--json", **redis)
        assert asked.code == 0, asked
        until(leads(first, "alpha"))
        until(lambda: reasons(second).keys() == {"ConfigDiffers", "KeysDiffer"})
        assert second.status("alpha")["standing"] == "KeysDiffer"
        assert second.metric("palette_sync_keys_differ") == {'palette_instance="alpha"': 1}

        keys.write_text(keys.read_text().splitlines()[0])
        only = palette_sync("reload", "--config", world.config, "--json", **redis)
        assert only.code == 1, only
        words = {name: (one["ok"], one["text"]) for name, one in only.document.items()}
        assert words[process(first)["id"]] == (True, "reloaded")
        assert "other seal keys" in words[process(second)["id"]][1]
        until(lambda: "KeysDiffer" in reasons(first))
        assert leads(first, "alpha")()

        other_keys.write_text(keys.read_text())
        second.send(signal.SIGHUP)
        until(lambda: reasons(first) == reasons(second) == {})


def test_status_shows_the_processes_from_each_of_them_and_from_redis(
    world_of: Callable[..., World], redis: dict[str, str]
) -> None:
    world = world_of("--instances", "2", "--clusters", "2")
    with daemon(world.config, **redis) as first, daemon(world.config, **redis) as second:
        for run in (first, second):
            run.wait_for("daemon_ready")
            until(knows(run, 2))
        for run in (first, second):
            until(lambda run=run: led(run.status()) == ["alpha", "bravo"])
        ids = [process(run)["id"] for run in (first, second)]

        documents = [run.status() for run in (first, second)]
        stored = palette_sync("status", "--from", "redis", "--json", "--config", world.config, **redis)
        documents.append(stored.document)
        table = palette_sync("status", "--url", second.url, "--config", world.config, **redis)

        for document in documents:
            assert {one["id"] for one in document["members"]} == set(ids)
            assert led(document) == ["alpha", "bravo"]
            assert len({one["configuration"] for one in document["members"]}) == 1
            assert all(one["since"] and one["version"] and not one["draining"] for one in document["members"])
        assert all(name in table.out for name in ids)
        assert first.metric("palette_sync_members") == {"": 2}

        second.stop()
        until(knows(first, 1))


def test_a_daemon_that_ends_in_the_middle_of_a_pass_hands_over_what_is_left_of_it(
    world_of: Callable[..., World], redis: dict[str, str]
) -> None:
    world = world_of("--instances", "1", "--clusters", "12", "--latency", "100ms")
    world.all_by_token()
    slow = {**redis, "PALETTE_SYNC_SERVICE__CONCURRENCY": "2"}
    with daemon(world.config, **slow) as one, daemon(world.config, **slow) as two:
        until(lambda: one.events("token_issued") or two.events("token_issued"))
        first, second = (one, two) if one.events("token_issued") else (two, one)

        assert first.stop() == 0

        second.wait_for("pass_finished", access={"ready": 12})
        done = [len(run.events("token_issued")) for run in (first, second)]
        assert done[0] < 12, "it did not finish the pass"
        assert sum(done) == 12
        assert set(world.issued().values()) == {1}, "nothing is issued twice"
        assert second.stop() == 0

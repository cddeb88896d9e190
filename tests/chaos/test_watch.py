"""The checker of the chaos suite notices each violation, and nothing that is allowed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from chaos.contract_reader import Snapshot
from chaos.process import process_of, shifted
from chaos.watch import Watch, Write, double_names

ONE, TWO = 11, 12  # processes


def snapshot(
    epoch: int,
    version: int,
    *uids: str,
    content: str = "a",
    writer: int = ONE,
    complete: bool = True,
    names: dict[str, str] | None = None,
) -> Snapshot:
    names = names or {}
    records = {uid: {"name": names.get(uid, f"name-{uid}"), "access": {"state": "ready"}} for uid in uids}
    digests = (content, "")
    return Snapshot(epoch, version, f"host:{writer}", complete, digests, records, {}, frozenset())


def watching(*existing: str, **fields: Any) -> tuple[Watch, list[str]]:
    notes: list[str] = []
    return Watch("alpha", set(existing), notes.append, **fields), notes


def test_nothing_is_noted_while_versions_go_up() -> None:
    watch, notes = watching("x", "y")

    for one in (snapshot(1, 1, "x"), snapshot(1, 2, "x", "y"), snapshot(2, 3, "x", "y", writer=TWO)):
        watch.see(one)

    assert notes == []
    assert (watch.versions, watch.order) == (3, (2, 3))


def test_a_number_with_two_contents_is_noted() -> None:
    watch, notes = watching("x")
    watch.see(snapshot(1, 1, "x", content="a"))

    watch.see(snapshot(1, 1, "x", content="b"))

    assert notes == ["alpha: epoch 1 version 1 has two contents"]


def test_a_version_that_was_in_force_between_two_looks_is_compared_too() -> None:
    watch, notes = watching("x")
    watch.see_changes({(1, 1): ("a", ""), (1, 2): ("b", "")})

    watch.see_changes({(1, 1): ("other", "")})

    assert notes == ["alpha: epoch 1 version 1 has two contents"]


def test_a_new_version_below_what_readers_hold_is_noted() -> None:
    watch, notes = watching("x")
    watch.see(snapshot(2, 5, "x"))

    watch.see(snapshot(1, 9, "x", content="b"))

    assert notes == ["alpha: epoch 1 version 9 was published after epoch 2 version 5"]


def test_an_older_version_that_redis_holds_again_is_not_noted() -> None:
    watch, notes = watching("x")
    watch.admit((1, 3), ("kept", ""))
    for version in (1, 2, 4):
        watch.see(snapshot(1, version, "x"))

    watch.see(snapshot(1, 2, "x"))
    watch.see(snapshot(1, 3, "x", content="kept"))

    assert notes == []


def test_redis_is_current_while_it_holds_the_complete_version_that_readers_hold() -> None:
    watch, _ = watching("x")
    assert not watch.current

    found = []
    for one in (snapshot(1, 1, "x", complete=False), snapshot(1, 2, "x"), snapshot(1, 1, "x", complete=False)):
        watch.see(one)
        found.append(watch.current)

    assert found == [False, True, False]


def test_two_writers_of_one_epoch_are_noted() -> None:
    watch, notes = watching("x")
    watch.see(snapshot(1, 1, "x", writer=ONE))

    watch.see(snapshot(1, 2, "x", writer=TWO))

    assert notes == ["alpha: host:11 and host:12 both wrote under epoch 1"]


def test_a_record_that_is_lost_is_noted() -> None:
    watch, notes = watching("x", "y")
    watch.see(snapshot(1, 1, "x", "y"))

    watch.see(snapshot(1, 2, "x"))

    assert notes == ["alpha: epoch 1 version 2 lost name-y, which Palette has"]


def test_a_record_that_is_not_in_an_incomplete_version_is_not_lost() -> None:
    watch, notes = watching("x", "y")
    watch.see(snapshot(1, 1, "x", "y"))

    watch.see(snapshot(1, 2, "x", complete=False))

    assert notes == []


def test_a_record_whose_cluster_is_gone_may_go() -> None:
    watch, notes = watching("x", "y")
    watch.see(snapshot(1, 1, "x", "y"))
    watch.existing.discard("y")

    watch.see(snapshot(1, 2, "x"))

    assert notes == []


def test_a_new_name_of_a_cluster_is_noted() -> None:
    watch, notes = watching("x")
    watch.see(snapshot(1, 1, "x"))

    watch.see(snapshot(2, 1, "x", names={"x": "other"}))

    assert notes == ["alpha: x was published as name-x, then as other"]


def test_a_name_of_two_instances_is_found_whatever_its_case() -> None:
    one, _ = watching("x")
    other, _ = watching("y")
    one.see(snapshot(1, 1, "x", names={"x": "Twin"}))
    other.see(snapshot(1, 1, "y", names={"y": "twin"}))

    assert double_names([one, other]) == ["twin"]


def test_once_nobody_remembers_anything_the_checker_begins_as_a_new_reader() -> None:
    watch, notes = watching("x", "y")
    watch.see(snapshot(2, 5, "x", "y"))
    watch.losing()
    assert watch.lost == (2, 5)

    watch.forget(until=100.0)
    watch.see(snapshot(1, 1, "x", names={"x": "other"}))

    assert notes == []
    assert (watch.lost, watch.forgotten) == (None, 1)


def test_a_loss_is_over_once_redis_holds_as_much_again() -> None:
    watch, _ = watching("x")
    watch.see(snapshot(2, 5, "x"))
    watch.losing()

    watch.see(snapshot(1, 1, "x", content="older"))
    assert watch.lost == (2, 5)
    watch.see(snapshot(3, 1, "x"))
    assert watch.lost is None


def writing(at: float, *, process: int = ONE, cluster: str = "x") -> Write:
    return Write(at, cluster, process, "POST /api/v1/namespaces")


def led_by(watch: Watch, process: int, *, since: float, until: float) -> None:
    watch.see_lease(f"lease of {process}", process, since=since, until=since)
    watch.see_lease(f"lease of {process}", process, since=until, until=until)


def test_a_write_to_a_cluster_by_a_process_that_does_not_lead_is_noted() -> None:
    watch, notes = watching("x")
    led_by(watch, ONE, since=0.0, until=10.0)
    led_by(watch, TWO, since=10.1, until=20.0)

    watch.see_write(writing(5.0))
    watch.see_write(writing(15.0, process=TWO))
    assert notes == []
    watch.see_write(writing(15.0))

    assert notes == ["alpha: process 11 wrote to a cluster while 12 led: POST /api/v1/namespaces"]


def test_who_led_is_not_known_just_after_a_change_and_after_the_last_look() -> None:
    watch, notes = watching("x")
    led_by(watch, TWO, since=10.0, until=20.0)

    for moment in (10.5, 20.5):
        watch.see_write(writing(moment))

    assert notes == []


def test_a_write_to_a_quiet_cluster_is_noted_once_it_has_its_access() -> None:
    watch, notes = watching("x", quiet={"x"})
    led_by(watch, ONE, since=0.0, until=100.0)
    watch.see_write(writing(5.0))
    watch.settle(10.0)
    assert notes == []

    watch.see_write(writing(11.0, cluster="y"))
    watch.see_write(writing(12.0, process=0))
    assert notes == []
    watch.see_write(writing(13.0))

    assert notes == ["alpha: process 11 wrote to the quiet cluster x: POST /api/v1/namespaces"]
    assert watch.writes == 4


def test_a_process_is_known_by_its_user_agent() -> None:
    assert process_of("palette-sync, process 42") == 42
    assert process_of("kubectl/1.31") == 0


def test_a_shifted_clock_is_ahead_and_gives_plain_moments() -> None:
    kind = shifted(lambda: 3600.0)

    now = kind.now(UTC)

    assert type(now) is datetime
    assert (now - datetime.now(UTC)).total_seconds() == pytest.approx(3600, abs=60)
    assert type(kind.fromisoformat("2026-01-31T09:30:00+00:00")) is datetime
    assert isinstance(now, kind)

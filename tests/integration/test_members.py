"""What processes announce about themselves, and who counts as living."""

from __future__ import annotations

import time
import tracemalloc
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from palette_sync.core.leadership import Member, Share
from palette_sync.store import members as members_module
from palette_sync.store.members import MemberBook
from palette_sync.store.redis import Store, StoreError
from palette_sync.store.seal import SealKeys

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LIFE = timedelta(seconds=600)
NO_TIME = timedelta(seconds=-1)  # nothing was announced so recently
LOADED = datetime(2026, 7, 15, 12, 0, tzinfo=UTC)


def me(name: str, *, memory: tuple[int, int] | None = None, draining: bool = False) -> Member:
    share = Share(memory, verifies=False, rests_until=LOADED, leading=True)
    return Member(
        name,
        "c0ffee",
        LOADED,
        draining=draining,
        shares={"alpha": share},
        since=LOADED,
        version="1.0",
        keys=("k2", "k1"),
        outdated_since=LOADED,
        rejected_at=LOADED,
        former=("beef",),
    )


@pytest_asyncio.fixture
async def other(valkey_url: str, prefix: str, seal_keys: SealKeys) -> AsyncIterator[Store]:
    async with Store.open(valkey_url, prefix=prefix, sealer=seal_keys) as opened:
        yield opened


async def test_each_sees_what_the_other_announced(store: Store, other: Store) -> None:
    one, two = MemberBook(store.link, store.keys), MemberBook(other.link, other.keys)
    await one.exchange(store.sealer, me("a:1:x", memory=(5, 7)), life=LIFE)

    company = await two.exchange(other.sealer, me("b:2:y", draining=True), life=LIFE)

    by_id = {member.id: member for member in company.members}
    assert by_id.keys() == {"a:1:x", "b:2:y"}
    assert by_id["b:2:y"].draining
    found = by_id["a:1:x"]
    assert (found.configuration, found.loaded_at, found.version, found.keys) == ("c0ffee", LOADED, "1.0", ("k2", "k1"))
    assert found.shares == {"alpha": Share((5, 7), verifies=False, rests_until=LOADED, leading=True)}
    assert (found.since, found.outdated_since, found.rejected_at) == (LOADED, LOADED, LOADED)
    assert (found.former, found.life, found.leads) == (("beef",), LIFE, ["alpha"])
    assert found.seen_at is not None
    assert company.now - found.seen_at < LIFE
    assert (company.unheard, company.strangers) == (frozenset(), {})


async def test_nothing_is_kept_of_a_forged_value_however_long(store: Store) -> None:
    book, long = MemberBook(store.link, store.keys), 8 * 1024 * 1024
    await book.exchange(store.sealer, me("a"), life=LIFE)
    await store.link.command("members", "HSET", store.keys.members, "forged", b"0" * 64 + b" " + b"x" * long)

    tracemalloc.start()
    try:
        company = await book.exchange(store.sealer, me("a"), life=LIFE)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert [one.id for one in company.members] == ["a"]
    assert book.unknown == {"forged"}
    assert kept < long / 4


async def test_who_leaves_or_falls_silent_is_gone(store: Store, other: Store) -> None:
    one, two = MemberBook(store.link, store.keys), MemberBook(other.link, other.keys)
    await one.exchange(store.sealer, me("a"), life=LIFE)
    await two.exchange(other.sealer, me("b"), life=LIFE)

    silent = await two.exchange(other.sealer, me("b"), life=NO_TIME)
    assert [one.id for one in silent.members] == ["b"]
    fresh = MemberBook(other.link, other.keys)
    await one.leave("a")
    assert [one.id for one in (await fresh.exchange(other.sealer, me("b"), life=LIFE)).members] == ["b"]


async def test_who_was_heard_a_moment_ago_lives_although_redis_lost_it(store: Store, other: Store, raw: Any) -> None:
    one, two = MemberBook(store.link, store.keys), MemberBook(other.link, other.keys)
    await one.exchange(store.sealer, me("a", memory=(5, 7)), life=LIFE)
    older = await raw.hgetall(store.keys.members)
    await one.exchange(store.sealer, me("a", memory=(5, 8)), life=LIFE)
    await two.exchange(other.sealer, me("b"), life=LIFE)

    await raw.delete(store.keys.members)
    company = await two.exchange(other.sealer, me("b"), life=LIFE)
    assert company.unheard == {"a"}
    assert {one.id: one.shares["alpha"].memory for one in company.members} == {"a": (5, 8), "b": None}

    await raw.hset(store.keys.members, mapping=older)
    company = await two.exchange(other.sealer, me("b"), life=LIFE)
    assert company.unheard == {"a"}, "what an older dump holds is older than what was heard"

    await one.exchange(store.sealer, me("a", memory=(5, 9)), life=LIFE)
    company = await two.exchange(other.sealer, me("b"), life=LIFE)
    assert company.unheard == frozenset()
    assert {one.id: one.shares["alpha"].memory for one in company.members} == {"a": (5, 9), "b": None}


async def test_a_server_whose_clock_went_back_makes_nobody_unheard_for_long(
    store: Store, other: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = MemberBook(store.link, store.keys), MemberBook(other.link, other.keys)
    await one.exchange(store.sealer, me("a"), life=LIFE)
    await two.exchange(other.sealer, me("b"), life=LIFE)
    real = MemberBook.server_time

    async def behind(self: MemberBook) -> datetime:
        return await real(self) - timedelta(hours=2)

    monkeypatch.setattr(MemberBook, "server_time", behind)
    await one.exchange(store.sealer, me("a", memory=(1, 1)), life=LIFE)
    company = await two.exchange(other.sealer, me("b"), life=LIFE)

    assert company.unheard == frozenset()
    assert {one.id for one in company.members} == {"a", "b"}


async def test_a_time_in_which_redis_could_not_be_asked_makes_nobody_dead(
    store: Store, other: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = MemberBook(store.link, store.keys), MemberBook(other.link, other.keys)
    await one.exchange(store.sealer, me("a", memory=(5, 7)), life=LIFE)
    assert not (await two.exchange(other.sealer, me("b"), life=LIFE)).after_outage
    real, real_time = time.monotonic, MemberBook.server_time
    away = 3 * LIFE

    async def later(self: MemberBook) -> datetime:
        return await real_time(self) + away

    monkeypatch.setattr(MemberBook, "server_time", later)
    monkeypatch.setattr(members_module, "time", SimpleNamespace(monotonic=lambda: real() + away.total_seconds()))
    company = await two.exchange(other.sealer, me("b"), life=LIFE)

    assert company.after_outage
    assert company.unheard == {"a"}, "it cannot have announced itself"
    assert {one.id: one.shares["alpha"].memory for one in company.members} == {"a": (5, 7), "b": None}

    away += LIFE / 3
    assert not (await two.exchange(other.sealer, me("b"), life=LIFE)).after_outage
    for _ in range(3):
        away += LIFE / 3
        company = await two.exchange(other.sealer, me("b"), life=LIFE)
    assert [one.id for one in company.members] == ["b"], "it had its time to announce itself"


async def test_a_process_that_begins_waits_for_those_that_redis_names_and_that_are_silent(
    store: Store, other: Store, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = MemberBook(store.link, store.keys)
    await one.exchange(store.sealer, me("a"), life=LIFE)
    older = {name: await raw.hget(store.keys.members, "a") for name in ("a", "c")}
    await raw.delete(store.keys.members)
    real = MemberBook.server_time

    async def much_later(self: MemberBook) -> datetime:
        return await real(self) + 100 * LIFE

    monkeypatch.setattr(MemberBook, "server_time", much_later)
    assert not (await MemberBook(other.link, other.keys).exchange(other.sealer, me("b"), life=LIFE)).silent
    await raw.hset(store.keys.members, mapping=older)
    new = MemberBook(other.link, other.keys)

    assert (await new.exchange(other.sealer, me("b"), life=LIFE)).silent == {"a"}, "the mac of c is that of a"
    assert (await new.exchange(other.sealer, me("b"), life=LIFE)).silent == {"a"}, "for one life"
    await one.exchange(store.sealer, me("a"), life=LIFE)
    assert not (await new.exchange(other.sealer, me("b"), life=LIFE)).silent

    await raw.hset(store.keys.members, mapping=older)
    third = MemberBook(other.link, other.keys)
    assert (await third.exchange(other.sealer, me("d"), life=LIFE)).silent == {"a"}
    moment = time.monotonic()
    monkeypatch.setattr(members_module, "time", SimpleNamespace(monotonic=lambda: moment + LIFE.total_seconds() + 1))
    assert not (await third.exchange(other.sealer, me("d"), life=LIFE)).silent, "it is dead"


async def test_a_forged_member_counts_for_nothing(store: Store, raw: Any) -> None:
    book = MemberBook(store.link, store.keys)
    await book.exchange(store.sealer, me("a"), life=LIFE)
    value = await raw.hget(store.keys.members, "a")
    await raw.hset(store.keys.members, mapping={"b": value, "c": b"nonsense", "d": b"", b"\xff": b" {}"})

    company = await MemberBook(store.link, store.keys).exchange(store.sealer, me("e"), life=LIFE)

    assert {one.id for one in company.members} == {"a", "e"}


@pytest.mark.parametrize("document", [b"{}", b"[]", b'{"instances":5}', b'{"instances":{"a":5}}'])
async def test_a_member_of_another_version_that_cannot_be_read_counts_for_nothing(
    store: Store, raw: Any, document: bytes
) -> None:
    mac = store.sealer.mac(members_module.member_text(store.keys.prefix, "b", document))
    await raw.hset(store.keys.members, "b", mac.encode() + b" " + document)

    company = await MemberBook(store.link, store.keys).exchange(store.sealer, me("a"), life=LIFE)

    assert [one.id for one in company.members] == ["a"]


async def test_processes_in_the_middle_of_a_key_rotation_understand_each_other(store: Store, other: Store) -> None:
    old, new = SealKeys.generate_line("old"), SealKeys.generate_line("new")
    both = SealKeys.from_lines(f"{new}\n{old}")
    await MemberBook(store.link, store.keys).exchange(both, me("a"), life=LIFE)

    company = await MemberBook(other.link, other.keys).exchange(SealKeys.from_lines(old), me("b"), life=LIFE)

    assert {one.id for one in company.members} == {"a", "b"}


async def test_a_process_with_other_keys_is_a_stranger_while_it_changes(store: Store, other: Store) -> None:
    stranger, book = MemberBook(store.link, store.keys), MemberBook(other.link, other.keys)
    keys = SealKeys.from_lines(SealKeys.generate_line("other"))
    await stranger.exchange(keys, me("a"), life=LIFE)
    first = await book.exchange(other.sealer, me("b"), life=LIFE)
    await stranger.exchange(keys, me("a", memory=(5, 7)), life=LIFE)
    second = await book.exchange(other.sealer, me("b"), life=LIFE)
    third = await book.exchange(other.sealer, me("b"), life=NO_TIME)

    assert [list(one.strangers) for one in (first, second, third)] == [[], ["a"], []]
    assert second.strangers["a"] <= second.now


async def test_dead_entries_are_removed(store: Store, raw: Any) -> None:
    await MemberBook(store.link, store.keys).exchange(store.sealer, me("a"), life=LIFE)
    await raw.hset(store.keys.members, "b", "nonsense")
    book = MemberBook(store.link, store.keys)
    await book.exchange(store.sealer, me("c"), life=NO_TIME)
    await book.exchange(store.sealer, me("c"), life=NO_TIME)

    assert await raw.hkeys(store.keys.members) == [b"c"]


async def test_more_entries_than_are_read_are_an_error(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members_module, "MOST", 1)
    book = MemberBook(store.link, store.keys)
    await book.exchange(store.sealer, me("a"), life=LIFE)

    with pytest.raises(StoreError, match="holds 2 entries, and at most 1 are read; somebody else writes to Redis"):
        await book.exchange(store.sealer, me("b"), life=LIFE)


async def test_who_only_listens_sees_the_living_and_announces_nothing(store: Store, other: Store, raw: Any) -> None:
    await MemberBook(store.link, store.keys).exchange(store.sealer, me("b"), life=NO_TIME)
    await MemberBook(store.link, store.keys).exchange(store.sealer, me("a"), life=LIFE)
    stranger = MemberBook(store.link, store.keys)
    keys = SealKeys.from_lines(SealKeys.generate_line("other"))
    await stranger.exchange(keys, me("c"), life=LIFE)
    book = MemberBook(other.link, other.keys)

    first = await book.listen(other.sealer)
    await stranger.exchange(keys, me("c", draining=True), life=LIFE)
    second = await book.listen(other.sealer)

    assert [one.id for one in first.members] == ["a"], "b has said that it counts for no time"
    assert book.unknown == {"c"}
    assert (list(first.strangers), list(second.strangers)) == ([], ["c"])
    assert sorted(await raw.hkeys(store.keys.members)) == [b"a", b"b", b"c"]

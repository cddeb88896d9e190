"""Claims of names: one cluster has a name, a claim is authentic, and a claim whose record is gone is released."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from builders import NOW, records
from integration.store_builders import writer
from palette_sync.store import names as names_module
from palette_sync.store.redis import Store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from palette_sync.store.seal import SealKeys


@pytest_asyncio.fixture
async def other(valkey_url: str, prefix: str, seal_keys: SealKeys) -> AsyncIterator[Store]:
    """The same Redis in another process."""
    async with Store.open(valkey_url, prefix=prefix, sealer=seal_keys) as opened:
        yield opened


async def claim(store: Store, instance: str, **names: str) -> set[str]:
    return await store.claims.claim(store.sealer, instance, names)


async def claimed(raw: Any, store: Store) -> set[bytes]:
    """The names that are claimed, without the marks of instances."""
    return {name for name in await raw.hkeys(store.keys.names) if not name.startswith(b"/")}


@pytest.fixture
def _old_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names_module, "SETTLED_MS", 0)
    monkeypatch.setattr(names_module, "SWEEP_MS", 0)


async def test_a_name_has_one_cluster_whatever_its_case(store: Store, other: Store) -> None:
    assert await claim(store, "alpha", u1="Shop", u2="store") == set()

    assert await claim(other, "bravo", u9="shop", u8="free") == {"shop"}
    assert await claim(other, "alpha", u1="Shop") == set(), "the next leader of the same instance has it too"
    assert await claim(store, "alpha", u3="free") == {"free"}


async def test_a_look_claims_nothing(store: Store, other: Store, raw: Any) -> None:
    await claim(store, "alpha", u1="shop")

    assert await other.claims.taken(other.sealer, "bravo", ["shop", "free"]) == {"shop"}
    assert await claimed(raw, store) == {b"shop"}


async def test_a_claim_without_a_good_mac_counts_as_absent(store: Store, raw: Any) -> None:
    await raw.hset(store.keys.names, mapping={"shop": f"{'0' * 64} bravo/u9/1800000000000", "store": "anything"})

    assert await claim(store, "alpha", u1="shop", u2="store") == set()
    assert b"alpha/u1/" in await raw.hget(store.keys.names, "shop")


async def test_a_claim_of_another_name_does_not_fit(store: Store, other: Store, raw: Any) -> None:
    await claim(store, "alpha", u1="shop")
    await raw.hset(store.keys.names, "store", await raw.hget(store.keys.names, "shop"))

    assert await claim(other, "bravo", u9="store") == set()


async def test_claims_that_redis_lost_are_missed_although_others_have_claimed_names_since(
    store: Store, other: Store, raw: Any
) -> None:
    await claim(store, "alpha", u1="shop", u2="store")
    await raw.delete(store.keys.names)
    await claim(other, "bravo", u7="one", u8="two", u9="shop")

    assert await claim(store, "alpha", u1="shop", u2="store") == {"shop"}


async def test_claims_that_stand_are_not_read_again(store: Store, raw: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    await claim(store, "alpha", u1="shop")
    monkeypatch.setattr(store.claims, "_read", None)

    assert await claim(store, "alpha", u1="shop") == set()


async def test_claims_that_redis_lost_are_made_again(store: Store, other: Store, raw: Any) -> None:
    await claim(store, "alpha", u1="shop")
    await raw.delete(store.keys.names)
    await claim(store, "alpha", u1="shop")

    assert await claim(other, "bravo", u9="shop") == {"shop"}


@pytest.mark.usefixtures("_old_at_once")
async def test_an_old_claim_holds_while_its_record_is_published(store: Store, other: Store) -> None:
    published = records(1)
    await (await writer(store)).publish(now=NOW, put=published)
    await claim(store, "alpha", u00000="shop", gone="store")

    assert await claim(other, "bravo", u9="shop", u8="store") == {"shop"}


async def test_a_young_claim_holds_although_nothing_is_published_yet(store: Store, other: Store) -> None:
    await claim(store, "alpha", u1="shop")
    await store.claims.sweep(store.sealer, "alpha", set())

    assert await claim(other, "bravo", u9="shop") == {"shop"}


@pytest.mark.usefixtures("_old_at_once")
async def test_claims_of_records_that_are_gone_are_released(store: Store, other: Store, raw: Any) -> None:
    await claim(store, "alpha", u1="shop", u2="store")
    await claim(other, "bravo", u9="yard")

    await store.claims.sweep(store.sealer, "alpha", {"u2"})

    assert await claimed(raw, store) == {b"store", b"yard"}


async def test_the_name_of_a_dropped_record_is_released(store: Store, other: Store, raw: Any) -> None:
    await claim(store, "alpha", u1="shop")
    await claim(other, "bravo", u1="yard")

    await store.claims.release(store.sealer, "alpha", {"u1": "shop", "u2": "yard"})

    assert await claimed(raw, store) == {b"yard"}, "the claim of another cluster stays"


async def test_of_many_processes_at_once_one_gets_the_name(store: Store, valkey_url: str, prefix: str) -> None:
    async def one(instance: str) -> bool:
        async with Store.open(valkey_url, prefix=prefix, sealer=store.sealer) as opened:
            return not await claim(opened, instance, u1="shop")

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(f"i{number}")) for number in range(12)]

    assert sum(task.result() for task in tasks) == 1

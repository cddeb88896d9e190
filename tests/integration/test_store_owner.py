"""The owner id of an installation is the same after every restart, and another one's differs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from palette_sync.store.owner import place_of
from palette_sync.store.redis import Store
from palette_sync.store.seal import SealKeys, Unsealed

if TYPE_CHECKING:
    from palette_sync.store.seal import Sealer

OTHER_REDIS = "redis://another.example:6379/0"


def opened(url: str, prefix: str, sealer: Sealer) -> Store:
    return Store.open(url, prefix=prefix, sealer=sealer)


async def owner_of(url: str, prefix: str, sealer: Sealer, configured: str = "", *, write: bool = True) -> str:
    async with opened(url, prefix, sealer) as store:
        return (await store.owner(configured, write=write)).id


async def test_the_id_stays_after_a_restart_and_after_redis_lost_it(
    valkey_url: str, prefix: str, seal_keys: SealKeys, raw: Any
) -> None:
    first = await owner_of(valkey_url, prefix, seal_keys)

    assert await owner_of(valkey_url, prefix, seal_keys) == first
    await raw.delete(f"{prefix}:owner")
    assert await owner_of(valkey_url, prefix, seal_keys) == first


async def test_another_prefix_and_other_seal_keys_are_another_installation(
    valkey_url: str, prefix: str, seal_keys: SealKeys
) -> None:
    other_keys = SealKeys.from_lines(SealKeys.generate_line("other"))
    ids = {
        await owner_of(valkey_url, prefix, seal_keys),
        await owner_of(valkey_url, f"{prefix}-b", seal_keys),
        await owner_of(valkey_url, f"{prefix}-c", other_keys),
    }

    assert len(ids) == 3


async def test_another_redis_is_another_installation(valkey_url: str, prefix: str, seal_keys: SealKeys) -> None:
    """With the same seal keys and prefix, as a copied configuration has them."""
    async with opened(valkey_url, prefix, seal_keys) as store:
        here = await store.owner("", write=False)
    elsewhere = Store(store.link, prefix=prefix, sealer=seal_keys, history=0, place=place_of(OTHER_REDIS))

    assert (await elsewhere.owner("", write=False)).id != here.id
    await elsewhere.close()


async def test_a_replaced_seal_key_changes_nothing(valkey_url: str, prefix: str, raw: Any) -> None:
    old, new = SealKeys.generate_line("old"), SealKeys.generate_line("new")
    before = await owner_of(valkey_url, prefix, SealKeys.from_lines(old))
    both = SealKeys.from_lines(f"{new}\n{old}")

    assert await owner_of(valkey_url, prefix, both) == before
    await raw.delete(f"{prefix}:owner")
    async with opened(valkey_url, prefix, both) as store:
        owner = await store.owner("", write=True)
    assert before in {owner.id, *owner.former}, "what the older key gives is ours too"


async def test_the_id_stays_when_a_seal_key_was_replaced_and_the_older_one_removed(
    valkey_url: str, prefix: str
) -> None:
    old, new = SealKeys.generate_line("old"), SealKeys.generate_line("new")
    before = await owner_of(valkey_url, prefix, SealKeys.from_lines(old))
    await owner_of(valkey_url, prefix, SealKeys.from_lines(f"{new}\n{old}"))

    assert await owner_of(valkey_url, prefix, SealKeys.from_lines(new)) == before


@pytest.mark.parametrize("forged", [b"victim", b"0" * 64 + b" victim", b" victim"])
async def test_ids_that_somebody_else_wrote_count_as_absent(
    valkey_url: str, prefix: str, seal_keys: SealKeys, raw: Any, forged: bytes
) -> None:
    """Otherwise whoever can write to Redis could hand the objects of another installation to this one."""
    before = await owner_of(valkey_url, prefix, seal_keys)
    await raw.set(f"{prefix}:owner", forged)

    async with opened(valkey_url, prefix, seal_keys) as store:
        owner = await store.owner("", write=True)

    assert owner.id == before
    assert "victim" not in owner.former


async def test_without_seal_keys_the_id_is_random_and_kept(valkey_url: str, prefix: str, raw: Any) -> None:
    async with opened(valkey_url, prefix, Unsealed()) as store:
        first = (await store.owner("", write=True)).id
        assert len(first) == 16
        await raw.delete(f"{prefix}:owner")
        assert (await store.owner("", write=True)).id == first, "a running process brings it back"
    await raw.delete(f"{prefix}:owner")

    assert await owner_of(valkey_url, prefix, Unsealed()) != first


async def test_a_configured_id_goes_first_and_former_ones_are_remembered(
    valkey_url: str, prefix: str, seal_keys: SealKeys, raw: Any
) -> None:
    generated = await owner_of(valkey_url, prefix, seal_keys)
    async with opened(valkey_url, prefix, seal_keys) as store:
        await store.owner("production", write=True)
        owner = await store.owner("portal", write=True)

    assert owner.id == "portal"
    assert owner.former == {"production", generated}
    assert (await raw.get(f"{prefix}:owner")).partition(b" ")[2] == f"portal,production,{generated}".encode()
    assert await owner_of(valkey_url, prefix, seal_keys) == "portal", "as long as no other one is configured"


@pytest.mark.parametrize("configured", ["", "production"])
async def test_a_plan_writes_no_id(
    valkey_url: str, prefix: str, seal_keys: SealKeys, raw: Any, configured: str
) -> None:
    planned = await owner_of(valkey_url, prefix, seal_keys, configured, write=False)

    assert await raw.get(f"{prefix}:owner") is None
    assert await owner_of(valkey_url, prefix, seal_keys, configured) == planned


async def test_two_processes_that_start_together_agree(valkey_url: str, prefix: str) -> None:
    async with opened(valkey_url, prefix, Unsealed()) as one, opened(valkey_url, prefix, Unsealed()) as other:
        first = await one.owner("", write=True)
        assert await other.owner("", write=True) == first


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("redis://u:p%40ss@host:6379/0?password=x", "redis://host:6379/0"),
        ("redis://host:6379/", "redis://host:6379"),
        ("embedded:///var/lib/x", "embedded:///var/lib/x"),
    ],
)
def test_the_place_of_redis_holds_no_password(url: str, place: str) -> None:
    assert place_of(url) == place

"""What another process publishes is read on from the changes, and everything is read where that does not suffice."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from builders import NOW, credential, record, records
from integration.store_builders import writer
from palette_sync.core.model import ClusterMemory
from palette_sync.store import touched
from palette_sync.store.redis import Store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from palette_sync.store.redis import Publisher
    from palette_sync.store.seal import SealKeys

MEMORY = ClusterMemory(verified_at=NOW, desired="as-configured")


class Follower:
    """A second process. `whole` counts how often it has read everything."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.whole = 0
        load = store.load

        async def counted(instance: str) -> Any:
            self.whole += 1
            return await load(instance)

        store.load = counted  # type: ignore[method-assign]


@pytest_asyncio.fixture
async def follower(valkey_url: str, prefix: str, seal_keys: SealKeys) -> AsyncIterator[Follower]:
    async with Store.open(valkey_url, prefix=prefix, sealer=seal_keys) as opened:
        yield Follower(opened)


async def published(store: Store) -> Publisher:
    publisher = await writer(store)
    given = records(5)
    await publisher.publish(
        put=given,
        rotated={uid: credential() for uid in given},
        memory=dict.fromkeys(given, MEMORY),
        complete=True,
        now=NOW,
    )
    return publisher


async def test_versions_are_read_on_without_reading_the_rest(store: Store, follower: Follower) -> None:
    publisher = await published(store)
    first = await follower.store.read_on("alpha")
    changed = replace(first.records["u00001"], title="renamed")
    await publisher.publish(put={"u00001": changed}, memory={"u00001": replace(MEMORY, failures=3)}, now=NOW)
    await publisher.publish(put={"new": record("new", "alpha-new")}, rotated={"u00002": credential("other")}, now=NOW)
    await publisher.publish(drop=["u00003"], now=NOW)

    found = await follower.store.read_on("alpha")

    assert follower.whole == 1, "the first time"
    assert found == await store.load("alpha")
    assert found.trusted
    assert found.records["u00001"].title == "renamed"
    assert found.memory["u00001"].failures == 3
    assert "new" in found.records
    assert not {"u00003"} & (found.records.keys() | found.credentials.keys() | found.memory.keys())
    assert found.records["u00004"] is first.records["u00004"], "what did not change is the same object"


async def test_a_new_epoch_is_read_whole(store: Store, follower: Follower) -> None:
    await published(store)
    await follower.store.read_on("alpha")
    another = await writer(store)
    await another.publish(put={"u00001": record("u00001", "alpha-00001", title="renamed")}, now=NOW)

    found = await follower.store.read_on("alpha")

    assert follower.whole == 2
    assert found == await store.load("alpha")


async def test_a_gap_in_the_changes_is_read_whole(store: Store, follower: Follower, raw: Any) -> None:
    publisher = await published(store)
    await follower.store.read_on("alpha")
    for title in ("one", "two"):
        await publisher.publish(put={"u00001": record("u00001", "alpha-00001", title=title)}, now=NOW)
    await raw.xdel(store.keys.changes("alpha"), "2-0")

    assert (await follower.store.read_on("alpha")).records["u00001"].title == "two"
    assert follower.whole == 2


async def test_many_versions_are_read_whole(store: Store, follower: Follower, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(touched, "MOST_VERSIONS", 2)
    publisher = await published(store)
    await follower.store.read_on("alpha")
    for title in ("one", "two"):
        await publisher.publish(put={"u00001": record("u00001", "alpha-00001", title=title)}, now=NOW)

    assert (await follower.store.read_on("alpha")).records["u00001"].title == "two"
    assert follower.whole == 2


@pytest.mark.parametrize("key", ["clusters", "credentials", "work"])
async def test_what_cannot_be_verified_is_read_whole_and_not_trusted(
    store: Store, follower: Follower, raw: Any, key: str
) -> None:
    publisher = await published(store)
    await follower.store.read_on("alpha")
    await publisher.publish(put={"u00001": record("u00001", "alpha-00001", title="renamed")}, now=NOW)
    await raw.hset(store.keys.of("alpha", key), "u00001", b"forged")

    found = await follower.store.read_on("alpha")

    assert follower.whole == 2
    assert found.problems


@pytest.mark.parametrize("lists", [b"no JSON", b'["../other"]', b"[5]", b"5"])
async def test_a_forged_entry_is_read_whole(store: Store, follower: Follower, raw: Any, lists: bytes) -> None:
    publisher = await published(store)
    await follower.store.read_on("alpha")
    await publisher.publish(put={"u00001": record("u00001", "alpha-00001", title="renamed")}, now=NOW)
    key = store.keys.changes("alpha")
    ((entry_id, fields),) = await raw.xrange(key, "2-0")
    await raw.delete(key)
    await raw.xadd(key, {**fields, b"put": lists}, id=entry_id)

    assert (await follower.store.read_on("alpha")).trusted
    assert follower.whole == 2

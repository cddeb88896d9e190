"""The state that a publisher reports equals what a reader finds, whatever was written and whatever failed."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from builders import NOW, credential, record, records
from integration.store_builders import Proxy, raw_client, writer
from palette_sync.core.model import ClusterMemory, IssuerMetadata, RetiredSecret, ScopeStatus
from palette_sync.store.publisher import Publisher
from palette_sync.store.redis import Store, StoreUnavailable, VersionConflict
from palette_sync.store.seal import SealKeys

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

ISSUER = "https://issuer.example"
UIDS = [f"u{number}" for number in range(8)]


@pytest_asyncio.fixture
async def raw(valkey_url: str) -> AsyncIterator[Any]:
    async with raw_client(valkey_url) as client:
        yield client


@pytest_asyncio.fixture
async def proxy(valkey_url: str, tmp_path: Path) -> AsyncIterator[Proxy]:
    async with Proxy(valkey_url, tmp_path) as opened:
        yield opened


@pytest_asyncio.fixture
async def through(proxy: Proxy, prefix: str, seal_keys: SealKeys) -> AsyncIterator[Store]:
    async with Store.open(proxy.url, prefix=prefix, sealer=seal_keys) as opened:
        yield opened


async def agree(publisher: Publisher, store: Store) -> None:
    """Compare everything; in a snapshot that is not trusted, everything but the reader's problems."""
    found, mirrored = await store.load("alpha"), publisher.state
    if not found.trusted:
        found, mirrored = replace(found, problems=()), replace(mirrored, problems=())
    assert mirrored == found


class Scribe:
    """Draws arguments of a publish that fit what is published."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.now = NOW

    def some(self, uids: list[str]) -> list[str]:
        return self.draw.sample(uids, self.draw.randint(0, len(uids)))

    def memory(self) -> dict[str, Any]:
        draw = self.draw
        works = [
            None,
            ClusterMemory(),
            ClusterMemory(
                verified_at=self.now, desired="d", generation="s-2", retired=(RetiredSecret("s", "u", self.now),)
            ),
            ClusterMemory(failures=3, retry_at=self.now),
        ]
        scopes = [None, ScopeStatus("Shop", self.now), ScopeStatus("Shop", None, "503", self.now)]
        issuers = [None, IssuerMetadata(ISSUER, "a", "t", "j", ("k",), ("RS256",), self.now, self.now)]
        return {
            "memory": {uid: draw.choice(works) for uid in self.some(UIDS)},
            "scopes": {uid: draw.choice(scopes) for uid in self.some(["p1", "p2", "tenant"])},
            "issuers": {ISSUER: draw.choice(issuers)} if draw.random() < 0.5 else {},
            "status": {"pass": {"id": str(draw.random())}} if draw.random() < 0.5 else {},
        }

    def version(self, published: set[str]) -> dict[str, Any]:
        draw = self.draw
        put = {uid: record(uid, title=draw.choice(["web", "shop"])) for uid in self.some(UIDS)}
        drop = [uid for uid in self.some(UIDS) if uid not in put]
        known = sorted((published | put.keys()) - set(drop))
        rotated = {uid: draw.choice([None, credential(str(draw.random())), credential()]) for uid in self.some(known)}
        complete = draw.choice([None, None, True, False])
        return {"put": put, "drop": drop, "rotated": rotated, "complete": complete, **self.memory()}

    async def write(self, publisher: Publisher) -> None:
        # A fraction of a second shows whether the state has the times that are written.
        self.now += timedelta(seconds=61, microseconds=5)
        if self.draw.random() < 0.3:
            await publisher.write_unversioned(now=self.now, **self.memory())
        else:
            await publisher.publish(now=self.now, **self.version(set(publisher.state.records)))


@pytest.mark.parametrize("seed", range(12))
async def test_after_any_writes_the_publishers_state_is_what_a_reader_finds(store: Store, seed: int) -> None:
    scribe = Scribe(seed)
    publisher = await writer(store)
    for _ in range(15):
        await scribe.write(publisher)
        await agree(publisher, store)

    successor = await writer(store)
    assert successor.state == publisher.state
    await scribe.write(successor)
    await agree(successor, store)


@pytest.mark.parametrize("seed", range(4))
async def test_it_holds_when_answers_and_requests_are_lost(through: Store, proxy: Proxy, seed: int) -> None:
    scribe = Scribe(100 + seed)
    publisher = await writer(through)
    for step in range(10):
        if step % 3 == 0:
            proxy.lose_answer = b"EVALSHA"
        elif step % 3 == 1:
            proxy.lose_request = b"EVALSHA"
        await scribe.write(publisher)
        await agree(publisher, through)
    assert proxy.lost >= 4


async def test_a_version_that_arrived_although_its_writer_gave_up_counts_once_it_is_settled(
    through: Store, proxy: Proxy
) -> None:
    publisher = await writer(through)
    await publisher.publish(now=NOW, put=records(1))
    before = publisher.state
    proxy.hold = b"EVALSHA"
    task = asyncio.create_task(publisher.publish(now=NOW, put=records(2), rotated={"u00001": credential()}))
    await proxy.holding.wait()
    task.cancel()
    await asyncio.wait({task})
    proxy.release.set()

    assert publisher.state == before, "nothing is known of it yet"
    await publisher.write_unversioned(now=NOW, memory={"u00001": ClusterMemory(verified_at=NOW)})

    assert publisher.state.records == records(2)
    await agree(publisher, through)


async def test_a_state_is_a_value_that_later_writes_do_not_change(store: Store) -> None:
    publisher = await writer(store)
    await publisher.publish(now=NOW, put=records(2), memory={"u00000": ClusterMemory(verified_at=NOW)})
    held = publisher.state
    kept = replace(held, records=dict(held.records), memory=dict(held.memory))

    await publisher.publish(now=NOW, put=records(2, start=1), drop=["u00000"])

    assert held == kept


async def test_more_than_one_version_holds_becomes_several_and_the_mirror_keeps_pace(store: Store) -> None:
    publisher = await writer(store)
    many = records(620)
    await publisher.publish(
        now=NOW,
        put=many,
        rotated=dict.fromkeys(many, credential()),
        memory=dict.fromkeys(many, ClusterMemory(verified_at=NOW)),
    )
    await agree(publisher, store)
    await publisher.publish(now=NOW, drop=list(many)[:600])

    await agree(publisher, store)
    assert len(publisher.state.memory) == len(publisher.state.credentials) == 20


async def test_records_without_a_head_are_ignored(store: Store, raw: Any) -> None:
    publisher = await writer(store)
    await publisher.publish(
        now=NOW, put=records(3), rotated={"u00001": credential()}, memory={"u00001": ClusterMemory(verified_at=NOW)}
    )
    await raw.delete(store.keys.head("alpha"))

    successor = await writer(store)
    assert (successor.state.head, successor.state.records, successor.state.credentials) == (None, {}, {})
    await successor.write_unversioned(now=NOW, memory={"u00002": ClusterMemory(failures=1, retry_at=NOW)})
    await agree(successor, store)
    await successor.publish(now=NOW, put=records(1))

    await agree(successor, store)
    assert successor.state.memory.keys() == {"u00001", "u00002"}


async def test_a_snapshot_is_trusted_again_once_all_of_it_was_written_anew(store: Store, raw: Any) -> None:
    publisher = await writer(store)
    await publisher.publish(now=NOW, put=records(3), rotated={"u00001": credential()})
    await raw.hset(store.keys.head("alpha"), "mac", "0" * 64)
    mender = await writer(store)

    assert not mender.state.trusted
    assert await mender.publish(now=NOW, put=records(2, title="mended")) == 2
    assert not mender.state.trusted
    await agree(mender, store)
    await mender.publish(now=NOW, put=records(3))
    assert mender.state.trusted
    await agree(mender, store)


async def test_records_that_a_closing_pass_strips_are_stripped_in_the_mirror_too(store: Store, raw: Any) -> None:
    publisher = await writer(store)
    await publisher.publish(now=NOW, put=records(3), rotated={"u00001": credential()})
    await raw.hset(store.keys.clusters("alpha"), "u00002", b"garbage")
    mender = await writer(store)

    await mender.publish(now=NOW, put=records(1), status={"pass": {}})

    await agree(mender, store)
    state = mender.state
    assert state.trusted
    assert state.records.keys() == {"u00000", "u00001"}
    assert (state.records["u00001"].server, state.credentials) == (None, {})


async def test_a_write_that_failed_changes_nothing_in_the_mirror(store: Store, raw: Any) -> None:
    publisher = await writer(store)
    await publisher.publish(now=NOW, put=records(2))
    before = publisher.state
    await raw.hset(store.keys.head("alpha"), "version", "9")

    with pytest.raises(VersionConflict):
        await publisher.publish(now=NOW, put=records(3))
    with pytest.raises(VersionConflict):
        await publisher.write_unversioned(now=NOW, memory={"u00001": ClusterMemory(failures=1)})
    assert publisher.state == before


async def test_a_write_that_redis_never_saw_changes_nothing_in_the_mirror(
    valkey_url: str, tmp_path: Path, prefix: str, seal_keys: SealKeys
) -> None:
    proxy = Proxy(valkey_url, tmp_path)
    async with Store.open(proxy.url, prefix=prefix, sealer=seal_keys) as store:
        async with proxy:
            publisher = await writer(store)
            await publisher.publish(now=NOW, put=records(2))
        before = publisher.state
        writes = publisher.publish(now=NOW, put=records(3)), publisher.write_unversioned(now=NOW, status={"x": 1})
        for write in writes:
            with pytest.raises(StoreUnavailable):
                await write
        assert publisher.state == before


# -- the seal keys were replaced -------------------------------------------------------------------------------------


async def test_a_snapshot_signed_with_an_older_key_is_signed_anew_by_the_next_closing_publish_and_once(
    store: Store, valkey_url: str, prefix: str
) -> None:
    old, new = SealKeys.generate_line("old"), SealKeys.generate_line("new")
    before, both, after = (SealKeys.from_lines(lines) for lines in (old, f"{new}\n{old}", new))
    async with Store.open(valkey_url, prefix=prefix, sealer=before) as first:
        await (await writer(first)).publish(now=NOW, put=records(2), complete=True)
    async with (
        Store.open(valkey_url, prefix=prefix, sealer=both) as second,
        Store.open(valkey_url, prefix=prefix, sealer=after) as third,
    ):
        publisher = await writer(second)
        await publisher.write_unversioned(now=NOW, memory={"u00000": ClusterMemory(verified_at=NOW)})
        assert publisher.state.trusted
        assert not (await third.load("alpha")).trusted, "memory alone signs nothing"

        version = await publisher.publish(now=NOW, put=records(2), status={"pass": {}})

        assert version == 2
        assert (await third.load("alpha")).trusted
        await agree(publisher, third)
        assert publisher.state.head is not None
        assert publisher.state.head.complete
        assert await publisher.publish(now=NOW, put=records(2), status={"pass": {}}) == 2
        assert await (await writer(second)).publish(now=NOW, status={"pass": {}}) == 2, "nor by the next writer"

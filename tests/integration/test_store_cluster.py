"""The store in a Redis Cluster of three servers: slots that move, a server that dies, and settings that do not fit."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from builders import NOW, by_uid, credential, record, records
from clusters import clustered, prefix_with
from integration.store_builders import until, writer
from palette_sync.cli import check
from palette_sync.core.model import ClusterMemory
from palette_sync.store.bounds import Bounds
from palette_sync.store.control import Answer, AnswerStatus, RequestReader, Verb, answer, ask
from palette_sync.store.errors import StoreDenied, StoreError, StoreTooMuch, StoreUnavailable
from palette_sync.store.past import ChangeReader, read_history
from palette_sync.store.redis import Store
from palette_sync.store.server import all_server_facts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from clusters import Servers
    from palette_sync.core.model import ClusterRecord
    from palette_sync.store.seal import SealKeys

# What no instance has for itself is on one server, and each instance on another.
SHARED = {f"{{p}}:{what}": 2 for what in ("instances", "owner", "names", "members")}
PREFIX = prefix_with("test-", {**SHARED, "{{p}:alpha}": 1, "{{p}:beta}": 0})
SLOT = f"{{{PREFIX}:beta}}"


@pytest_asyncio.fixture
async def servers(tmp_path: Path) -> AsyncIterator[Servers]:
    async with clustered(tmp_path) as started:
        yield started


@pytest_asyncio.fixture
async def cluster(servers: Servers, seal_keys: SealKeys) -> AsyncIterator[Store]:
    async with opened(servers.url, seal_keys) as store:
        yield store


def opened(url: str, seal_keys: SealKeys, **options: Any) -> Store:
    return Store.open(url, prefix=PREFIX, sealer=seal_keys, connect_timeout=2, timeout=4, **options)


def of_beta(count: int, *, start: int = 0) -> dict[str, ClusterRecord]:
    return by_uid(*(record(f"b{number}", f"beta-{number}", instance="beta") for number in range(start, start + count)))


async def test_each_instance_is_written_and_read_on_the_server_of_its_slot(
    cluster: Store, servers: Servers, seal_keys: SealKeys
) -> None:
    """With everything that is sent for it: scripts, transactions, streams of several slots, and deleting."""
    alpha, beta = await writer(cluster), await writer(cluster, "beta")
    await alpha.publish(
        now=NOW, put=records(3), rotated={"u00000": credential()}, memory={"u00000": ClusterMemory(verified_at=NOW)}
    )
    await beta.publish(now=NOW, put=of_beta(2), complete=True, status={"held": {}})

    assert await cluster.instances() == {"alpha", "beta"}
    for name, number in (("alpha", 3), ("beta", 2)):
        state = await cluster.load(name)
        assert state.trusted
        assert len(state.records) == number
        holder = await servers.holder(cluster.keys.head(name))
        assert await holder.client.exists(cluster.keys.head(name)) == 1
    assert await servers.holder(cluster.keys.head("alpha")) != await servers.holder(cluster.keys.head("beta"))
    assert len(await cluster.names(except_instance="alpha")) == 2
    assert [one.version for one in await read_history(cluster, seal_keys, "beta")] == [1]

    changes = ChangeReader(cluster, {"alpha": 1, "beta": 1})
    waiting = asyncio.ensure_future(changes.wait())
    await beta.publish(now=NOW, put=of_beta(1, start=2))
    assert [(name, change.version) for name, change in await waiting] == [("beta", 2)]
    await alpha.publish(now=NOW, drop=["u00000"])
    assert [(name, change.version) for name, change in await changes.wait()] == [("alpha", 2)]

    assert await cluster.claims.claim(seal_keys, "alpha", {"u00001": "taken"}) == set()
    assert await cluster.claims.claim(seal_keys, "beta", {"b0": "Taken"}) == {"taken"}
    owner = await cluster.owner("", write=True)
    assert await cluster.owner("", write=False) == owner

    await cluster.forget("alpha")
    assert await cluster.instances() == {"beta"}
    assert (await cluster.load("alpha")).head is None


async def test_requests_are_read_from_the_slots_of_all_instances(
    cluster: Store, servers: Servers, seal_keys: SealKeys
) -> None:
    reader = RequestReader(cluster.link, cluster.keys)

    async def served() -> list[str]:
        found = await reader.wait(["alpha", "beta"], lambda: seal_keys)
        for one in found:
            await answer(cluster.link, cluster.keys, seal_keys, one, Answer(AnswerStatus.DONE))
        return [one.instance for one in found]

    async def asked(instance: str) -> list[AnswerStatus]:
        answers = ask(cluster.link, cluster.keys, seal_keys, instance, Verb.RESYNC, by="a test")
        return [one.word async for one in answers if one is not None]

    for instance in ("alpha", "beta"):
        asking = asyncio.create_task(asked(instance))
        assert await until(served) == [instance]
        assert await asking == [AnswerStatus.DONE]

    # A server that is away leaves the others to be read.
    await (await servers.holder(SLOT)).kill()
    asking = asyncio.create_task(asked("alpha"))

    async def served_or_away() -> list[str]:
        with suppress(StoreUnavailable):
            return await served()
        return []

    assert await until(served_or_away) == ["alpha"]
    assert await asking == [AnswerStatus.DONE]


async def test_nothing_is_lost_while_a_slot_moves(cluster: Store, servers: Servers, seal_keys: SealKeys) -> None:
    """While keys of one slot are on two servers, a script over them fails as Redis that is away does."""
    beta = await writer(cluster, "beta")
    await beta.publish(now=NOW, put=of_beta(2), rotated={"b0": credential()}, complete=True)
    source, target = await servers.holder(SLOT), await servers.holder(f"{PREFIX}:names")

    await servers.begin_move(SLOT, to=target)
    moved = 0
    refused = []
    while count := await servers.move_keys(SLOT, source=source, to=target, most=2):
        moved += count
        try:
            await beta.publish(now=NOW, put=of_beta(1, start=100 + moved))
        except StoreUnavailable as error:
            refused.append(str(error))
    await servers.end_move(SLOT, source=source, to=target)
    version = await beta.publish(now=NOW, put=of_beta(1, start=200))

    assert moved > 4
    assert refused
    assert all("is moving the slot of this key" in text for text in refused)
    async with opened(servers.url, seal_keys) as fresh:
        for store in (cluster, fresh):
            state = await store.load("beta")
            assert state.trusted
            assert state.head is not None
            assert state.head.version == version
            assert {"b0", "b1", "b200"} <= state.records.keys()
    assert await servers.holder(SLOT) == target


async def test_a_moved_slot_is_followed_by_every_kind_of_command(cluster: Store, servers: Servers) -> None:
    beta = await writer(cluster, "beta")
    await beta.publish(now=NOW, put=of_beta(2))
    places = [await servers.holder(f"{PREFIX}:names"), await servers.holder(SLOT)]

    async def move() -> None:
        places.reverse()
        await servers.move(SLOT, to=places[1])

    await move()
    assert len((await cluster.load("beta")).records) == 2  # a transaction
    await move()
    assert await beta.publish(now=NOW, put=of_beta(3)) == 2  # a script
    await move()
    assert [change.version for _, change in await ChangeReader(cluster, {"beta": 1}).wait()] == [2]  # XREAD
    await move()
    assert await cluster.newest("beta") != (None, True)  # a plain command
    assert await cluster.link.server_time(SLOT) > 0


async def test_a_server_that_dies_takes_only_its_instances_away(
    cluster: Store, servers: Servers, seal_keys: SealKeys
) -> None:
    alpha, beta = await writer(cluster), await writer(cluster, "beta")
    await alpha.publish(now=NOW, put=records(1))
    await beta.publish(now=NOW, put=of_beta(1))
    await cluster.claims.claim(seal_keys, "beta", {"b0": "beta-0"})
    dead = await servers.holder(SLOT)

    await dead.kill()
    with pytest.raises(StoreUnavailable, match=f"Redis at {dead.address} cannot be reached|has no server for the slot"):
        await cluster.load("beta")
    assert await alpha.publish(now=NOW, put=records(2)) == 2
    assert await cluster.names(except_instance="alpha") == {}
    assert await cluster.claims.taken(seal_keys, "alpha", ["beta-0"]) == {"beta-0"}
    async with opened(servers.url, seal_keys) as fresh:  # its list of servers begins with the dead one
        assert len((await fresh.load("alpha")).records) == 2
        with pytest.raises(StoreUnavailable):
            await fresh.load("beta")
        findings = await check._redis_findings(fresh, [])
        assert [one.what for one in findings if one.level == check.PROBLEM and dead.address in one.what]

    await dead.start()
    await servers.settle()
    assert await until_available(cluster, "beta") == 1
    assert await beta.publish(now=NOW, put=of_beta(2)) == 2


async def test_without_the_server_of_what_is_shared_known_clusters_are_published(
    cluster: Store, servers: Servers, seal_keys: SealKeys
) -> None:
    alpha = await writer(cluster)
    await alpha.publish(now=NOW, put=records(1))
    owner = await cluster.owner("", write=True)

    await (await servers.holder(f"{PREFIX}:names")).kill()

    assert await cluster.owner("", write=True) == owner
    again = await writer(cluster)  # it would announce the instance
    assert await again.publish(now=NOW, put=records(2)) == 2
    with pytest.raises(StoreUnavailable):
        await cluster.instances()
    with pytest.raises(StoreUnavailable):
        await (await writer(cluster, "beta")).publish(now=NOW, put=of_beta(1))
    with pytest.raises(StoreUnavailable):
        await cluster.claims.claim(seal_keys, "alpha", {"u1": "new"})


async def until_available(store: Store, instance: str) -> int:
    async def looked() -> int:
        with suppress(StoreUnavailable):
            return len((await store.load(instance)).records)
        return 0

    found: int = await until(looked)
    return found


async def test_no_answer_fills_the_memory(servers: Servers, seal_keys: SealKeys) -> None:
    async with opened(servers.url, seal_keys, bounds=Bounds(reply=100_000)) as store:
        await (await writer(store, "beta")).publish(now=NOW, put=of_beta(2))
        holder = await servers.holder(SLOT)
        await holder.client.hset(store.keys.work("beta"), "huge", b"x" * 200_000)

        with pytest.raises(StoreTooMuch, match=f"read: Redis at .*{holder.port}.* holds more than palette-sync reads"):
            await store.link.transaction("read", ("HGETALL", store.keys.work("beta")))
        with pytest.raises(StoreTooMuch):
            await store.link.command("read", "HGETALL", store.keys.work("beta"))
        state = await store.load("beta")  # the rest can be read

    assert state.trusted
    assert any("work holds more than" in one for one in state.problems)


async def test_check_says_which_setting_fits_the_server(cluster: Store, servers: Servers, seal_keys: SealKeys) -> None:
    whole = await check._redis_findings(cluster, ["alpha", "beta"])
    assert {one.level for one in whole} == {check.OK}
    assert [one.what.partition(": ")[0] for one in whole] == [one.address for one in servers.all]

    async with opened(f"redis://{servers.all[0].address}", seal_keys) as single:
        (_, finding) = await check._redis_findings(single, ["alpha"])
        assert finding.level == check.PROBLEM
        assert "redis+cluster://" in finding.remedy
        with pytest.raises(StoreError, match=r"part of a Redis Cluster; in redis\.url, write redis\+cluster://"):
            await single.load("alpha")


async def test_a_single_server_is_recognised_where_a_cluster_is_configured(seal_keys: SealKeys) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline():
            writer.write(b"-ERR This instance has cluster support disabled\r\n")
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, opened(f"redis+cluster://127.0.0.1:{port}", seal_keys) as store:
        with pytest.raises(StoreError, match=r"is no Redis Cluster; in redis\.url, write redis:// instead") as caught:
            await store.ping()
    assert not isinstance(caught.value, StoreUnavailable)


async def test_absent_servers_are_unavailable(seal_keys: SealKeys) -> None:
    async with opened("redis+cluster://127.0.0.1:1,127.0.0.1:2", seal_keys) as store:
        with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:1, 127\.0\.0\.1:2 cannot be reached"):
            await store.ping()


async def test_a_cluster_asks_for_user_and_password(tmp_path: Path, seal_keys: SealKeys) -> None:
    users = ("someone on >secret ~* +@all", "nothing on >secret ~* +ping", "default off")
    options = tuple(word for user in users for word in ("--user", *user.split()))
    async with clustered(tmp_path, login="someone:secret@", options=options) as servers:
        async with opened(servers.url, seal_keys) as store:
            await (await writer(store, "beta")).publish(now=NOW, put=of_beta(1))
            assert await store.instances() == {"beta"}
            facts = await all_server_facts(store.link, store.keys)
            assert len(facts) == 3
        async with opened(servers.url.replace("secret", "canary"), seal_keys) as store:
            with pytest.raises(StoreError, match="refuses the login") as caught:
                await store.ping()
            assert "canary" not in str(caught.value)
        async with opened(servers.url.replace("someone", "nothing"), seal_keys) as store:
            with pytest.raises(StoreDenied):
                await store.ping()


@pytest.mark.parametrize("steps", range(0, 40, 4))
async def test_no_cancellation_is_swallowed(cluster: Store, steps: int) -> None:
    begun: list[int] = []

    async def again_and_again() -> None:
        while True:
            begun.append(1)
            await cluster.newest("alpha")
            await cluster.load("beta")

    task = asyncio.create_task(again_and_again())
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task}, timeout=60)
    at_the_end = len(begun)

    assert task.cancelled()
    assert await cluster.instances() == set()
    assert len(begun) == at_the_end

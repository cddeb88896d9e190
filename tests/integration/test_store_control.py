"""Requests to the daemon through Redis: accepted only with a seal key, each one once, and answered."""

from __future__ import annotations

import asyncio
import json
import secrets
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import pytest
import redis.asyncio as aioredis
from jsonschema import Draft202012Validator

from integration.store_builders import until
from palette_sync.core.mac_texts import request_text
from palette_sync.store.bounds import Bounds
from palette_sync.store.control import Answer, AnswerStatus, Request, RequestReader, Verb, answer, ask, pass_on
from palette_sync.store.redis import Store, StoreUnavailable
from palette_sync.store.seal import SealKeys, Unsealed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def raw(valkey_url: str) -> AsyncIterator[Any]:
    async with aioredis.from_url(valkey_url) as client:
        yield client


async def requests_of(reader: RequestReader, sealer: SealKeys | Unsealed, *instances: str) -> list[Request]:
    """Wait for the first request."""
    while not (found := await reader.wait(instances, lambda: sealer)):
        pass
    return found


async def test_a_request_is_received_and_answered(store: Store, seal_keys: SealKeys, raw: Any) -> None:
    reader = RequestReader(store.link, store.keys)

    async def daemon() -> Request:
        (request,) = await requests_of(reader, seal_keys, "alpha", "bravo")
        await answer(store.link, store.keys, seal_keys, request, Answer(AnswerStatus.ACCEPTED))
        await answer(store.link, store.keys, seal_keys, request, Answer(AnswerStatus.DONE, "as asked", {"version": 7}))
        return request

    async with asyncio.TaskGroup() as group:
        serving = group.create_task(daemon())
        found = [
            one
            async for one in ask(store.link, store.keys, seal_keys, "bravo", Verb.RESYNC, by="a test")
            if one is not None
        ]

    assert found == [Answer(AnswerStatus.ACCEPTED), Answer(AnswerStatus.DONE, "as asked", {"version": 7})]
    request = serving.result()
    assert (request.instance, request.verb, request.by) == ("bravo", Verb.RESYNC, "a test")
    schema = json.loads(files("palette_sync.schemas").joinpath("control.json").read_text())
    entries = await raw.xrange(store.keys.control("bravo"))
    assert len(entries) == 3
    for _, fields in entries:
        Draft202012Validator(schema).validate({name.decode(): value.decode() for name, value in fields.items()})


async def begin(store: Store, sealer: SealKeys | Unsealed, verb: Verb = Verb.RESYNC) -> None:
    """Send a request without waiting for an answer."""
    client, key = store.link.client, store.keys.control("alpha")
    before = await client.xlen(key)

    async def sent() -> bool:
        return await client.xlen(key) > before

    asking = ask(store.link, store.keys, sealer, "alpha", verb, by="a test")
    waiting = asyncio.ensure_future(anext(asking))
    await until(sent)
    waiting.cancel()
    await asyncio.wait([waiting])


async def test_a_request_sent_before_the_daemon_reads_is_received_once(store: Store, seal_keys: SealKeys) -> None:
    await begin(store, seal_keys)
    reader = RequestReader(store.link, store.keys)

    assert len(await reader.wait(["alpha"], lambda: seal_keys)) == 1

    await answer(
        store.link, store.keys, seal_keys, Request("alpha", "other", Verb.RESYNC, 0, ""), Answer(AnswerStatus.DONE)
    )
    assert await reader.wait(["alpha"], lambda: seal_keys) == []


async def test_a_request_that_was_answered_before_a_restart_is_not_received_again(
    store: Store, seal_keys: SealKeys
) -> None:
    await begin(store, seal_keys)
    (request,) = await RequestReader(store.link, store.keys).wait(["alpha"], lambda: seal_keys)
    await answer(store.link, store.keys, seal_keys, request, Answer(AnswerStatus.DONE))

    assert await RequestReader(store.link, store.keys).wait(["alpha"], lambda: seal_keys) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("request", "allow-prune"),
        ("by", "somebody else"),
        ("at", "0"),
        ("at", "9" * 5000),
        ("id", "another"),
        ("id", "0" * 16),
        ("mac", ""),
    ],
)
async def test_a_changed_request_is_ignored(store: Store, seal_keys: SealKeys, raw: Any, name: str, value: str) -> None:
    await begin(store, seal_keys)
    key = store.keys.control("alpha")
    ((_, fields),) = await raw.xrange(key)
    await raw.delete(key)
    await raw.xadd(key, {**fields, name.encode(): value})

    assert await RequestReader(store.link, store.keys).wait(["alpha"], lambda: seal_keys) == []


async def test_a_request_copied_to_another_instance_is_ignored(store: Store, seal_keys: SealKeys, raw: Any) -> None:
    await begin(store, seal_keys)
    ((_, fields),) = await raw.xrange(store.keys.control("alpha"))
    await raw.xadd(store.keys.control("bravo"), fields)

    assert await RequestReader(store.link, store.keys).wait(["bravo"], lambda: seal_keys) == []


async def test_a_request_from_a_sender_with_a_newer_key_too_is_received(store: Store, seal_keys: SealKeys) -> None:
    """A reload replaces keys, so it must be possible to request one once the new key is in the file."""
    old = SealKeys.generate_line("old")
    both = SealKeys.from_lines(f"{SealKeys.generate_line('new')}\n{old}")
    await begin(store, both)

    assert len(await RequestReader(store.link, store.keys).wait(["alpha"], lambda: SealKeys.from_lines(old))) == 1
    assert await RequestReader(store.link, store.keys).wait(["alpha"], lambda: seal_keys) == []


async def test_a_request_with_another_key_is_ignored(store: Store, seal_keys: SealKeys) -> None:
    await begin(store, SealKeys.from_lines(SealKeys.generate_line("foreign")))

    assert await RequestReader(store.link, store.keys).wait(["alpha"], lambda: seal_keys) == []


async def test_an_old_request_that_is_replayed_is_ignored(store: Store, seal_keys: SealKeys, raw: Any) -> None:
    await begin(store, seal_keys)
    key = store.keys.control("alpha")
    ((entry_id, fields),) = await raw.xrange(key)
    await raw.delete(key)
    later = int(entry_id.partition(b"-")[0]) + 61_000
    await raw.xadd(key, fields, id=f"{later}-0")

    assert await RequestReader(store.link, store.keys).wait(["alpha"], lambda: seal_keys) == []


async def test_malformed_entries_are_skipped(store: Store, seal_keys: SealKeys, raw: Any) -> None:
    key = store.keys.control("alpha")
    await raw.xadd(key, {"id": "x", "request": "explode", "at": "now", "mac": b"\xff\xfe"})
    await raw.xadd(key, {secrets.token_hex(4): "noise"})
    await begin(store, seal_keys)

    assert len(await RequestReader(store.link, store.keys).wait(["alpha"], lambda: seal_keys)) == 1


async def test_a_forged_answer_is_ignored(store: Store, seal_keys: SealKeys, raw: Any) -> None:
    key = store.keys.control("alpha")

    async def forger() -> None:
        await until(lambda: raw.xlen(key))
        ((_, fields),) = await raw.xrange(key)
        forged = {"answer": fields[b"id"], "word": "done", "text": "all is well", "document": "{}", "mac": "00"}
        await raw.xadd(key, forged)

    async with asyncio.TaskGroup() as group:
        group.create_task(forger())
        async for found in ask(store.link, store.keys, seal_keys, "alpha", Verb.RESYNC, by="a test"):
            assert found is None
            if await raw.xlen(key) == 2:
                break


async def test_without_seal_keys_requests_work_unauthenticated(valkey_url: str, prefix: str) -> None:
    async with Store.open(valkey_url, prefix=prefix, sealer=Unsealed()) as store:
        await begin(store, Unsealed())

        assert len(await RequestReader(store.link, store.keys).wait(["alpha"], Unsealed)) == 1


async def test_an_unavailable_redis_is_an_error_for_both_sides(seal_keys: SealKeys) -> None:
    async with Store.open("redis://127.0.0.1:1/0", prefix="p", sealer=seal_keys) as store:
        with pytest.raises(StoreUnavailable):
            await RequestReader(store.link, store.keys).wait(["alpha"], lambda: seal_keys)
        with pytest.raises(StoreUnavailable):
            await anext(ask(store.link, store.keys, seal_keys, "alpha", Verb.RESYNC, by=""))


async def test_a_claimed_request_is_received_by_nobody_else_whether_it_was_answered_or_not(
    store: Store, seal_keys: SealKeys
) -> None:
    await begin(store, seal_keys, Verb.ALLOW_PRUNE)
    assert len(await RequestReader(store.link, store.keys).wait(["alpha"], lambda: seal_keys)) == 1

    assert await RequestReader(store.link, store.keys).wait(["alpha"], lambda: seal_keys) == []


async def test_a_request_whose_claim_somebody_deletes_is_not_received_again(
    store: Store, seal_keys: SealKeys, raw: Any
) -> None:
    """Otherwise a pause that an operator has ended could be brought back within the minute in which it is fresh."""
    reader = RequestReader(store.link, store.keys)
    await begin(store, seal_keys, Verb.PAUSE)
    (request,) = await reader.wait(["alpha"], lambda: seal_keys)
    ((_, fields),) = await raw.xrange(store.keys.control("alpha"))

    await raw.delete(store.keys.request("alpha", request.id))
    await raw.xadd(store.keys.control("alpha"), fields)

    assert await reader.wait(["alpha"], lambda: seal_keys) == []


async def test_a_request_that_this_process_passed_on_may_come_back_to_it(store: Store, seal_keys: SealKeys) -> None:
    reader = RequestReader(store.link, store.keys)
    await begin(store, seal_keys)
    (request,) = await reader.wait(["alpha"], lambda: seal_keys)
    while await store.link.server_time(store.keys.control("alpha")) == request.at:
        pass

    await pass_on(store.link, store.keys, seal_keys, request)

    (again,) = await reader.wait(["alpha"], lambda: seal_keys)
    assert again.id == request.id


async def test_of_two_processes_that_read_a_request_one_receives_it(store: Store, seal_keys: SealKeys) -> None:
    await begin(store, seal_keys)
    readers = [RequestReader(store.link, store.keys) for _ in range(2)]

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(reader.wait(["alpha"], lambda: seal_keys)) for reader in readers]

    assert sorted(len(task.result()) for task in tasks) == [0, 1]


@pytest.mark.parametrize("age", [61_000, 185_000, -61_000])
async def test_a_request_is_fresh_by_the_servers_time_whatever_its_entry_says(
    store: Store, seal_keys: SealKeys, raw: Any, age: int
) -> None:
    """A daemon that starts later reads it for the first time, and its claim may have expired."""
    at = await store.link.server_time(store.keys.control("alpha")) - age
    request = Request("alpha", "0123456789abcdef", Verb.ALLOW_PRUNE, at, "a test")
    text = request_text(
        store.keys.prefix, "alpha", request_id=request.id, verb=request.verb.value, at=at, by=request.by
    )
    fields = {"id": request.id, "request": request.verb.value, "at": str(at), "by": request.by}
    await raw.xadd(store.keys.control("alpha"), {**fields, "mac": seal_keys.mac(text)}, id=f"{at + age}-0")

    assert await RequestReader(store.link, store.keys).wait(["alpha"], lambda: seal_keys) == []


async def test_a_stream_with_more_than_is_read_is_skipped_and_the_others_are_served(
    valkey_url: str, prefix: str, seal_keys: SealKeys, raw: Any
) -> None:
    async with Store.open(valkey_url, prefix=prefix, sealer=seal_keys, bounds=Bounds(reply=100_000)) as store:
        await raw.xadd(store.keys.control("bravo"), {"id": "x" * 200_000})
        reader = RequestReader(store.link, store.keys)
        await begin(store, seal_keys)

        assert [one.instance for one in await requests_of(reader, seal_keys, "alpha", "bravo")] == ["alpha"]
        assert "holds more than palette-sync reads" in reader.unreadable_streams["bravo"]

        await begin(store, seal_keys)
        assert len(await requests_of(reader, seal_keys, "alpha", "bravo")) == 1
        assert reader.unreadable_streams == {}, "it continues behind what cannot be read"


async def test_an_unreadable_stream_does_not_block_the_others(store: Store, seal_keys: SealKeys, raw: Any) -> None:
    await raw.set(store.keys.control("bravo"), "no stream")
    reader = RequestReader(store.link, store.keys)
    await begin(store, seal_keys)

    assert [request.instance for request in await requests_of(reader, seal_keys, "alpha", "bravo")] == ["alpha"]
    assert list(reader.unreadable_streams) == ["bravo"]

    await raw.delete(store.keys.control("bravo"))
    await raw.delete(store.keys.control("alpha"))
    await begin(store, seal_keys)
    assert len(await requests_of(reader, seal_keys, "alpha", "bravo")) == 1
    assert reader.unreadable_streams == {}, "it was repaired meanwhile"


async def test_an_authentic_request_that_is_replayed_is_not_received_again(
    store: Store, seal_keys: SealKeys, raw: Any
) -> None:
    reader, key = RequestReader(store.link, store.keys), store.keys.control("alpha")
    await begin(store, seal_keys, Verb.ALLOW_PRUNE)
    (received,) = await requests_of(reader, seal_keys, "alpha")
    ((_, fields),) = await raw.xrange(key)

    await raw.xadd(key, fields)
    await begin(store, seal_keys)

    (next_one,) = await requests_of(reader, seal_keys, "alpha")
    assert next_one.id != received.id
    assert next_one.verb is Verb.RESYNC

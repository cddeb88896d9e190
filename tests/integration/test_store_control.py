"""Requests to the daemon through Redis: only who holds the seal key is heard, each request once; answers come back."""

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
from palette_sync.store.control import Answer, AnswerStatus, Request, RequestReader, Verb, answer, ask
from palette_sync.store.redis import Store, StoreUnavailable
from palette_sync.store.seal import SealKeys, Unsealed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def raw(valkey_url: str) -> AsyncIterator[Any]:
    async with aioredis.from_url(valkey_url) as client:
        yield client


async def served(desk: RequestReader, sealer: SealKeys | Unsealed, *instances: str) -> list[Request]:
    """Wait for the first request."""
    while not (found := await desk.wait(instances, lambda: sealer)):
        pass
    return found


async def test_a_request_is_heard_and_answered(store: Store, seal_keys: SealKeys, raw: Any) -> None:
    desk = RequestReader(store)

    async def daemon() -> Request:
        (request,) = await served(desk, seal_keys, "alpha", "bravo")
        await answer(store, seal_keys, request, Answer(AnswerStatus.ACCEPTED))
        await answer(store, seal_keys, request, Answer(AnswerStatus.DONE, "as asked", {"version": 7}))
        return request

    async with asyncio.TaskGroup() as group:
        serving = group.create_task(daemon())
        told = [one async for one in ask(store, seal_keys, "bravo", Verb.RESYNC, by="a test") if one is not None]

    assert told == [Answer(AnswerStatus.ACCEPTED), Answer(AnswerStatus.DONE, "as asked", {"version": 7})]
    request = serving.result()
    assert (request.instance, request.verb, request.by) == ("bravo", Verb.RESYNC, "a test")
    schema = json.loads(files("palette_sync.schemas").joinpath("control.json").read_text())
    entries = await raw.xrange(store.keys.control("bravo"))
    assert len(entries) == 3
    for _, fields in entries:
        Draft202012Validator(schema).validate({name.decode(): value.decode() for name, value in fields.items()})


async def begin(store: Store, sealer: SealKeys | Unsealed, verb: Verb = Verb.RESYNC) -> None:
    """Send a request and wait for no answer."""
    client, key = store._link.client, store.keys.control("alpha")
    before = await client.xlen(key)

    async def sent() -> bool:
        return await client.xlen(key) > before

    asking = ask(store, sealer, "alpha", verb, by="a test")
    waiting = asyncio.ensure_future(anext(asking))
    await until(sent)
    waiting.cancel()
    await asyncio.wait([waiting])


async def test_a_request_made_while_nobody_listened_is_heard_once(store: Store, seal_keys: SealKeys) -> None:
    await begin(store, seal_keys)
    desk = RequestReader(store)

    assert len(await desk.wait(["alpha"], lambda: seal_keys)) == 1

    await answer(store, seal_keys, Request("alpha", "other", Verb.RESYNC, 0, ""), Answer(AnswerStatus.DONE))
    assert await desk.wait(["alpha"], lambda: seal_keys) == []


async def test_a_request_that_was_answered_before_a_restart_is_not_heard_again(
    store: Store, seal_keys: SealKeys
) -> None:
    await begin(store, seal_keys)
    (request,) = await RequestReader(store).wait(["alpha"], lambda: seal_keys)
    await answer(store, seal_keys, request, Answer(AnswerStatus.DONE))

    assert await RequestReader(store).wait(["alpha"], lambda: seal_keys) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [("request", "allow-prune"), ("by", "somebody else"), ("at", "0"), ("id", "another"), ("mac", "")],
)
async def test_a_changed_request_is_not_heard(
    store: Store, seal_keys: SealKeys, raw: Any, name: str, value: str
) -> None:
    await begin(store, seal_keys)
    key = store.keys.control("alpha")
    ((_, fields),) = await raw.xrange(key)
    await raw.delete(key)
    await raw.xadd(key, {**fields, name.encode(): value})

    assert await RequestReader(store).wait(["alpha"], lambda: seal_keys) == []


async def test_a_request_moved_to_another_instance_is_not_heard(store: Store, seal_keys: SealKeys, raw: Any) -> None:
    await begin(store, seal_keys)
    ((_, fields),) = await raw.xrange(store.keys.control("alpha"))
    await raw.xadd(store.keys.control("bravo"), fields)

    assert await RequestReader(store).wait(["bravo"], lambda: seal_keys) == []


async def test_a_request_by_who_knows_a_newer_key_too_is_heard(store: Store, seal_keys: SealKeys) -> None:
    """Keys are exchanged by a reload, which must be possible to ask for once the new key stands in the file."""
    old = SealKeys.generate_line("old")
    both = SealKeys.from_lines(f"{SealKeys.generate_line('new')}\n{old}")
    await begin(store, both)

    assert len(await RequestReader(store).wait(["alpha"], lambda: SealKeys.from_lines(old))) == 1
    assert await RequestReader(store).wait(["alpha"], lambda: seal_keys) == []


async def test_a_request_with_another_key_is_not_heard(store: Store, seal_keys: SealKeys) -> None:
    await begin(store, SealKeys.from_lines(SealKeys.generate_line("foreign")))

    assert await RequestReader(store).wait(["alpha"], lambda: seal_keys) == []


async def test_an_old_request_written_again_is_not_heard(store: Store, seal_keys: SealKeys, raw: Any) -> None:
    await begin(store, seal_keys)
    key = store.keys.control("alpha")
    ((entry_id, fields),) = await raw.xrange(key)
    await raw.delete(key)
    later = int(entry_id.partition(b"-")[0]) + 61_000
    await raw.xadd(key, fields, id=f"{later}-0")

    assert await RequestReader(store).wait(["alpha"], lambda: seal_keys) == []


async def test_garbage_on_the_stream_is_passed_over(store: Store, seal_keys: SealKeys, raw: Any) -> None:
    key = store.keys.control("alpha")
    await raw.xadd(key, {"id": "x", "request": "explode", "at": "now", "mac": b"\xff\xfe"})
    await raw.xadd(key, {secrets.token_hex(4): "noise"})
    await begin(store, seal_keys)

    assert len(await RequestReader(store).wait(["alpha"], lambda: seal_keys)) == 1


async def test_a_forged_answer_is_not_believed(store: Store, seal_keys: SealKeys, raw: Any) -> None:
    key = store.keys.control("alpha")

    async def forger() -> None:
        await until(lambda: raw.xlen(key))
        ((_, fields),) = await raw.xrange(key)
        forged = {"answer": fields[b"id"], "word": "done", "text": "all is well", "document": "{}", "mac": "00"}
        await raw.xadd(key, forged)

    async with asyncio.TaskGroup() as group:
        group.create_task(forger())
        async for told in ask(store, seal_keys, "alpha", Verb.RESYNC, by="a test"):
            assert told is None
            if await raw.xlen(key) == 2:
                break


async def test_without_seal_keys_requests_work_unauthenticated(valkey_url: str, prefix: str) -> None:
    async with Store.open(valkey_url, prefix=prefix, sealer=Unsealed()) as store:
        await begin(store, Unsealed())

        assert len(await RequestReader(store).wait(["alpha"], Unsealed)) == 1


async def test_redis_away_is_an_error_for_both_sides(seal_keys: SealKeys) -> None:
    async with Store.open("redis://127.0.0.1:1/0", prefix="p", sealer=seal_keys) as store:
        with pytest.raises(StoreUnavailable):
            await RequestReader(store).wait(["alpha"], lambda: seal_keys)
        with pytest.raises(StoreUnavailable):
            await anext(ask(store, seal_keys, "alpha", Verb.RESYNC, by=""))


async def test_a_request_that_was_only_accepted_before_a_restart_is_heard_again(
    store: Store, seal_keys: SealKeys
) -> None:
    await begin(store, seal_keys)
    (request,) = await RequestReader(store).wait(["alpha"], lambda: seal_keys)
    await answer(store, seal_keys, request, Answer(AnswerStatus.ACCEPTED))

    assert await RequestReader(store).wait(["alpha"], lambda: seal_keys) == [request]


async def test_a_forged_answer_suppresses_no_request(store: Store, seal_keys: SealKeys) -> None:
    await begin(store, seal_keys)
    (request,) = await RequestReader(store).wait(["alpha"], lambda: seal_keys)
    stranger = SealKeys.from_lines(SealKeys.generate_line("foreign"))
    await answer(store, stranger, request, Answer(AnswerStatus.DONE))

    assert await RequestReader(store).wait(["alpha"], lambda: seal_keys) == [request]


async def test_a_stream_that_somebody_spoilt_makes_no_other_deaf(store: Store, seal_keys: SealKeys, raw: Any) -> None:
    await raw.set(store.keys.control("bravo"), "no stream")
    desk = RequestReader(store)
    await begin(store, seal_keys)

    assert [request.instance for request in await served(desk, seal_keys, "alpha", "bravo")] == ["alpha"]
    assert list(desk.unreadable_streams) == ["bravo"]

    await raw.delete(store.keys.control("bravo"))
    await raw.delete(store.keys.control("alpha"))
    await begin(store, seal_keys)
    assert len(await served(desk, seal_keys, "alpha", "bravo")) == 1
    assert desk.unreadable_streams == {}, "it was mended meanwhile"


async def test_a_genuine_request_that_somebody_writes_once_more_is_not_heard_again(
    store: Store, seal_keys: SealKeys, raw: Any
) -> None:
    desk, key = RequestReader(store), store.keys.control("alpha")
    await begin(store, seal_keys, Verb.ALLOW_PRUNE)
    (heard,) = await served(desk, seal_keys, "alpha")
    ((_, fields),) = await raw.xrange(key)

    await raw.xadd(key, fields)
    await begin(store, seal_keys)

    (next_one,) = await served(desk, seal_keys, "alpha")
    assert next_one.id != heard.id
    assert next_one.verb is Verb.RESYNC

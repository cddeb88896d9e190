"""Reading an instance again: unchanged documents are not decoded again, and changed ones are verified as before."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from builders import INSTANCE, NOW, head_fields, record, sealed_credential
from palette_sync.core.memory_codec import encode_memory
from palette_sync.core.model import SCHEMA, ClusterMemory, Head
from palette_sync.core.snapshot_codec import digest, encode_credential, encode_record, record_hash
from palette_sync.events import TURN
from palette_sync.store.read import Stored, read
from palette_sync.store.seal import SealKeys

KEYS = SealKeys.from_lines(SealKeys.generate_line("test"))


def stored(*uids: str, version: int = 1, name: str = "alpha-web") -> Stored:
    clusters = {uid: encode_record(record(uid, f"{name}-{uid}")) for uid in uids}
    fingerprint = digest({uid: record_hash(raw) for uid, raw in clusters.items()})
    head = Head(
        schema=SCHEMA,
        epoch=7,
        version=version,
        digest=fingerprint,
        mac=KEYS.mac(INSTANCE, 7, version, fingerprint),
        clusters=len(uids),
        complete=True,
        changed_at=NOW,
        checked_at=NOW,
        writer="host:1",
    )
    return Stored(
        head={key.encode(): value.encode() for key, value in head_fields(head).items()},
        clusters={uid.encode(): raw for uid, raw in clusters.items()},
        credentials={uid.encode(): encode_credential(sealed_credential()) for uid in uids},
        work={uid.encode(): encode_memory(ClusterMemory(verified_at=NOW)) for uid in uids},
    )


async def test_unchanged_documents_are_the_same_objects() -> None:
    first = await read(INSTANCE, stored("c1", "c2"), KEYS)

    again = await read(INSTANCE, stored("c1", "c2"), KEYS, last=first)

    assert again.state == first.state
    for uid in ("c1", "c2"):
        assert again.state.records[uid] is first.state.records[uid]
        assert again.state.credentials[uid] is first.state.credentials[uid]
        assert again.state.memory[uid] is first.state.memory[uid]


async def test_changed_documents_are_decoded() -> None:
    first = await read(INSTANCE, stored("c1", "c2"), KEYS)
    later = stored("c1", "c2", version=2, name="alpha-shop")
    later = replace(later, work={**later.work, b"c1": encode_memory(ClusterMemory(failures=3))})

    again = await read(INSTANCE, later, KEYS, last=first)

    assert again.state.trusted
    assert again.state.records["c2"].name == "alpha-shop-c2"
    assert again.state.memory["c1"].failures == 3
    assert again.state.memory["c2"] is first.state.memory["c2"]


async def test_deleted_documents_are_gone() -> None:
    first = await read(INSTANCE, stored("c1", "c2"), KEYS)

    again = await read(INSTANCE, stored("c2", version=2), KEYS, last=first)

    assert again.state.records.keys() == {"c2"}
    assert again.record_hashes.keys() == {"c2"}
    assert again.state.credentials.keys() == {"c2"}


@pytest.mark.parametrize("field", [b"digest", b"mac"])
async def test_known_records_under_a_forged_head_are_not_trusted(field: bytes) -> None:
    first = await read(INSTANCE, stored("c1"), KEYS)
    lying = stored("c1")
    lying = replace(lying, head={**lying.head, field: b"0" * 64})

    again = await read(INSTANCE, lying, KEYS, last=first)

    assert not again.state.trusted


async def test_a_document_that_cannot_be_decoded_is_reported_each_time() -> None:
    broken = replace(stored("c1"), credentials={b"c1": b"{}"}, work={b"c1": b"["})
    first = await read(INSTANCE, broken, KEYS)

    again = await read(INSTANCE, broken, KEYS, last=first)

    assert again.state.problems == first.state.problems
    assert len(again.state.problems) == 2
    assert not again.state.credentials


async def test_a_record_copied_to_another_uid_is_refused() -> None:
    first = await read(INSTANCE, stored("c1", "c2"), KEYS)
    swapped = stored("c1", "c2")
    swapped = replace(swapped, clusters={b"c1": swapped.clusters[b"c2"], b"c2": swapped.clusters[b"c2"]})

    again = await read(INSTANCE, swapped, KEYS, last=first)

    assert "c1" in again.unreadable
    assert not again.state.trusted


async def test_a_status_nested_too_deeply_is_ignored() -> None:
    deep = replace(stored("c1"), status=b'{"pass":' + b'{"a":' * 300 + b"1" + b"}" * 301)

    state = (await read(INSTANCE, deep, KEYS)).state

    assert state.trusted
    assert (state.status, len(state.problems)) == ({}, 1)


async def test_other_tasks_run_while_thousands_of_documents_are_read() -> None:
    uids = [f"c{number}" for number in range(2 * TURN)]
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    try:
        found = await read(INSTANCE, stored(*uids), KEYS)
    finally:
        task.cancel()

    assert found.state.records.keys() == set(uids)
    assert turns >= 8, "hashes, records, credentials and work twice each"

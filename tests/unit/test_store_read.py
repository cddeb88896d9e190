"""Reading an instance again: unchanged documents are not decoded again, and changed ones are verified as before."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from builders import INSTANCE, NOW, head, head_fields, record, sealed_credential
from palette_sync.core.documents import format_time
from palette_sync.core.mac_texts import check_text
from palette_sync.core.memory_codec import encode_memory
from palette_sync.core.model import ClusterMemory
from palette_sync.core.snapshot_codec import (
    digest,
    encode_credential,
    encode_record,
    record_hash,
    text_of_version,
)
from palette_sync.events import TURN
from palette_sync.store.bounds import Bounds
from palette_sync.store.read import NOTHING, Loaded, Stored, read
from palette_sync.store.seal import SealKeys
from palette_sync.store.signed_value import ValueSigner

if TYPE_CHECKING:
    from datetime import datetime

KEYS = SealKeys.from_lines(SealKeys.generate_line("test"))


def stored(*uids: str, version: int = 1, name: str = "alpha-web", **changes: Any) -> Stored:
    """An authentic instance; `changes` are to its head, before it is signed."""
    clusters = {uid: encode_record(record(uid, f"{name}-{uid}")) for uid in uids}
    credentials = {uid: encode_credential(sealed_credential()) for uid in uids}
    signed = head(
        version=version,
        digest=digest({uid: record_hash(raw) for uid, raw in clusters.items()}),
        credentials_digest=digest({uid: record_hash(raw) for uid, raw in credentials.items()}),
        clusters=len(uids),
        **changes,
    )
    check = check_text("p", INSTANCE, epoch=7, version=version, checked_at=format_time(signed.checked_at or NOW))
    signed = replace(signed, mac=KEYS.mac(text_of_version("p", INSTANCE, signed)), checked_mac=KEYS.mac(check))
    return Stored(
        head={key.encode(): value.encode() for key, value in head_fields(signed).items()},
        clusters={uid.encode(): raw for uid, raw in clusters.items()},
        credentials={uid.encode(): raw for uid, raw in credentials.items()},
        work={uid.encode(): value("work", uid, encode_memory(ClusterMemory(verified_at=NOW))) for uid in uids},
    )


def value(kind: str, field: str, content: bytes) -> bytes:
    signed = ValueSigner(KEYS, "p", INSTANCE).sign(kind, field, content)
    assert signed is not None
    return signed


async def load(found: Stored, *, last: Loaded = NOTHING, now: datetime = NOW, **bounds: int) -> Loaded:
    return await read("p", INSTANCE, found, KEYS, now=now, last=last, bounds=Bounds(**bounds))


async def test_unchanged_documents_are_the_same_objects() -> None:
    first = await load(stored("c1", "c2"))

    again = await load(stored("c1", "c2"), last=first)

    assert again.state == first.state
    for uid in ("c1", "c2"):
        assert again.state.records[uid] is first.state.records[uid]
        assert again.state.credentials[uid] is first.state.credentials[uid]
        assert again.state.memory[uid] is first.state.memory[uid]


async def test_changed_documents_are_decoded() -> None:
    first = await load(stored("c1", "c2"))
    later = stored("c1", "c2", version=2, name="alpha-shop")
    later = replace(later, work={**later.work, b"c1": value("work", "c1", encode_memory(ClusterMemory(failures=3)))})

    again = await load(later, last=first)

    assert again.state.trusted
    assert again.state.records["c2"].name == "alpha-shop-c2"
    assert again.state.memory["c1"].failures == 3
    assert again.state.memory["c2"] is first.state.memory["c2"]


async def test_deleted_documents_are_gone() -> None:
    first = await load(stored("c1", "c2"))

    again = await load(stored("c2", version=2), last=first)

    assert again.state.records.keys() == {"c2"}
    assert again.record_hashes.keys() == {"c2"}
    assert again.state.credentials.keys() == {"c2"}


@pytest.mark.parametrize("field", [b"digest", b"credentials_digest", b"mac"])
async def test_known_records_under_a_forged_head_are_not_trusted(field: bytes) -> None:
    first = await load(stored("c1"))
    lying = stored("c1")
    lying = replace(lying, head={**lying.head, field: b"0" * 64})

    again = await load(lying, last=first)

    assert not again.state.trusted


async def test_a_document_that_cannot_be_decoded_is_reported_each_time() -> None:
    broken = replace(stored("c1"), credentials={b"c1": b"{}"}, work={b"c1": value("work", "c1", b"[")})
    first = await load(broken)

    again = await load(broken, last=first)

    assert again.state.problems == first.state.problems
    assert len(again.state.problems) == 3
    assert not again.state.credentials


async def test_a_record_copied_to_another_uid_is_refused() -> None:
    first = await load(stored("c1", "c2"))
    swapped = stored("c1", "c2")
    swapped = replace(swapped, clusters={b"c1": swapped.clusters[b"c2"], b"c2": swapped.clusters[b"c2"]})

    again = await load(swapped, last=first)

    assert "c1" in again.unreadable
    assert not again.state.trusted


async def test_a_status_nested_too_deeply_is_ignored() -> None:
    deep = replace(stored("c1"), status=value("status", "", b'{"pass":' + b'{"a":' * 300 + b"1" + b"}" * 301))

    state = (await load(deep)).state

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
        found = await load(stored(*uids))
    finally:
        task.cancel()

    assert found.state.records.keys() == set(uids)
    assert turns >= 8, "hashes, records, credentials and work twice each"

"""Publishing into a real server: what a version is, what is refused, and what a reader finds."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import zlib
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from builders import CA, NOW, credential, record, records, token_in
from integration.store_builders import raw_client, writer
from palette_sync.cli import check
from palette_sync.core.model import (
    AccessState,
    ClusterKey,
    ClusterMemory,
    ClusterRecord,
    IssuerMetadata,
    OidcAuth,
    ScopeStatus,
    Secret,
    Server,
)
from palette_sync.store.redis import Fenced, Store, StoreError, VersionConflict
from palette_sync.store.seal import SealError, SealKeys, Unsealed
from palette_sync.store.signed_value import ValueSigner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LATER = NOW + timedelta(minutes=10)


@pytest_asyncio.fixture
async def raw(valkey_url: str) -> AsyncIterator[Any]:
    async with raw_client(valkey_url) as client:
        yield client


def entries(reply: list[tuple[bytes, dict[bytes, bytes]]]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for entry, fields in reply:
        found[entry.decode()] = {
            name.decode(): json.loads(zlib.decompress(value))
            if name == b"was"
            else json.loads(value)
            if name in {b"put", b"drop", b"rotated"}
            else value.decode()
            for name, value in fields.items()
        }
    return found


async def test_an_empty_store_has_no_snapshot(store: Store) -> None:
    state = await store.load("alpha")

    assert state.head is None
    assert state.trusted
    assert await store.instances() == set()
    assert (await store.publisher("alpha", epoch=1, writer="w")).version == 0


async def test_what_is_published_is_read_back(store: Store, seal_keys: SealKeys) -> None:
    publisher = await writer(store)

    version = await publisher.publish(
        now=NOW,
        put=records(2),
        rotated={"u00000": credential()},
        complete=True,
        memory={"u00000": ClusterMemory(verified_at=NOW, generation="s")},
        scopes={"p1": ScopeStatus("Shop", listed_at=NOW)},
        issuers={"https://i": IssuerMetadata("https://i", key_ids=("k",))},
        status={"pass": {"id": "x"}},
    )

    state = await store.load("alpha")
    assert version == publisher.version == 1
    assert state.head is not None
    assert (state.head.version, state.head.clusters, state.head.complete) == (1, 2, True)
    assert (state.head.changed_at, state.head.checked_at, state.head.writer) == (NOW, NOW, "test:1")
    assert state.trusted
    assert state.problems == ()
    assert state.records == records(2)
    assert state.memory == {"u00000": ClusterMemory(verified_at=NOW, generation="s")}
    assert state.scopes == {"p1": ScopeStatus("Shop", listed_at=NOW)}
    assert state.issuers == {"https://i": IssuerMetadata("https://i", key_ids=("k",))}
    assert state.status == {"pass": {"id": "x"}}
    assert token_in(state, "u00000", sealer=seal_keys, prefix=store.keys.prefix) == Secret("canary-token")
    assert await store.instances() == {"alpha"}


async def test_the_keys_are_those_of_the_contract(store: Store, raw: Any, prefix: str) -> None:
    publisher = await writer(store)
    await publisher.publish(
        now=NOW, put=records(1), rotated={"u00000": credential()}, memory={"u00000": ClusterMemory()},
        scopes={"tenant": ScopeStatus("t")}, issuers={"i": IssuerMetadata("i")}, status={"a": 1},
    )  # fmt: skip

    found = {key.decode() async for key in raw.scan_iter(f"*{prefix}*")}

    parts = ("head", "clusters", "credentials", "changes", "history", "work", "scopes", "issuers", "status", "epoch")
    assert found == {f"{prefix}:instances", *(f"{{{prefix}:alpha}}:{part}" for part in parts)}


async def test_no_token_is_in_redis_unencrypted(store: Store, raw: Any) -> None:
    publisher = await writer(store)
    await publisher.publish(now=NOW, put=records(1), rotated={"u00000": credential()})

    everything = json.dumps(
        [
            {str(k): str(v) for k, v in (await raw.hgetall(store.keys.credentials("alpha"))).items()},
            str(await raw.xrange(store.keys.changes("alpha"))),
        ]
    )

    assert "canary-token" not in everything


async def test_digest_and_mac_are_those_of_the_contract(store: Store, raw: Any) -> None:
    publisher = await writer(store)
    await publisher.publish(now=NOW, put=records(3))

    clusters = await raw.hgetall(store.keys.clusters("alpha"))
    lines = sorted(uid + b"\t" + hashlib.sha256(value).hexdigest().encode() for uid, value in clusters.items())
    head = await raw.hgetall(store.keys.head("alpha"))
    entry = entries(await raw.xrange(store.keys.changes("alpha")))["1-0"]

    assert head[b"digest"].decode() == entry["digest"] == hashlib.sha256(b"\n".join(lines)).hexdigest()
    assert head[b"mac"].decode() == entry["mac"]
    assert head[b"epoch"].decode() == entry["epoch"] == (await raw.get(store.keys.epoch("alpha"))).decode()


async def test_the_mac_can_be_computed_from_the_key_alone(valkey_url: str, prefix: str, raw: Any) -> None:
    key = bytes(range(32))
    keys = SealKeys({"k": key})
    async with Store.open(valkey_url, prefix=prefix, sealer=keys) as store:
        publisher = await writer(store)
        await publisher.publish(now=NOW, put=records(1))
        head = {name.decode(): value.decode() for name, value in (await raw.hgetall(store.keys.head("alpha"))).items()}

    derived = hmac.digest(hmac.digest(bytes(32), key, "sha256"), b"palette-sync/mac/1\x01", "sha256")
    lines = (
        "palette-sync/head/1", prefix, "alpha", head["epoch"], "1", "1", "0", "2026-03-01T12:00:00Z", head["digest"],
        hashlib.sha256(b"").hexdigest(), hashlib.sha256(b"").hexdigest(),
    )  # fmt: skip
    assert head["mac"] == hmac.new(derived, "\n".join(lines).encode(), hashlib.sha256).hexdigest()
    check = ("palette-sync/checked/1", prefix, "alpha", head["epoch"], "1", "2026-03-01T12:00:00Z")
    assert head["checked_mac"] == hmac.new(derived, "\n".join(check).encode(), hashlib.sha256).hexdigest()


async def test_each_version_records_its_changes_and_the_former_records(store: Store, raw: Any) -> None:
    publisher = await writer(store)
    first = records(3)
    await publisher.publish(now=NOW, put=first)
    await publisher.publish(
        now=LATER,
        put={"u00000": replace(first["u00000"], title="new")},
        drop=["u00001"],
        rotated={"u00002": credential()},
    )

    changes = entries(await raw.xrange(store.keys.changes("alpha")))
    history = entries(await raw.xrange(store.keys.history("alpha")))

    assert list(changes) == list(history) == ["1-0", "2-0"]
    assert changes["2-0"]["put"] == ["u00000"]
    assert changes["2-0"]["drop"] == ["u00001"]
    assert changes["2-0"]["rotated"] == ["u00002"]
    assert changes["2-0"]["at"] == history["2-0"]["at"] == "2026-03-01T12:10:00Z"
    assert history["1-0"]["was"] == {"u00000": None, "u00001": None, "u00002": None}
    was = history["2-0"]["was"]
    assert was.keys() == {"u00000", "u00001"}
    assert was["u00000"]["title"] == first["u00000"].title
    assert was["u00000"]["server"]["ca_sha256"] == hashlib.sha256(b"CA PEM").hexdigest()
    assert CA not in json.dumps(was)


async def test_a_rotation_alone_is_a_version_without_history(store: Store, raw: Any) -> None:
    publisher = await writer(store)
    await publisher.publish(now=NOW, put=records(1))

    await publisher.publish(now=LATER, rotated={"u00000": credential()})

    assert list(entries(await raw.xrange(store.keys.changes("alpha")))) == ["1-0", "2-0"]
    assert list(entries(await raw.xrange(store.keys.history("alpha")))) == ["1-0"]


async def test_without_a_change_there_is_no_new_version(store: Store, raw: Any) -> None:
    publisher = await writer(store)
    await publisher.publish(now=NOW, put=records(2), rotated={"u00000": credential()}, complete=True)
    before = await store.load("alpha")

    again = await publisher.publish(
        now=LATER,
        put=records(2),
        drop=["never-there"],
        rotated={"u00000": credential(), "u00001": None},
        complete=True,
        memory={"u00001": ClusterMemory(failures=2)},
        status={"x": 1},
    )

    after = await store.load("alpha")
    assert again == 1
    assert before.head is not None
    assert after.head is not None
    assert after.head == replace(before.head, checked_at=LATER, checked_mac=after.head.checked_mac)
    assert after.credentials == before.credentials
    assert after.memory == {"u00001": ClusterMemory(failures=2)}
    assert after.status == {"x": 1}
    assert await raw.xlen(store.keys.changes("alpha")) == 1


async def test_a_new_publisher_also_knows_what_is_published(store: Store) -> None:
    await (await writer(store)).publish(now=NOW, put=records(2), rotated={"u00000": credential()}, complete=True)
    second = await writer(store)

    version = await second.publish(now=LATER, put=records(2), rotated={"u00000": credential()}, complete=True)

    assert version == second.version == 1


async def test_a_new_token_with_the_same_times_is_a_rotation(store: Store, seal_keys: SealKeys) -> None:
    publisher = await writer(store)
    await publisher.publish(now=NOW, put=records(1), rotated={"u00000": credential()})

    assert await publisher.publish(now=LATER, rotated={"u00000": credential("another")}) == 2
    state = await store.load("alpha")
    assert token_in(state, "u00000", sealer=seal_keys, prefix=store.keys.prefix) == Secret("another")


async def test_unversioned_documents_alone_write_no_head(store: Store) -> None:
    publisher = await writer(store)

    assert await publisher.publish(now=NOW, scopes={"p1": ScopeStatus("Shop", error="away", since=NOW)}) == 0

    state = await store.load("alpha")
    assert state.head is None
    assert state.scopes["p1"].error == "away"


async def test_zero_clusters_are_a_valid_snapshot(store: Store) -> None:
    publisher = await writer(store)

    assert await publisher.publish(now=NOW, complete=True) == 1

    state = await store.load("alpha")
    assert state.head is not None
    assert (state.head.clusters, state.head.complete, state.head.digest) == (0, True, hashlib.sha256(b"").hexdigest())
    assert state.trusted


async def test_complete_stays_until_it_is_changed(store: Store) -> None:
    publisher = await writer(store)
    await publisher.publish(now=NOW, put=records(1))
    first = await store.load("alpha")
    await publisher.publish(now=NOW, complete=True)
    await publisher.publish(now=NOW, put=records(2))
    last = await store.load("alpha")

    assert first.head is not None
    assert last.head is not None
    assert (first.head.complete, last.head.complete, last.head.version) == (False, True, 3)


async def test_dropping_removes_credential_and_memory_too(store: Store) -> None:
    publisher = await writer(store)
    await publisher.publish(
        now=NOW,
        put=records(2),
        rotated={uid: credential() for uid in records(2)},
        memory=dict.fromkeys(records(2), ClusterMemory()),
    )

    await publisher.publish(now=LATER, drop=["u00000"])

    state = await store.load("alpha")
    assert state.records.keys() == state.credentials.keys() == state.memory.keys() == {"u00001"}
    assert state.trusted


async def test_none_removes_from_credentials_and_memory(store: Store) -> None:
    publisher = await writer(store)
    memory: dict[str, Any] = {"scopes": {"p1": ScopeStatus("Shop")}, "issuers": {"i": IssuerMetadata("i")}}
    await publisher.publish(
        now=NOW, put=records(1), rotated={"u00000": credential()}, memory={"u00000": ClusterMemory()}, **memory
    )

    await publisher.publish(
        now=LATER, rotated={"u00000": None}, memory={"u00000": None}, scopes={"p1": None}, issuers={"i": None}
    )

    state = await store.load("alpha")
    assert (state.credentials, state.memory, state.scopes, state.issuers) == ({}, {}, {}, {})
    assert state.head is not None
    assert state.head.version == 2


async def test_write_unversioned_changes_memory_and_no_version(store: Store) -> None:
    publisher = await writer(store)
    await publisher.publish(now=NOW, put=records(1))

    await publisher.write_unversioned(
        now=LATER, memory={f"w{number}": ClusterMemory() for number in range(1200)}, status={"x": 1}
    )

    state = await store.load("alpha")
    assert state.head is not None
    assert (state.head.version, state.head.checked_at) == (1, LATER)
    assert len(state.memory) == 1200
    assert state.status == {"x": 1}


async def test_a_version_holds_at_most_500_changes_and_the_last_prunes(store: Store, raw: Any) -> None:
    publisher = await writer(store)
    old = records(10, start=90_000)
    await publisher.publish(now=NOW, put=old)
    fresh = records(700)

    version = await publisher.publish(
        now=LATER, put=fresh, drop=old, rotated={uid: credential() for uid in list(fresh)[:100]}, complete=True
    )

    changes = list(entries(await raw.xrange(store.keys.changes("alpha"))).values())[1:]
    sizes = [len(one["put"]) + len(one["drop"]) + len(one["rotated"]) for one in changes]
    assert version == 3
    assert sizes == [500, 310]
    assert [len(one["drop"]) for one in changes] == [0, 10]
    assert all(set(one["rotated"]) <= set(one["put"]) for one in changes)
    state = await store.load("alpha")
    assert state.trusted
    assert state.records == fresh
    assert state.head is not None
    assert state.head.complete


async def test_more_than_500_drops_are_several_versions(store: Store) -> None:
    publisher = await writer(store)
    await publisher.publish(now=NOW, put=records(1100))
    before = publisher.version

    assert await publisher.publish(now=LATER, drop=records(1100)) == before + 3

    state = await store.load("alpha")
    assert state.records == {}
    assert state.trusted


async def test_streams_keep_their_length(valkey_url: str, prefix: str, seal_keys: SealKeys, raw: Any) -> None:
    async with Store.open(valkey_url, prefix=prefix, sealer=seal_keys, history=100) as store:
        publisher = await writer(store)
        for number in range(320):
            await publisher.publish(now=NOW, put={"u1": record("u1", title=str(number))})

        # Redis trims whole nodes of 100 entries.
        assert 100 <= await raw.xlen(store.keys.history("alpha")) < 300
        assert await raw.xlen(store.keys.changes("alpha")) == 320


async def test_history_can_be_off(valkey_url: str, prefix: str, seal_keys: SealKeys, raw: Any) -> None:
    async with Store.open(valkey_url, prefix=prefix, sealer=seal_keys, history=0) as store:
        await (await writer(store)).publish(now=NOW, put=records(1))

        assert not await raw.exists(store.keys.history("alpha"))
        assert (await store.load("alpha")).trusted


async def test_an_old_epoch_is_fenced_off_for_every_write(store: Store) -> None:
    old = await writer(store)
    await old.publish(now=NOW, put=records(1))
    new = await writer(store)
    before = await store.load("alpha")

    with pytest.raises(Fenced, match="alpha: another writer is at work"):
        await old.publish(now=LATER, put=records(2))
    with pytest.raises(Fenced):
        await old.publish(now=LATER, put=records(1))
    assert await new.publish(now=NOW, put=records(2, title="new")) == 2
    before = await store.load("alpha")
    with pytest.raises(Fenced):
        await old.publish(now=LATER, put=records(2))
    with pytest.raises(Fenced):
        await old.write_unversioned(now=LATER, memory={"u00000": ClusterMemory()})

    assert await store.load("alpha") == before
    assert await new.publish(now=LATER, put=records(2)) == 3


async def test_an_epoch_from_the_future_is_fenced_off_too(store: Store) -> None:
    await writer(store)
    ahead = await store.publisher("alpha", epoch=2**52, writer="w")

    with pytest.raises(Fenced):
        await ahead.publish(now=NOW, put=records(1))


async def test_two_writers_of_one_epoch_conflict(store: Store) -> None:
    one = await writer(store)
    other = await store.publisher("alpha", epoch=one._writer.epoch, writer="other")
    await one.publish(now=NOW, put=records(1))

    with pytest.raises(VersionConflict, match="somebody else has written"):
        await other.publish(now=NOW, put=records(2))
    with pytest.raises(VersionConflict, match="somebody else has written"):
        await other.publish(now=NOW, put=records(1, start=7))

    assert (await store.load("alpha")).records == records(1)


async def test_order_is_epoch_and_version(store: Store) -> None:
    seen = []
    for number in range(3):
        publisher = await writer(store)
        await publisher.publish(now=NOW, put={"u1": record("u1", title=str(number))})
        head = (await store.load("alpha")).head
        assert head is not None
        seen.append((head.epoch, head.version))

    assert seen == sorted(set(seen))
    assert [version for _, version in seen] == [1, 2, 3]


async def test_one_writer_used_by_many_tasks_loses_nothing(store: Store) -> None:
    publisher = await writer(store)

    async with asyncio.TaskGroup() as group:
        for uid, one in records(30).items():
            group.create_task(publisher.publish(now=NOW, put={uid: one}))

    state = await store.load("alpha")
    assert state.records == records(30)
    assert state.trusted
    assert publisher.version == 30


async def test_programming_errors_are_raised_before_anything_is_written(store: Store) -> None:
    publisher = await writer(store)

    with pytest.raises(ValueError, match="belongs to bravo/u1"):
        await publisher.publish(now=NOW, put={"u1": record("u1", "bravo-web", instance="bravo")})
    with pytest.raises(ValueError, match="credentials without a record"):
        await publisher.publish(now=NOW, rotated={"u1": credential()})
    with pytest.raises(ValueError, match="both put and dropped"):
        await publisher.publish(now=NOW, put=records(1), drop=["u00000"])

    assert (await store.load("alpha")).head is None


# ---- tampering, eviction and other programs -------------------------------------------------------------------------


async def published(store: Store) -> None:
    publisher = await writer(store)
    await publisher.publish(
        now=NOW, put=records(3), rotated={uid: credential(f"t-{uid}") for uid in records(3)}, complete=True
    )


def redirected() -> ClusterRecord:
    """One of the published records, but its server is the attacker's."""
    return replace(records(2)["u00001"], server=Server("https://evil.example", CA))


async def test_a_changed_record_makes_the_snapshot_untrusted(store: Store, raw: Any) -> None:
    await published(store)
    from palette_sync.core.snapshot_codec import encode_record

    await raw.hset(store.keys.clusters("alpha"), "u00001", encode_record(redirected()))

    state = await store.load("alpha")
    assert not state.trusted
    assert state.problems == ("the digest does not match the records",)


async def test_a_changed_record_with_a_matching_digest_lacks_the_mac(store: Store, raw: Any) -> None:
    from palette_sync.core.snapshot_codec import digest, encode_record, record_hash

    await published(store)
    await raw.hset(store.keys.clusters("alpha"), "u00001", encode_record(redirected()))
    everything = await raw.hgetall(store.keys.clusters("alpha"))
    fitting = digest({uid.decode(): record_hash(value) for uid, value in everything.items()})
    await raw.hset(store.keys.head("alpha"), "digest", fitting)

    state = await store.load("alpha")
    assert not state.trusted
    assert state.problems == ("the mac does not match: written without one of the configured seal keys",)


@pytest.mark.parametrize("field", ["epoch", "version"])
async def test_a_changed_epoch_or_version_breaks_the_mac(store: Store, raw: Any, field: str) -> None:
    await published(store)
    await raw.hincrby(store.keys.head("alpha"), field, 1)

    assert not (await store.load("alpha")).trusted


async def test_an_evicted_record_makes_the_snapshot_untrusted(store: Store, raw: Any) -> None:
    await published(store)
    await raw.hdel(store.keys.clusters("alpha"), "u00001")

    state = await store.load("alpha")
    assert not state.trusted
    assert state.problems[0] == "the head counts 3 clusters, but 2 are there: evicted or tampered with"


async def test_a_token_moved_to_another_cluster_makes_the_snapshot_untrusted(
    store: Store, raw: Any, seal_keys: SealKeys
) -> None:
    await published(store)
    stolen = await raw.hget(store.keys.credentials("alpha"), "u00000")
    await raw.hset(store.keys.credentials("alpha"), "u00001", stolen)

    state = await store.load("alpha")
    assert state.problems == ("the digest of credentials does not match the credentials",)
    with pytest.raises(SealError, match="another cluster"):
        token_in(state, "u00001", sealer=seal_keys, prefix=store.keys.prefix)


async def test_unreadable_memory_is_a_problem_and_leaves_the_snapshot_trusted(
    store: Store, raw: Any, seal_keys: SealKeys
) -> None:
    await published(store)
    signer = ValueSigner(seal_keys, store.keys.prefix, "alpha")
    await raw.hset(store.keys.work("alpha"), "u00000", signer.sign("work", "u00000", b"{"))
    await raw.set(store.keys.status("alpha"), signer.sign("status", "", b"7"))

    state = await store.load("alpha")
    assert state.trusted
    assert state.problems == ("work of u00000: work: is not JSON", "status: is not a JSON object")


async def test_a_head_of_another_schema_is_not_interpreted_and_not_overwritten(store: Store, raw: Any) -> None:
    await published(store)
    await raw.hset(store.keys.head("alpha"), "schema", "2")

    with pytest.raises(StoreError, match="upgrade this one"):
        await store.load("alpha")
    with pytest.raises(StoreError, match="upgrade this one"):
        await writer(store)


async def test_a_head_that_is_not_utf8_is_reported(store: Store, raw: Any) -> None:
    await published(store)
    await raw.hset(store.keys.head("alpha"), "writer", b"\xff")

    with pytest.raises(StoreError, match="not UTF-8"):
        await store.load("alpha")


async def test_an_unreadable_head_is_not_trusted_and_is_repaired(store: Store, raw: Any) -> None:
    await published(store)
    await raw.hset(store.keys.head("alpha"), mapping={"version": "many", "digest": ""})

    state = await store.load("alpha")
    assert (state.head, state.trusted) == (None, False)

    publisher = await writer(store)
    assert await publisher.publish(now=LATER, put=records(3), status={"x": 1}) == 1
    assert (await store.load("alpha")).trusted


async def test_records_without_a_head_are_deleted_by_the_first_version(store: Store, raw: Any) -> None:
    await published(store)
    await raw.delete(store.keys.head("alpha"))

    state = await store.load("alpha")
    assert (state.head, state.records, state.credentials, state.trusted) == (None, {}, {}, True)
    publisher = await writer(store)
    assert await publisher.publish(now=LATER, put=records(1)) == 1
    state = await store.load("alpha")
    assert state.trusted
    assert state.records == records(1)
    assert state.credentials == {}
    assert list(entries(await raw.xrange(store.keys.changes("alpha")))) == ["1-0"]


async def test_a_stream_that_is_ahead_of_the_head_is_started_anew(store: Store, raw: Any) -> None:
    await published(store)
    await raw.xadd(store.keys.changes("alpha"), {"x": "y"}, id="99-0")
    await raw.xadd(store.keys.history("alpha"), {"x": "y"}, id="99-0")

    await (await writer(store)).publish(now=LATER, put=records(4))

    assert list(entries(await raw.xrange(store.keys.changes("alpha")))) == ["2-0"]
    assert list(entries(await raw.xrange(store.keys.history("alpha")))) == ["2-0"]


async def test_a_key_of_another_type_is_refused_before_anything_is_written(store: Store, raw: Any) -> None:
    await published(store)
    publisher = await writer(store)
    await raw.delete(store.keys.issuers("alpha"))
    await raw.set(store.keys.issuers("alpha"), "x")
    before = await raw.hgetall(store.keys.head("alpha"))

    with pytest.raises(StoreError, match="issuers holds another kind of value"):
        await publisher.publish(now=LATER, put=records(4))

    assert await raw.hgetall(store.keys.head("alpha")) == before
    assert await raw.xlen(store.keys.changes("alpha")) == 1


async def test_a_record_changed_under_a_running_writer_is_a_conflict(store: Store, raw: Any) -> None:
    publisher = await writer(store)
    await publisher.publish(now=NOW, put=records(2))
    await raw.hset(store.keys.clusters("alpha"), "u00000", "{}")

    with pytest.raises(VersionConflict, match="the record of u00000"):
        await publisher.publish(now=LATER, put=records(2, title="new"))
    await raw.hdel(store.keys.clusters("alpha"), "u00000")
    with pytest.raises(VersionConflict):
        await publisher.publish(now=LATER, put=records(1, start=50))


async def test_an_untrusted_snapshot_is_signed_again_only_when_all_of_it_is_new(store: Store, raw: Any) -> None:
    await published(store)
    evil = json.loads(await raw.hget(store.keys.clusters("alpha"), "u00001"))
    evil["server"]["url"] = "https://evil.example"
    await raw.hset(store.keys.clusters("alpha"), "u00001", json.dumps(evil))
    publisher = await writer(store)

    await publisher.publish(now=LATER, put={"u00000": record("u00000", title="new")})
    between = await store.load("alpha")
    assert not between.trusted
    assert between.head is not None
    assert between.head.mac == ""

    await publisher.publish(now=LATER, put=records(3))
    after = await store.load("alpha")
    assert after.trusted
    assert after.records == records(3)


async def test_records_that_stay_unverified_after_tampering_lose_server_and_credential(store: Store, raw: Any) -> None:
    await published(store)
    evil = json.loads(await raw.hget(store.keys.clusters("alpha"), "u00001"))
    evil["server"]["url"] = "https://evil.example"
    await raw.hset(store.keys.clusters("alpha"), "u00001", json.dumps(evil))
    await raw.hset(store.keys.clusters("alpha"), "u00002", "no record")
    publisher = await writer(store)

    await publisher.publish(now=LATER, put={"u00000": record("u00000")}, status={"pass": 1})

    state = await store.load("alpha")
    assert state.trusted
    assert state.records.keys() == {"u00000", "u00001"}
    assert state.records["u00000"] == record("u00000")
    stripped = state.records["u00001"]
    assert (stripped.server, stripped.auth) == (None, None)
    assert (stripped.access.state, stripped.access.reason) == (AccessState.FAILED, "SnapshotRefused")
    assert state.credentials == {}, "they may come from anybody"


async def test_a_snapshot_under_a_removed_key_is_signed_again_without_any_change(
    store: Store, valkey_url: str, prefix: str
) -> None:
    await published(store)
    other = SealKeys.from_lines(SealKeys.generate_line("other"))
    async with Store.open(valkey_url, prefix=prefix, sealer=other) as opened:
        assert not (await opened.load("alpha")).trusted
        publisher = await writer(opened)

        assert await publisher.publish(now=LATER, put=records(3)) == 2
        assert (await opened.load("alpha")).trusted


async def test_everything_works_without_sealing(valkey_url: str, prefix: str) -> None:
    async with Store.open(valkey_url, prefix=prefix, sealer=Unsealed()) as store:
        await published(store)
        state = await store.load("alpha")

        assert state.trusted
        assert state.credentials["u00000"].sealed == "none:t-u00000"
        assert state.head is not None
        assert state.head.mac == ""
        assert await (await writer(store)).publish(now=LATER, put=records(3)) == 1


async def test_names_are_those_of_the_other_instances(store: Store, raw: Any) -> None:
    await published(store)
    bravo = await writer(store, "bravo")
    await bravo.publish(now=NOW, put={"u1": record("u1", "bravo-web", instance="bravo")})
    await raw.hset(store.keys.clusters("bravo"), "broken", "{")

    assert await store.names(except_instance="alpha") == {"bravo-web": ClusterKey("bravo", "u1")}
    assert len(await store.names(except_instance="charlie")) == 4


async def test_check_warns_of_a_provider_name_that_several_instances_use_for_different_issuers(store: Store) -> None:
    for instance, issuer in (("alpha", "https://one.test"), ("bravo", "https://two.test")):
        publisher = await writer(store, instance)
        auth = OidcAuth("oidc", issuer, "web")
        await publisher.publish(now=NOW, put=records(2, instance=instance, auth=auth), complete=True)

    states = {name: await store.load(name) for name in ("alpha", "bravo")}
    assert check._login_findings({"alpha": states["alpha"]}) == []
    (finding,) = check._login_findings(states)

    assert finding.level == check.WARNING
    assert "https://one.test with client id web; https://two.test with client id web" in finding.what
    assert "oidc.provider" in finding.remedy

"""Somebody without a seal key writes to Redis: nothing of it is believed, nothing stops the store, and it is said."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from builders import CA, NOW, credential, record, records, token_in
from integration.store_builders import writer
from palette_sync.core.documents import format_time
from palette_sync.core.model import AccessState, ClusterKey, ClusterMemory, IssuerMetadata, ScopeStatus, Server
from palette_sync.core.snapshot_codec import digest, record_hash
from palette_sync.store.bounds import Bounds
from palette_sync.store.redis import Store, StoreError, StoreTooMuch
from palette_sync.store.seal import SealError, SealKeys, Unsealed

if TYPE_CHECKING:
    from collections.abc import Callable

    from palette_sync.core.model import InstanceState
    from palette_sync.store.publisher import Publisher

LATER = NOW + timedelta(minutes=10)
MOVED = Server("https://10.0.0.2:6443", ca_data=CA)
TOKENS = ("u00000", "u00001", "u00002")


async def published(store: Store) -> Publisher:
    publisher = await writer(store)
    await publisher.publish(
        now=NOW,
        put=records(3),
        rotated={uid: credential(f"t-{uid}") for uid in TOKENS},
        complete=True,
        memory={"u00000": ClusterMemory(verified_at=NOW, desired="d")},
        scopes={"p1": ScopeStatus("Shop", NOW)},
        issuers={"https://i": IssuerMetadata("https://i")},
        status={"held": {"u00002": 1}},
    )
    return publisher


async def mend(store: Store) -> None:
    """Publish everything again, as a daemon does from memory."""
    await (await writer(store)).publish(
        now=LATER, put=records(3), rotated={uid: credential(f"t-{uid}") for uid in TOKENS}, complete=True
    )


async def fit_head(raw: Any, store: Store) -> None:
    """Let count and digests of the head fit what is there; that needs no key."""
    clusters = await raw.hgetall(store.keys.clusters("alpha"))
    credentials = await raw.hgetall(store.keys.credentials("alpha"))
    fitting = {
        name: digest({uid.decode(): record_hash(value) for uid, value in members.items()})
        for name, members in {"digest": clusters, "credentials_digest": credentials}.items()
    }
    await raw.hset(store.keys.head("alpha"), mapping={**fitting, "clusters": len(clusters)})


# ---- the snapshot ---------------------------------------------------------------------------------------------------


async def test_records_folded_into_one_field_are_refused_and_removed(store: Store, raw: Any) -> None:
    await published(store)
    key = store.keys.clusters("alpha")
    clusters = await raw.hgetall(key)
    lines = sorted(uid + b"\t" + record_hash(value).encode() for uid, value in clusters.items())
    await raw.delete(key)
    await raw.hset(key, b"\n".join(lines)[:-65], clusters[max(clusters)])
    await raw.delete(store.keys.credentials("alpha"))
    await raw.hset(store.keys.head("alpha"), "clusters", 1)

    state = await store.load("alpha")
    assert (state.trusted, state.records) == (False, {})
    await mend(store)
    assert (await store.load("alpha")).records == records(3)
    assert await raw.hlen(key) == 3


@pytest.mark.parametrize("field", [b"\xff", b"a b", b"u\t1", b"", b"u" * 65])
@pytest.mark.parametrize("what", ["clusters", "credentials"])
async def test_a_field_that_is_no_uid_makes_the_snapshot_untrusted_and_is_removed(
    store: Store, raw: Any, field: bytes, what: str
) -> None:
    await published(store)
    key = store.keys.of("alpha", what)
    await raw.hset(key, field, "{}")

    state = await store.load("alpha")
    assert not state.trusted
    assert state.records == records(3)
    await mend(store)
    assert (await store.load("alpha")).trusted
    assert field not in await raw.hkeys(key)


@pytest.mark.parametrize(
    "change",
    [
        {"complete": "0"},
        {"clusters": "2"},
        {"changed_at": "2026-03-01T13:00:00Z"},
        {"unconfirmed": '["u00000"]'},
        {"credentials_digest": "0" * 64},
    ],
)
async def test_a_changed_field_of_the_head_breaks_the_mac(store: Store, raw: Any, change: dict[str, str]) -> None:
    await published(store)
    await raw.hset(store.keys.head("alpha"), mapping=change)

    assert not (await store.load("alpha")).trusted


async def test_a_removed_record_with_a_head_that_fits_lacks_the_mac(store: Store, raw: Any) -> None:
    await published(store)
    for key in (store.keys.clusters("alpha"), store.keys.credentials("alpha")):
        await raw.hdel(key, "u00001")
    await fit_head(raw, store)

    state = await store.load("alpha")
    assert state.problems == ("the mac does not match: written without one of the configured seal keys",)


async def test_keys_copied_to_another_prefix_or_instance_are_not_trusted(
    store: Store, raw: Any, valkey_url: str, prefix: str, seal_keys: SealKeys
) -> None:
    await published(store)
    async with Store.open(valkey_url, prefix=f"{prefix}-copy", sealer=seal_keys) as other:
        for what in ("head", "clusters", "credentials", "work", "scopes", "issuers", "status"):
            await raw.copy(store.keys.of("alpha", what), other.keys.of("alpha", what))

        state = await other.load("alpha")

        assert not state.trusted
        assert (state.memory, state.scopes, state.issuers, state.status) == ({}, {}, {}, {})
        with pytest.raises(SealError, match="for another cluster"):
            token_in(state, "u00000", sealer=seal_keys, prefix=other.keys.prefix)


async def test_an_older_head_with_its_records_beside_the_present_credentials_is_not_trusted(
    store: Store, raw: Any, seal_keys: SealKeys
) -> None:
    publisher = await published(store)
    keys = [store.keys.head("alpha"), store.keys.clusters("alpha")]
    older = [await raw.dump(key) for key in keys]
    await publisher.publish(now=LATER, put={"u00000": record("u00000", "alpha-00000", server=MOVED)})
    for key, value in zip(keys, older, strict=True):
        await raw.restore(key, 0, value, replace=True)

    state = await store.load("alpha")

    assert state.problems == ("the digest of credentials does not match the credentials",)
    with pytest.raises(SealError, match="for another server"):
        token_in(state, "u00000", sealer=seal_keys, prefix=store.keys.prefix)


async def test_a_token_is_sealed_again_in_the_version_that_moves_its_server(store: Store, seal_keys: SealKeys) -> None:
    publisher = await published(store)
    before = publisher.version
    moved = replace(records(1)["u00000"], server=MOVED)

    assert await publisher.publish(now=LATER, put={"u00000": moved}) == before + 1

    state = await store.load("alpha")
    assert state.trusted
    assert token_in(state, "u00000", sealer=seal_keys, prefix=store.keys.prefix).reveal() == "t-u00000"
    assert state.credentials == publisher.state.credentials


async def test_a_token_that_does_not_open_is_removed_when_its_server_moves(
    store: Store, valkey_url: str, prefix: str
) -> None:
    await published(store)
    other = SealKeys.from_lines(SealKeys.generate_line("other"))
    async with Store.open(valkey_url, prefix=prefix, sealer=Unsealed()) as bare:
        publisher = await writer(bare)
        await publisher.publish(now=LATER, put={"u00000": replace(records(1)["u00000"], server=MOVED)})

        assert (await bare.load("alpha")).credentials.keys() == {"u00001", "u00002"}
    assert other.authenticates


async def test_a_credential_without_a_record_makes_the_snapshot_untrusted_and_is_removed(
    store: Store, raw: Any
) -> None:
    await published(store)
    key = store.keys.credentials("alpha")
    await raw.hset(key, "u9", await raw.hget(key, "u00000"))
    await fit_head(raw, store)

    state = await store.load("alpha")
    assert "there are credentials without a record" in state.problems
    await mend(store)
    assert (await store.load("alpha")).trusted


async def test_a_credential_beside_an_unverified_record_is_not_signed(store: Store, raw: Any) -> None:
    await published(store)
    await raw.hset(store.keys.head("alpha"), "mac", "0" * 64)
    publisher = await writer(store)

    await publisher.publish(now=LATER, put=records(3), rotated={"u00000": credential("t-u00000")})

    state = await store.load("alpha")
    assert state.trusted
    assert state.credentials.keys() == {"u00000"}


# ---- what the daemon reads back -------------------------------------------------------------------------------------


def forged(document: dict[str, Any], *, mac: str = "0" * 64) -> str:
    return f"{mac} {json.dumps(document)}"


def absent(state: InstanceState, what: str) -> bool:
    found = {"work": state.memory, "scopes": state.scopes, "issuers": state.issuers, "status": state.status}[what]
    return not found


WORK: dict[str, Any] = {"failures": 0, "retired": []}
HUGE = 18446744073709551615


@pytest.mark.parametrize(
    ("what", "field", "document"),
    [
        ("status", None, {"held": {}}),
        ("status", None, {"held": {"u00000": HUGE}}),
        ("work", "u00000", WORK | {"desired": "another"}),
        ("work", "u00000", WORK | {"failures": HUGE}),
        ("work", "u00000", WORK | {"generation": "x" * 100_000}),
        ("scopes", "p1", {"name": "Shop", "listed_at": "2099-01-01T00:00:00Z"}),
        ("issuers", "https://i", {"issuer": "https://evil.example"}),
    ],
)
@pytest.mark.parametrize("form", ["mac", "none", "bare", "moved"])
async def test_a_forged_document_counts_as_absent_and_is_reported_once(
    store: Store, raw: Any, what: str, field: str | None, document: dict[str, Any], form: str
) -> None:
    await published(store)
    key = store.keys.of("alpha", what)
    value: Any = {"mac": forged(document), "none": forged(document, mac=""), "bare": json.dumps(document)}.get(form)
    if form == "moved":  # an authentic document of another kind
        other = store.keys.scopes("alpha") if what == "work" else store.keys.work("alpha")
        value = (await raw.hvals(other))[0]
    if field is None:
        await raw.set(key, value)
    else:
        await raw.hset(key, field, value)

    with capture_logs() as logs:
        states = [await store.load("alpha") for _ in range(3)]

    assert all(state.trusted and absent(state, what) for state in states)
    assert [(line["event"], line["key"]) for line in logs] == [("not_authentic", key)]
    assert "evil" not in str(logs)


async def test_a_document_moved_to_another_field_counts_as_absent(store: Store, raw: Any) -> None:
    await published(store)
    key = store.keys.work("alpha")
    await raw.hset(key, "u00001", await raw.hget(key, "u00000"))

    assert (await store.load("alpha")).memory.keys() == {"u00000"}


async def test_a_field_that_no_mac_can_cover_is_neither_written_nor_believed(store: Store, raw: Any) -> None:
    publisher = await published(store)
    name = "https://i\nx"
    await publisher.write_unversioned(now=LATER, issuers={name: IssuerMetadata(name)})
    assert await raw.hkeys(store.keys.issuers("alpha")) == [b"https://i"]

    await raw.hset(store.keys.issuers("alpha"), name, await raw.hget(store.keys.issuers("alpha"), "https://i"))
    assert (await store.load("alpha")).issuers.keys() == {"https://i"}


async def test_a_document_too_large_to_be_read_again_is_not_written(store: Store, raw: Any) -> None:
    publisher = await published(store)

    await publisher.write_unversioned(now=LATER, scopes={"p1": ScopeStatus("Shop", error="x" * 20_000)})

    assert publisher.state.scopes == (await store.load("alpha")).scopes == {}


async def test_without_sealing_documents_have_no_mac(valkey_url: str, prefix: str, raw: Any) -> None:
    async with Store.open(valkey_url, prefix=prefix, sealer=Unsealed()) as store:
        await published(store)

        assert (await raw.get(store.keys.status("alpha"))) == b' {"held":{"u00002":1}}'
        state = await store.load("alpha")
        assert state.status == {"held": {"u00002": 1}}
        assert state.memory.keys() == {"u00000"}


async def forge_check(raw: Any, store: Store, moment: str) -> None:
    await raw.hset(store.keys.head("alpha"), "checked_at", moment)


@pytest.mark.parametrize("moment", ["2099-01-01T00:00:00Z", "2026-03-01T12:00:01Z", "soon", ""])
async def test_a_forged_check_counts_as_absent_and_the_version_stays_valid(store: Store, raw: Any, moment: str) -> None:
    await published(store)
    await forge_check(raw, store, moment)

    state = await store.load("alpha")

    assert state.trusted
    assert state.head is not None
    assert state.head.checked_at is None


async def test_an_authentic_check_of_another_version_counts_as_absent(store: Store, raw: Any) -> None:
    publisher = await published(store)
    older = await raw.hmget(store.keys.head("alpha"), "checked_at", "checked_mac")
    await publisher.publish(now=LATER, put=records(4))
    await raw.hset(store.keys.head("alpha"), mapping=dict(zip(("checked_at", "checked_mac"), older, strict=True)))

    state = await store.load("alpha")

    assert state.head is not None
    assert (state.trusted, state.head.checked_at) == (True, None)


@pytest.mark.parametrize(("ahead", "counts"), [(4, True), (6, False)])
async def test_a_check_may_be_some_minutes_ahead_of_our_clock(store: Store, ahead: int, counts: bool) -> None:  # noqa: FBT001 - a parameter
    publisher = await published(store)
    moment = datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=ahead)
    await publisher.write_unversioned(now=moment)

    state = await store.load("alpha")

    assert state.head is not None
    assert (state.head.checked_at and format_time(state.head.checked_at)) == (format_time(moment) if counts else None)


@pytest.mark.parametrize("field", ["epoch", "version", "clusters"])
@pytest.mark.parametrize("value", ["9" * 15, "9" * 16, "9" * 5000, str(HUGE)])
async def test_a_huge_number_in_the_head_is_survived_and_repaired(
    store: Store, raw: Any, field: str, value: str
) -> None:
    await published(store)
    await raw.hset(store.keys.head("alpha"), field, value)
    assert not (await store.load("alpha")).trusted

    await mend(store)

    state = await store.load("alpha")
    assert state.trusted
    assert state.records == records(3)


# ---- too much -------------------------------------------------------------------------------------------------------


@pytest.fixture
def bounded(valkey_url: str, prefix: str, seal_keys: SealKeys) -> Callable[..., Store]:
    """A store over the same keys with lower bounds."""
    return lambda **bounds: Store.open(valkey_url, prefix=prefix, sealer=seal_keys, bounds=Bounds(**bounds))


async def test_200000_names_of_instances_are_refused_and_the_work_goes_on(store: Store, raw: Any) -> None:
    await published(store)
    for start in range(0, 200_000, 10_000):
        await raw.sadd(store.keys.instances, *(f"i{number}" for number in range(start, start + 10_000)))

    with pytest.raises(StoreTooMuch, match=r"holds 200001 names, and at most 1000 are read.*Delete the key"):
        await store.instances()
    with capture_logs() as logs:
        bravo = await writer(store, "bravo")
        await bravo.publish(now=NOW, put={"u1": record("u1", "bravo-web", instance="bravo")})
        assert await store.names(except_instance="alpha") == {"bravo-web": ClusterKey("bravo", "u1")}
        assert len(await store.names(except_instance="bravo")) == 3
    assert [line["event"] for line in logs] == ["too_much_in_redis"]
    await raw.delete(store.keys.instances)
    await (await writer(store)).publish(now=LATER)
    assert await store.instances() == {"alpha"}, "forgotten, and added again by its writer"


async def test_names_that_no_instance_can_have_are_ignored(store: Store, raw: Any) -> None:
    await published(store)
    await raw.sadd(store.keys.instances, b"\xff", "Alpha", "a b", "a" * 65, "", "bravo\n")

    assert await store.instances() == {"alpha"}


async def test_records_of_another_instance_beyond_the_bounds_are_not_read(
    store: Store, raw: Any, bounded: Callable[..., Store]
) -> None:
    await published(store)
    async with bounded(fields=2) as small, bounded(reply=1_000) as narrow:
        with capture_logs() as logs:
            assert await small.names(except_instance="bravo") == {}
            assert await narrow.names(except_instance="bravo") == {}
    assert [line["event"] for line in logs] == ["too_much_in_redis"] * 2


@pytest.mark.parametrize("what", ["clusters", "credentials", "work", "scopes", "issuers"])
async def test_a_hash_with_too_many_fields_is_not_read_and_emptied_by_the_next_version(
    store: Store, raw: Any, bounded: Callable[..., Store], what: str
) -> None:
    await published(store)
    await raw.hset(store.keys.of("alpha", what), mapping={f"x{number}": "{}" for number in range(50)})

    async with bounded(fields=10) as small:
        with capture_logs() as logs:
            state = await small.load("alpha")
            await small.load("alpha")
        assert [(line["event"], line["key"]) for line in logs] == [("too_much_in_redis", small.keys.of("alpha", what))]
        assert f"{what} holds 5" in state.problems[-1]
        assert state.trusted is (what not in {"clusters", "credentials"})

        await (await writer(small)).write_unversioned(now=LATER)
        await mend(small)

        after = await small.load("alpha")
        assert after.trusted
        assert after.problems == ()
        assert after.records == records(3)
        assert after.credentials.keys() == set(TOKENS)


@pytest.mark.parametrize("what", ["clusters", "credentials", "work", "scopes", "issuers"])
async def test_a_value_too_large_to_be_read_costs_its_key_and_no_more(
    store: Store, raw: Any, bounded: Callable[..., Store], what: str
) -> None:
    await published(store)
    await raw.hset(store.keys.of("alpha", what), "x", "y" * 300_000)

    async with bounded(reply=200_000) as small:
        state = await small.load("alpha")
        assert f"{what} holds more than 200000 bytes" in " ".join(state.problems)

        await mend(small)

        after = await small.load("alpha")
        assert after.trusted
        assert after.problems == ()
        assert after.records == records(3)


async def test_a_status_beyond_its_bound_is_not_read(store: Store, raw: Any, bounded: Callable[..., Store]) -> None:
    await published(store)
    await raw.set(store.keys.status("alpha"), "x" * 2_000)

    async with bounded(status=1_000) as small:
        state = await small.load("alpha")

    assert (state.trusted, state.status) == (True, {})
    assert state.problems == ("status holds 2000 bytes, and at most 1000 are read",)


@pytest.mark.parametrize(("what", "size"), [("clusters", 65 * 1024), ("credentials", 17 * 1024)])
async def test_a_record_or_credential_beyond_its_bound_is_refused_and_removed(
    store: Store, raw: Any, what: str, size: int
) -> None:
    await published(store)
    await raw.hset(store.keys.of("alpha", what), "u00001", "x" * size)

    assert not (await store.load("alpha")).trusted
    await mend(store)
    state = await store.load("alpha")
    assert state.trusted
    assert state.records == records(3)


async def test_after_an_answer_that_is_too_long_the_connection_is_used_no_more(
    store: Store, raw: Any, bounded: Callable[..., Store]
) -> None:
    await raw.set(store.keys.status("alpha"), "x" * 500_000)

    async with bounded(reply=100_000) as small:
        for _ in range(3):
            with pytest.raises(StoreTooMuch, match="somebody else writes to it"):
                await small.link.command("read", "GET", small.keys.status("alpha"))
            assert await small.link.command("read", "EXISTS", small.keys.status("alpha")) == 1


async def test_a_head_too_large_to_be_read_is_an_error_of_the_store(
    store: Store, raw: Any, bounded: Callable[..., Store]
) -> None:
    await published(store)
    await raw.hset(store.keys.head("alpha"), "writer", "x" * 300_000)

    async with bounded(reply=200_000) as small:
        with pytest.raises(StoreError):
            await small.load("alpha")


async def test_a_record_larger_than_readers_accept_is_published_without_its_server(store: Store) -> None:
    publisher = await writer(store)
    large = record("u1", server=Server("https://10.0.0.1:6443", ca_data="Q" * 70_000))

    await publisher.publish(now=NOW, put={"u1": large, **records(1)})

    state = await store.load("alpha")
    assert state.trusted
    assert state.records["u00000"] == records(1)["u00000"]
    assert (state.records["u1"].server, state.records["u1"].access.state) == (None, AccessState.FAILED)
    assert state.records["u1"].access.reason == "KubeconfigTooLarge"

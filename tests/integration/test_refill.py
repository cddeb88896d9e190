"""A store that lost data is refilled with what this process remembers, and with every token that still opens."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from structlog.testing import capture_logs

from builders import NOW, credential, records, target, token_in
from integration.store_builders import writer
from palette_sync.core.model import ClusterMemory, IssuerMetadata, ScopeStatus, Server
from palette_sync.core.snapshot_codec import encode_credential
from palette_sync.reconcile.ports import Unpublished
from palette_sync.runner.refill import joined, refill, reseal
from palette_sync.store.redis import Store
from palette_sync.store.seal import SealKeys, Unsealed

if TYPE_CHECKING:
    from palette_sync.core.model import InstanceState

LATER = NOW + timedelta(hours=1)


async def published(store: Store) -> InstanceState:
    """Three records, two tokens, and all that a daemon remembers."""
    publisher = await writer(store)
    await publisher.publish(
        now=NOW,
        put=records(3),
        rotated={"u00000": credential("token-0"), "u00001": credential("token-1")},
        complete=True,
        memory={"u00000": ClusterMemory(verified_at=NOW, generation="s-2")},
        scopes={"p1": ScopeStatus("Shop", NOW)},
        issuers={"https://issuer.example": IssuerMetadata("https://issuer.example", fetched_at=NOW)},
        status={"held": {"u00002": 1}},
    )
    return publisher.state


async def lose(raw: Any, prefix: str) -> None:
    await raw.delete(*[key async for key in raw.scan_iter(match=f"*{prefix}*", count=1000)])


async def test_an_empty_store_is_filled_with_everything_that_is_remembered(
    store: Store, raw: Any, prefix: str, seal_keys: SealKeys
) -> None:
    memory = await published(store)
    await lose(raw, prefix)
    publisher = await writer(store)

    with capture_logs() as logs:
        await refill(publisher, memory, instance="alpha", sealers=(seal_keys,), now=LATER)

    found = await store.load("alpha")
    assert found.trusted
    assert found.head is not None
    assert found.head.complete
    assert (found.records, found.memory, found.scopes, found.issuers, found.status) == (
        memory.records,
        memory.memory,
        memory.scopes,
        memory.issuers,
        memory.status,
    )
    for uid in ("u00000", "u00001"):
        sealed = found.credentials[uid]
        assert token_in(found, uid, sealer=seal_keys, prefix=prefix).reveal() == f"token-{uid[-1]}"
        assert replace(sealed, sealed="") == replace(memory.credentials[uid], sealed="")
    assert await store.instances() == {"alpha"}
    assert await raw.xlen(store.keys.history("alpha")) == 1, "operators see it in the history"
    assert [(line["event"], line["clusters"], line["credentials"]) for line in logs] == [("store_refilled", 3, 2)]
    assert "token-0" not in str(logs)


async def test_a_token_that_no_key_opens_is_left_out(store: Store, raw: Any, prefix: str, seal_keys: SealKeys) -> None:
    memory = await published(store)
    await lose(raw, prefix)
    stranger = SealKeys.from_lines(SealKeys.generate_line("other"))
    moved = replace(
        memory.credentials["u00001"], sealed=stranger.seal(target("u00001", prefix=prefix), credential().token)
    )
    memory = replace(memory, credentials={**memory.credentials, "u00001": moved})

    await refill(await writer(store), memory, instance="alpha", sealers=(seal_keys,), now=LATER)

    found = await store.load("alpha")
    assert found.credentials.keys() == {"u00000"}
    assert found.records == memory.records


async def test_a_cluster_that_only_an_older_store_lists_is_dropped(store: Store, seal_keys: SealKeys) -> None:
    memory = await published(store)
    publisher = await writer(store)
    await publisher.publish(now=NOW, put=records(5), rotated={"u00004": credential()})

    await refill(publisher, memory, instance="alpha", sealers=(seal_keys,), now=LATER)

    found = await store.load("alpha")
    assert (found.records, found.credentials.keys()) == (memory.records, {"u00000", "u00001"})


async def test_a_token_that_was_withdrawn_does_not_come_back_with_an_older_store(
    store: Store, seal_keys: SealKeys
) -> None:
    """The API server refused it. Beside a record that is published again, it would count as a token that lives."""
    older = await published(store)
    credentials = {"u00000": older.credentials["u00000"]}
    memory = replace(older, credentials=credentials)
    publisher = await writer(store)

    await refill(publisher, memory, instance="alpha", sealers=(seal_keys,), now=LATER)

    found = await store.load("alpha")
    assert found.trusted
    assert (found.records, found.credentials.keys()) == (memory.records, {"u00000"})
    assert publisher.state.credentials.keys() == {"u00000"}


async def test_a_token_without_a_record_is_left_out(raw: Any, prefix: str, valkey_url: str) -> None:
    """Anybody who can write to Redis can put an old credential back; that must not end the daemon."""
    old = SealKeys.generate_line("old")
    before, both = SealKeys.from_lines(old), SealKeys.from_lines(f"{SealKeys.generate_line('new')}\n{old}")
    async with Store.open(valkey_url, prefix=prefix, sealer=before) as store:
        stray = (await published(store)).credentials["u00000"]
        stray = replace(stray, sealed=before.seal(target("gone", prefix=prefix), credential().token))
        await raw.hset(store.keys.credentials("alpha"), "gone", encode_credential(stray))
        memory = await store.load("alpha")
    assert not memory.trusted
    assert "gone" in memory.credentials

    async with Store.open(valkey_url, prefix=prefix, sealer=both) as store:
        await reseal(await writer(store), instance="alpha", sealers=(both,), now=LATER)
        assert not both.current((await store.load("alpha")).credentials["u00000"].sealed)
        await refill(await writer(store), memory, instance="alpha", sealers=(both,), now=LATER)

        assert (await store.load("alpha")).credentials.keys() == {"u00000", "u00001"}


async def test_a_snapshot_that_was_tampered_with_is_trusted_again(store: Store, raw: Any, seal_keys: SealKeys) -> None:
    memory = await published(store)
    key = store.keys.clusters("alpha")
    await raw.hset(key, "u00001", (await raw.hget(key, "u00001")).replace(b"10.0.0.1", b"6.6.6.6"))
    publisher = await writer(store)
    assert not publisher.state.trusted

    await refill(publisher, memory, instance="alpha", sealers=(seal_keys,), now=LATER)

    found = await store.load("alpha")
    assert found.trusted
    assert found.records == memory.records
    assert found.credentials.keys() == memory.credentials.keys()


async def test_an_incomplete_snapshot_is_refilled_as_incomplete(
    store: Store, raw: Any, prefix: str, seal_keys: SealKeys
) -> None:
    memory = await published(store)
    assert memory.head is not None
    await lose(raw, prefix)

    half = replace(memory, head=replace(memory.head, complete=False))
    await refill(await writer(store), half, instance="alpha", sealers=(seal_keys,), now=LATER)

    assert (await store.load("alpha")).head.complete is False  # type: ignore[union-attr]


async def test_after_a_replacement_of_keys_tokens_are_sealed_again_once(valkey_url: str, prefix: str) -> None:
    old, new = SealKeys.generate_line("old"), SealKeys.generate_line("new")
    before, both, after = (SealKeys.from_lines(lines) for lines in (old, f"{new}\n{old}", new))
    async with Store.open(valkey_url, prefix=prefix, sealer=before) as store:
        memory = await published(store)
    async with Store.open(valkey_url, prefix=prefix, sealer=both) as store:
        publisher = await writer(store)
        await reseal(publisher, instance="alpha", sealers=(both,), now=LATER)

        found = await store.load("alpha")
        for uid, sealed in found.credentials.items():
            assert token_in(found, uid, sealer=after, prefix=prefix).reveal() == f"token-{uid[-1]}"
            assert (sealed.issued_at, sealed.renew_at) == (
                memory.credentials[uid].issued_at,
                memory.credentials[uid].renew_at,
            )
        version = publisher.version
        await reseal(publisher, instance="alpha", sealers=(both,), now=LATER)
        assert publisher.version == version, "once is enough"


async def test_an_empty_store_and_one_that_is_not_trusted_are_not_sealed_again(
    store: Store, raw: Any, seal_keys: SealKeys
) -> None:
    empty = await writer(store)
    await reseal(empty, instance="alpha", sealers=(seal_keys,), now=LATER)
    assert empty.version == 0

    await published(store)
    await raw.hset(store.keys.head("alpha"), "mac", "0" * 64)
    stranger = SealKeys.from_lines(SealKeys.generate_line("other"))
    tampered = await writer(store)
    await reseal(tampered, instance="alpha", sealers=(stranger,), now=LATER)
    assert tampered.version == 1


async def test_a_token_that_no_key_opens_is_removed_so_that_a_new_one_is_issued(store: Store) -> None:
    memory = await published(store)
    stranger = SealKeys.from_lines(SealKeys.generate_line("other"))
    publisher = await writer(store)

    with capture_logs() as logs:
        await reseal(publisher, instance="alpha", sealers=(stranger,), now=LATER)

    assert publisher.state.credentials == {}
    assert publisher.state.records == memory.records
    assert [(line["event"], line["credentials"], line["not_opened"]) for line in logs] == [
        ("tokens_resealed", 0, len(memory.credentials))
    ]


async def test_the_former_keys_open_what_they_sealed(store: Store, seal_keys: SealKeys) -> None:
    memory = await published(store)
    publisher = await writer(store)

    await reseal(publisher, instance="alpha", sealers=(Unsealed(), seal_keys), now=LATER)

    assert publisher.state.credentials.keys() == memory.credentials.keys()


async def test_a_token_whose_server_moved_while_the_store_was_away_is_sealed_for_the_new_one(
    store: Store, raw: Any, prefix: str, seal_keys: SealKeys
) -> None:
    memory = await published(store)
    moved = replace(records(1)["u00000"], server=Server("https://10.0.0.9:6443"))
    rest = Unpublished(put={"u00000": moved}, rotated={"u00001": None}, memory={})
    await lose(raw, prefix)

    known = joined(memory, rest, prefix=prefix, sealer=seal_keys)
    await refill(await writer(store), known, instance="alpha", sealers=(seal_keys,), now=LATER)

    found = await store.load("alpha")
    assert found.records["u00000"] == moved
    assert token_in(found, "u00000", sealer=seal_keys, prefix=prefix).reveal() == "token-0"
    assert found.credentials.keys() == {"u00000"}

"""The lease: one holder at a time, named in errors; an epoch that never repeats; a loss that is noticed."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from builders import NOW, record, records
from integration.store_builders import Proxy, raw_client, until
from palette_sync.store import lease as lease_module
from palette_sync.store.lease import Lease
from palette_sync.store.redis import Fenced, LeaseHeld, LeaseLost, Store, StoreUnavailable
from palette_sync.store.seal import Unsealed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from palette_sync.store.seal import Sealer, SealKeys


@pytest_asyncio.fixture
async def raw(valkey_url: str) -> AsyncIterator[Any]:
    async with raw_client(valkey_url) as client:
        yield client


LIFE = 600  # seconds: no machine stalls for so long that a lease lapses which should not


async def take(store: Store, *, ttl: float = LIFE, holder: str = "host-a:17", sealer: Sealer | None = None) -> Lease:
    return await Lease.acquire(store.link, store.keys, "alpha", ttl=ttl, holder=holder, sealer=sealer)


@pytest.fixture
def _renewed_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Renew every few milliseconds, however long a lease lasts: a test waits for renewals, and never for a lapse."""
    monkeypatch.setattr(lease_module, "RENEWALS", 10_000)


async def _absent(raw: Any, store: Store) -> bool:
    return not await raw.exists(store.keys.lease("alpha"))


async def test_only_one_process_holds_it_and_another_is_told_which(store: Store, raw: Any) -> None:
    async with await take(store):
        with pytest.raises(LeaseHeld, match="alpha is held by process 17 on host-a since 20"):
            await take(store, holder="host-b:18")
        assert LIFE * 900 < await raw.pttl(store.keys.lease("alpha")) <= LIFE * 1000
        assert json.loads(await raw.get(store.keys.lease("alpha"))).keys() == {"holder", "id", "since"}

    async with await take(store, holder="host-b:18"):
        pass
    assert not await raw.exists(store.keys.lease("alpha"))


async def test_instances_have_leases_of_their_own(store: Store) -> None:
    async with (
        await take(store),
        await Lease.acquire(store.link, store.keys, "bravo", ttl=30, holder="host-b:1") as other,
    ):
        assert not other.lost.is_set()


async def test_of_many_at_once_one_wins(store: Store) -> None:
    outcomes: list[object] = []

    async def one(number: int) -> None:
        try:
            outcomes.append(await take(store, holder=f"h:{number}"))
        except LeaseHeld as error:
            outcomes.append(error)

    async with asyncio.TaskGroup() as group:
        for number in range(20):
            group.create_task(one(number))

    assert sum(isinstance(outcome, Lease) for outcome in outcomes) == 1


async def test_a_malformed_holder_is_reported_too(store: Store, raw: Any) -> None:
    await raw.set(store.keys.lease("alpha"), "somebody")
    with pytest.raises(LeaseHeld, match=r"held by \? since \?"):
        await take(store)
    await raw.set(store.keys.lease("alpha"), '{"holder":"plain","since":"2026"}')
    with pytest.raises(LeaseHeld, match="held by plain since 2026"):
        await take(store)


async def renewed(raw: Any, store: Store) -> None:
    """Extend the lease by hours, and wait until a renewal shortens it to its time to live."""
    key = store.keys.lease("alpha")
    await raw.pexpire(key, 100 * LIFE * 1000)

    async def cut_down() -> bool:
        return 0 < await raw.pttl(key) <= LIFE * 1000

    await until(cut_down)


@pytest.mark.usefixtures("_renewed_often")
async def test_it_is_renewed_while_it_is_held(store: Store, raw: Any) -> None:
    async with await take(store) as lease:
        value = await raw.get(store.keys.lease("alpha"))
        for _ in range(2):
            await renewed(raw, store)
        assert await raw.get(store.keys.lease("alpha")) == value
        lease.check()


async def test_it_expires_unless_it_is_renewed(store: Store, raw: Any) -> None:
    first = await take(store, ttl=0.05)
    await until(lambda: _absent(raw, store))
    second = await take(store)

    assert second.epoch > first.epoch


async def milliseconds(raw: Any) -> int:
    seconds, micros = await raw.time()
    return int(seconds) * 1000 + int(micros) // 1000


async def test_each_epoch_is_larger_even_after_the_server_lost_everything(store: Store, raw: Any) -> None:
    epochs = []
    for number in range(5):
        async with await take(store) as lease:
            epochs.append(lease.epoch)
        if number % 2:
            await raw.delete(store.keys.epoch("alpha"))
            # An epoch is at least the server's time; without this wait two could fall into the same millisecond.
            while await milliseconds(raw) <= epochs[-1]:
                pass

    assert epochs == sorted(set(epochs))
    assert abs(epochs[-1] - await milliseconds(raw)) < LIFE * 1000


async def test_an_epoch_is_larger_than_any_that_was_published(store: Store, raw: Any) -> None:
    future = await store.link.server_time(store.keys.head("alpha")) + 3_600_000
    await raw.hset(store.keys.head("alpha"), "epoch", future)
    async with await take(store) as lease:
        assert lease.epoch == future + 1

    await raw.set(store.keys.epoch("alpha"), future + 50)
    async with await take(store) as lease:
        assert lease.epoch == future + 51


@pytest.mark.parametrize("key", ["epoch", "head"])
@pytest.mark.parametrize("forged", [999_999_999_999_999, 99_999_999_999_999_999_999, 9_000_000_000_000])
async def test_an_epoch_far_ahead_of_the_time_does_not_count(store: Store, raw: Any, key: str, forged: int) -> None:
    now = await store.link.server_time(store.keys.head("alpha"))
    if key == "head":
        await raw.hset(store.keys.head("alpha"), "epoch", forged)
    else:
        await raw.set(store.keys.epoch("alpha"), forged)

    with capture_logs() as logs:
        async with await take(store) as lease:
            assert now <= lease.epoch < now + 60_000

    said = ["epoch_ignored"] if forged < 10**15 else []
    assert [line["event"] for line in logs] == said


async def test_an_epoch_far_ahead_of_the_time_counts_if_an_authentic_head_carries_it(
    store: Store, raw: Any, seal_keys: SealKeys
) -> None:
    future = 9_000_000_000_000
    await raw.set(store.keys.epoch("alpha"), future)
    publisher = await store.publisher("alpha", epoch=future, writer="a")
    await publisher.publish(now=NOW, put=records(1))

    for number in (1, 2):  # no epoch repeats, although nothing is published under the first
        async with await take(store, sealer=seal_keys) as lease:
            assert lease.epoch == future + number
    await raw.hset(store.keys.head("alpha"), "writer", b"\xff")
    async with await take(store, sealer=seal_keys) as lease:
        assert lease.epoch < future, "the head cannot be read"


async def test_without_seal_keys_no_head_is_authentic(store: Store, raw: Any) -> None:
    await raw.set(store.keys.epoch("alpha"), 9_000_000_000_000)
    publisher = await store.publisher("alpha", epoch=9_000_000_000_000, writer="a")
    await publisher.publish(now=NOW, put=records(1))

    async with await take(store, sealer=Unsealed()) as lease:
        assert lease.epoch < 9_000_000_000_000


@pytest.mark.usefixtures("_renewed_often")
async def test_it_is_lost_when_another_process_takes_it(store: Store, raw: Any) -> None:
    async with await take(store) as lease:
        publisher = await store.publisher("alpha", epoch=lease.epoch, writer="a")
        # Replaced, not deleted: the holder's next renewal takes a deleted lease again.
        other_one = Lease.acquire(store.link, store.keys, "alpha", ttl=LIFE, holder="host-b:18", former=lease)
        async with await other_one as other:
            await lease.lost.wait()
            with pytest.raises(LeaseLost, match=r"another palette-sync is at work, .* process 18 on host-b"):
                lease.check()
            with pytest.raises(Fenced):
                await publisher.publish(now=NOW, put=records(1))
            assert not other.lost.is_set()

    assert not await raw.exists(store.keys.lease("alpha"))


async def test_leaving_a_lost_lease_does_not_delete_the_new_holders(store: Store, raw: Any) -> None:
    async with await take(store):
        await raw.set(store.keys.lease("alpha"), "another")

    assert await raw.get(store.keys.lease("alpha")) == b"another"


@pytest.mark.usefixtures("_renewed_often")
async def test_a_deleted_lease_is_taken_again_while_its_epoch_is_in_force(store: Store, raw: Any) -> None:
    async with await take(store) as lease:
        await raw.delete(store.keys.lease("alpha"))
        await until(lambda: raw.exists(store.keys.lease("alpha")))
        assert not lease.lost.is_set()


@pytest.mark.usefixtures("_renewed_often")
async def test_it_is_lost_when_the_server_lost_its_epoch(store: Store, raw: Any) -> None:
    async with await take(store) as lease:
        await raw.delete(store.keys.lease("alpha"), store.keys.epoch("alpha"))
        await lease.lost.wait()

        with pytest.raises(LeaseLost) as caught:
            lease.check()
    assert "another" not in str(caught.value)


async def test_it_is_lost_when_redis_does_not_answer_until_it_expired(
    valkey_url: str, prefix: str, seal_keys: SealKeys, tmp_path: Path
) -> None:
    async with (
        Proxy(valkey_url, tmp_path) as proxy,
        Store.open(proxy.url, prefix=prefix, sealer=seal_keys) as store,
        await take(store, ttl=3) as lease,
    ):
        proxy.hold = b"EVALSHA"
        await proxy.holding.wait()
        await lease.lost.wait()
        proxy.release.set()


@pytest.mark.usefixtures("_renewed_often")
async def test_one_missed_renewal_does_no_harm(
    valkey_url: str, prefix: str, seal_keys: SealKeys, tmp_path: Path, raw: Any
) -> None:
    async with (
        Proxy(valkey_url, tmp_path) as proxy,
        Store.open(proxy.url, prefix=prefix, sealer=seal_keys) as store,
        await take(store) as lease,
    ):
        proxy.lose_request = b"EVALSHA"
        await until(lambda: proxy.lost)
        await renewed(raw, store)
        assert not lease.lost.is_set()


@pytest.mark.usefixtures("_renewed_often")
async def test_it_is_lost_when_its_key_has_another_type(store: Store, raw: Any) -> None:
    async with await take(store) as lease:
        async with raw.pipeline(transaction=True) as both:  # at once, or a renewal comes between
            both.delete(store.keys.lease("alpha"))
            both.lpush(store.keys.lease("alpha"), "somebody else's")
            await both.execute()
        await lease.lost.wait()
        with pytest.raises(LeaseLost):
            lease.check()


@pytest.mark.usefixtures("_renewed_often")
async def test_it_is_sound_only_while_redis_answers(
    valkey_url: str, prefix: str, seal_keys: SealKeys, tmp_path: Path, raw: Any
) -> None:
    async with (
        Proxy(valkey_url, tmp_path) as proxy,
        Store.open(proxy.url, prefix=prefix, sealer=seal_keys) as store,
        await take(store) as lease,
    ):
        assert lease.sound
        proxy.refuse = b"EVALSHA"
        await until(lambda: not lease.sound)
        lease.check()
        proxy.refuse = None
        await until(lambda: lease.sound)

        await raw.delete(store.keys.epoch("alpha"))
        await lease.lost.wait()
        assert not lease.sound


async def test_a_repeated_attempt_finds_the_lease_that_the_first_one_took(
    valkey_url: str, prefix: str, seal_keys: SealKeys, tmp_path: Path, raw: Any
) -> None:
    async with (
        Proxy(valkey_url, tmp_path) as proxy,
        Store.open(proxy.url, prefix=prefix, sealer=seal_keys) as store,
    ):
        async with await take(store):
            pass  # the script is known to the server now
        proxy.lose_answer = b"EVALSHA"
        async with await take(store) as lease:
            assert proxy.lost == 1
            assert int(await raw.get(store.keys.epoch("alpha"))) == lease.epoch
            publisher = await store.publisher("alpha", epoch=lease.epoch, writer="a")
            assert await publisher.publish(now=NOW, put={"u1": record("u1")}) == 1


async def test_a_body_that_fails_releases_the_lease(store: Store, raw: Any) -> None:
    with pytest.raises(ZeroDivisionError):
        async with await take(store):
            raise ZeroDivisionError

    assert not await raw.exists(store.keys.lease("alpha"))


async def test_a_body_that_is_cancelled_releases_the_lease(store: Store, raw: Any) -> None:
    inside = asyncio.Event()

    async def body() -> None:
        async with await take(store):
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(body())
    await inside.wait()
    task.cancel()
    await asyncio.wait([task])

    assert task.cancelled()
    assert not await raw.exists(store.keys.lease("alpha"))


async def test_an_absent_server_is_unavailable(prefix: str, seal_keys: SealKeys, tmp_path: Path) -> None:
    async with Store.open(f"unix://{tmp_path}/none.sock", prefix=prefix, sealer=seal_keys) as store:
        with pytest.raises(StoreUnavailable):
            await take(store)


async def test_a_former_lease_of_the_same_process_is_replaced_at_once(store: Store) -> None:
    first = await take(store)
    with pytest.raises(LeaseHeld):
        await take(store)

    second = await Lease.acquire(store.link, store.keys, "alpha", ttl=5, holder="test:1", former=first)

    assert second.epoch > first.epoch
    with pytest.raises(LeaseHeld):
        await Lease.acquire(store.link, store.keys, "alpha", ttl=5, holder="test:1", former=first)


@pytest.mark.parametrize("garbage", ["inf", "nan", "-1", "1e300", "9" * 20, "x"])
async def test_a_malformed_epoch_is_ignored(store: Store, raw: Any, garbage: str) -> None:
    await raw.set(store.keys.epoch("alpha"), garbage)
    await raw.hset(store.keys.head("alpha"), "epoch", garbage)

    lease = await take(store)

    assert abs(lease.epoch - await milliseconds(raw)) < LIFE * 1000
    assert int(await raw.get(store.keys.epoch("alpha"))) == lease.epoch


async def test_a_lease_that_is_taken_after_its_caller_was_cancelled_is_released(
    store: Store, valkey_url: str, prefix: str, seal_keys: SealKeys, tmp_path: Path, raw: Any
) -> None:
    async with await take(store):
        pass  # from now on the server knows the script
    async with Proxy(valkey_url, tmp_path) as proxy, Store.open(proxy.url, prefix=prefix, sealer=seal_keys) as through:
        proxy.hold = b"EVALSHA"
        taking = asyncio.create_task(take(through))
        await proxy.holding.wait()
        assert not await _absent(raw, store)
        taking.cancel()
        await asyncio.wait({taking})
        proxy.release.set()

    assert taking.cancelled()
    assert await _absent(raw, store)


async def test_nothing_may_be_written_to_clusters_shortly_before_the_lease_ends(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = await take(store)
    assert lease.may_write()
    begun = time.monotonic()

    monkeypatch.setattr(time, "monotonic", lambda: begun + LIFE * 0.89)
    assert lease.may_write()
    monkeypatch.setattr(time, "monotonic", lambda: begun + LIFE * 0.91)
    assert not lease.may_write(), "a request takes a while; another process may lead before it arrives"
    assert not lease.lost.is_set(), "as in a process that was stopped and has just woken"
    monkeypatch.undo()
    lease.lost.set()
    assert not lease.may_write()


async def test_its_epoch_is_above_the_one_that_the_process_knows_although_redis_lost_everything(
    store: Store, raw: Any
) -> None:
    """The host that Redis runs on now has a clock that is behind, so the server's time does not help."""
    known = await milliseconds(raw) + 120_000

    async with await Lease.acquire(store.link, store.keys, "alpha", ttl=LIFE, holder="host-a:17", floor=known) as lease:
        assert lease.epoch == known + 1
    async with await take(store) as lease:
        assert lease.epoch == known + 2


async def test_an_epoch_that_the_process_knows_counts_although_it_is_days_ahead(store: Store, raw: Any) -> None:
    known = await milliseconds(raw) + 10 * 24 * 3600 * 1000
    await raw.set(store.keys.epoch("alpha"), str(known + 5))

    async with await Lease.acquire(store.link, store.keys, "alpha", ttl=LIFE, holder="host-a:17", floor=known) as lease:
        assert lease.epoch == known + 6

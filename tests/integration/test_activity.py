"""What the daemon did in 24 hours survives a restart, reaches a standby, and is believed only if it is authentic."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from builders import HOUR, NOW
from integration.store_builders import raw_client
from palette_sync.core.activity import DAY, SLOT, Slot
from palette_sync.core.documents import format_time
from palette_sync.core.reasons import Reason
from palette_sync.reconcile.report import Change, Effect, PassReport
from palette_sync.service import activity as activity_module
from palette_sync.service.activity import Activity
from palette_sync.store.activity import MOST, read_activity, write_activity
from palette_sync.store.errors import StoreTooMuch

if TYPE_CHECKING:
    from datetime import datetime

    from palette_sync.store.redis import Store
    from palette_sync.store.seal import SealKeys

BUSY = Slot(NOW).with_pass(listed=True, failed=False, palette=4, changes={"rotated": 2})


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[datetime]:
    """The time of the service; a test changes its only item."""
    moment = [NOW]
    monkeypatch.setattr(activity_module, "utc_now", lambda: moment[0])
    return moment


@pytest.fixture
def activity(store: Store, seal_keys: SealKeys, clock: list[datetime]) -> Any:
    """Makes the activity of a new process."""
    configuration: Any = SimpleNamespace(shared=SimpleNamespace(store=store, sealer=seal_keys))
    return lambda: Activity(configuration)


def report(*effects: Effect, **changes: Any) -> PassReport:
    some = tuple(Change("c1", "web", "team", (effect,), Reason.VERIFIED, "") for effect in effects)
    facts: dict[str, Any] = {"palette_requests": 3, "kube_requests": 5, "changes": some}
    return PassReport("alpha", "x", NOW, 1.0, 1, 1, **(facts | changes))


async def test_only_authentic_slots_of_the_last_day_are_read(
    store: Store, seal_keys: SealKeys, valkey_url: str
) -> None:
    old = Slot(NOW - DAY)
    await write_activity(store, seal_keys, "alpha", [BUSY, old, Slot(NOW - SLOT)])
    key = store.keys.activity("alpha")
    async with raw_client(valkey_url) as raw:
        mine = await raw.hget(key, format_time(NOW))
        await raw.hset(key, format_time(NOW - HOUR), mine)  # of another slot
        await raw.hset(key, format_time(NOW - SLOT), mine.replace(b'"kube":0', b'"kube":9'))
        await raw.hset(key, "soon", b"x" * 100_000)

        assert await read_activity(store, seal_keys, "alpha", now=NOW) == {NOW: BUSY}

        await raw.hset(key, mapping={str(number): "x" for number in range(MOST)})
        with pytest.raises(StoreTooMuch, match="delete the key"):
            await read_activity(store, seal_keys, "alpha", now=NOW)


async def test_what_is_authentic_and_not_a_slot_is_left_out(store: Store, seal_keys: SealKeys, valkey_url: str) -> None:
    from palette_sync.store.signed_value import ValueSigner

    signed = ValueSigner(seal_keys, store.keys.prefix, "alpha").sign("activity", format_time(NOW), b'{"passes":"x"}')
    async with raw_client(valkey_url) as raw:
        await raw.hset(store.keys.activity("alpha"), format_time(NOW), signed)
        assert await read_activity(store, seal_keys, "alpha", now=NOW) == {}


async def test_a_new_process_goes_on_where_the_last_one_ended(
    store: Store, seal_keys: SealKeys, activity: Any, clock: list[datetime]
) -> None:
    first = activity()
    first.pass_finished(report(Effect.ROTATED, Effect.HELD), listed=True)
    first.pass_finished(report(Effect.FAILED), listed=False)
    first.asked("alpha", "resync", "somebody")
    await first.exchange(["alpha"])

    clock[0] = NOW + timedelta(minutes=2)
    second = activity()
    second.pass_failed("alpha", Reason.STORE_UNAVAILABLE)
    second.pass_finished(report(error="Palette is away"), listed=True)
    await second.exchange(["alpha"])

    (slot,) = second.day("alpha").values()
    assert (slot.passes, slot.listings, slot.failed, slot.error) == (4, 2, 2, "Palette is away")
    assert (slot.palette, slot.kube) == (9, 15)
    assert slot.changes == {"rotated": 1, "failed": 1}
    assert [(one.what, one.by) for one in slot.asked] == [("resync", "somebody")]
    assert await read_activity(store, seal_keys, "alpha", now=clock[0]) == {NOW: slot}


async def test_a_pass_that_could_not_list_a_project_failed(activity: Any) -> None:
    one = activity()
    one.pass_finished(report(problems=("Shop: away", "Web: away")), listed=True)
    one.pass_finished(report(skipped=2), listed=True)
    (slot,) = one.day("alpha").values()
    assert (slot.failed, slot.error) == (2, "2 clusters were not worked on")


async def test_after_a_day_a_slot_is_gone(
    store: Store, seal_keys: SealKeys, activity: Any, clock: list[datetime], valkey_url: str
) -> None:
    one = activity()
    one.pass_finished(report(), listed=True)
    await one.exchange(["alpha"])
    clock[0] = NOW + DAY
    one.pass_finished(report(), listed=True)
    await one.exchange(["alpha"])

    assert list(one.day("alpha")) == [NOW + DAY]
    async with raw_client(valkey_url) as raw:
        assert await raw.hkeys(store.keys.activity("alpha")) == [format_time(NOW + DAY).encode()]


async def test_what_another_process_leads_is_its_to_count(activity: Any) -> None:
    one = activity()
    one.pass_finished(report(), listed=True)
    await one.exchange([])
    assert one.day("alpha") == {}


async def test_what_redis_does_not_take_is_written_later(
    store: Store, seal_keys: SealKeys, activity: Any, valkey_url: str
) -> None:
    one, key = activity(), store.keys.activity("alpha")
    async with raw_client(valkey_url) as raw:
        await raw.set(key, "of another program")
        one.pass_finished(report(), listed=True)
        await one.exchange(["alpha"])
        await raw.delete(key)
    assert one.day("alpha")[NOW].passes == 1
    await one.exchange(["alpha"])
    assert (await read_activity(store, seal_keys, "alpha", now=NOW))[NOW].passes == 1

"""A daemon that starts cannot know whether Redis holds the newest: it confirms only what it has seen or written."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from builders import NOW, credential, record, records, token_in
from integration.runners import issued, running, runtime
from integration.store_builders import writer
from palette_sync.core.model import ClusterMemory
from palette_sync.runner.last_published import LastPublished
from palette_sync.simulator import Fault
from palette_sync.store.life import Life
from palette_sync.store.redis import Store
from palette_sync.store.seal import SealKeys

if TYPE_CHECKING:
    from integration.stage import Stage
    from palette_sync.core.model import Head
    from palette_sync.store.publisher import Publisher

LATER = NOW + timedelta(hours=1)


async def head_of(stage: Stage) -> Head:
    state = await stage.state()
    assert state.trusted
    assert state.head is not None
    return state.head


def sick_project(stage: Stage) -> tuple[str, Fault]:
    """A project whose clusters cannot be listed."""
    uid = next(iter(stage.simulator.world.instances["alpha"].projects))
    return uid, Fault(target="palette", kind="status", status=403, project_uid=uid)


async def clusters_of(stage: Stage, project: str) -> set[str]:
    records = (await stage.state()).records
    return {uid for uid, one in records.items() if one.project is not None and one.project.uid == project}


async def test_after_a_restart_without_a_change_there_is_no_new_version(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=4)
    async with running(stage) as one:
        await one.list()
    before = await head_of(stage)

    async with running(stage) as one:
        await one.list()

    after = await head_of(stage)
    assert (after.epoch, after.version, after.unconfirmed) == (before.epoch, before.version, ())


async def test_after_a_restart_clusters_that_could_not_be_listed_are_unconfirmed_until_they_are(
    stage_of: Any,
) -> None:
    stage: Stage = await stage_of(clusters=6)
    async with running(stage) as one:
        await one.list()
    sick, fault = sick_project(stage)
    kept = await clusters_of(stage, sick)
    assert kept
    healthy = next(uid for uid in (await stage.state()).records if uid not in kept)
    before = await head_of(stage)

    stage.simulator.faults.add(fault)
    stage.simulator.world.set_tags(healthy, ["team:web"])
    async with running(stage) as one:
        await one.list()
        during = await head_of(stage)
        assert during.epoch > before.epoch
        assert set(during.unconfirmed) == kept

        stage.simulator.faults.clear()
        await one.list()
        after = await head_of(stage)
        assert (after.epoch, after.version, after.unconfirmed) == (during.epoch, during.version + 1, ())

        stage.simulator.faults.add(fault)
        stage.simulator.world.set_tags(healthy, ["team:shop"])
        await one.list()
        assert (await head_of(stage)).unconfirmed == (), "what was confirmed in this life stays confirmed"


async def test_a_restart_signs_nothing_of_a_palette_that_does_not_answer(stage_of: Any, raw: Any) -> None:
    stage: Stage = await stage_of(clusters=4)
    async with running(stage) as one:
        await one.list()
    key = stage.shared.store.keys.head("alpha")
    before = await raw.hgetall(key)
    stage.simulator.faults.add(Fault(target="palette", kind="status", status=500))

    async with running(stage) as one:
        one.mailbox.check_key()
        await one.list()

    after = await raw.hgetall(key)
    assert {name: after[name] for name in (b"epoch", b"version", b"mac")} == {
        name: before[name] for name in (b"epoch", b"version", b"mac")
    }


async def test_the_first_pass_of_a_life_is_a_listing_whatever_was_asked_for(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=2)
    async with running(stage) as one:
        await one.nudge()
        await one.nudge()

        assert one.watcher.listed == [True, False]


async def test_a_new_seal_key_is_used_after_the_first_listing_of_a_life(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=3, oidc_share=0.0)
    async with running(stage) as one:
        await one.list()
    old = stage.settings.seal.keys.get_secret_value()  # type: ignore[union-attr]
    both = SealKeys.from_lines(f"{SealKeys.generate_line('new')}\n{old}")
    stage.shared.store.use(both)
    stage.shared = replace(stage.shared, sealer=both)

    async with running(stage, replace(runtime(stage), sealer=both)) as one:
        await one.list()

    state = await stage.state()
    assert all(both.current(credential.sealed) for credential in state.credentials.values())
    assert sum(issued(stage).values()) == 3


async def test_a_flush_before_the_first_listing_is_refilled_with_everything_unconfirmed(
    store: Store, raw: Any, prefix: str, seal_keys: SealKeys
) -> None:
    await (await writer(store)).publish(now=NOW, put=records(3), rotated={"u00000": credential()}, complete=True)
    known = LastPublished("alpha")
    first = await opened(store, known)
    await known.restore(first, epoch=1, sealer=seal_keys, now=NOW)
    known.remember(first)
    await raw.delete(*[key async for key in raw.scan_iter(match=f"*{prefix}*")])

    again = await opened(store, known)
    await known.restore(again, epoch=again.epoch, sealer=seal_keys, now=LATER)

    state = await store.load("alpha")
    assert state.trusted
    assert state.head is not None
    assert state.head.unconfirmed == tuple(records(3))
    assert token_in(state, "u00000", sealer=seal_keys, prefix=prefix).reveal() == "canary-token"


async def opened(store: Store, known: LastPublished) -> Publisher:
    """A publisher of the process that knows `known`, under a new epoch."""
    epoch = (await writer(store)).epoch
    return await store.publisher("alpha", epoch=epoch, writer="test:1", life=known.life)


async def test_a_process_that_leads_on_confirms_what_it_holds_in_memory(
    store: Store, raw: Any, prefix: str, seal_keys: SealKeys
) -> None:
    known = LastPublished("alpha")
    publisher = await opened(store, known)
    publisher.listing_tried(records(3).keys())
    await publisher.publish(now=NOW, put=records(3), complete=True)
    known.remember(publisher)
    await raw.delete(*[key async for key in raw.scan_iter(match=f"*{prefix}*")])

    again = await opened(store, known)
    await known.restore(again, epoch=again.epoch, sealer=seal_keys, now=LATER)

    head = (await store.load("alpha")).head
    assert head is not None
    assert head.unconfirmed == ()


async def test_after_another_process_led_nothing_is_confirmed(store: Store, seal_keys: SealKeys) -> None:
    known = LastPublished("alpha")
    publisher = await opened(store, known)
    publisher.listing_tried(records(3).keys())
    await publisher.publish(now=NOW, put=records(3), complete=True)
    known.remember(publisher)
    other = await writer(store)
    await other.publish(now=NOW, put=records(3, title="by another"))

    again = await opened(store, known)
    await known.restore(again, epoch=again.epoch, sealer=seal_keys, now=LATER)

    assert not known.life.listed
    assert again.unconfirmed_of(records(3)) == set(records(3))


async def test_an_own_version_whose_answer_was_lost_is_not_that_of_another_process(
    store: Store, seal_keys: SealKeys
) -> None:
    known = LastPublished("alpha")
    publisher = await opened(store, known)
    publisher.listing_tried(records(3).keys())
    await known.restore(publisher, epoch=publisher.epoch, sealer=seal_keys, now=NOW)
    await publisher.publish(now=NOW, put=records(2), complete=True)
    known.remember(publisher)
    await publisher.publish(now=NOW, put=records(3))  # it arrived, but nobody remembers it

    again = await opened(store, known)
    await known.restore(again, epoch=again.epoch, sealer=seal_keys, now=LATER)

    assert known.life.listed


async def test_what_is_put_rotated_or_dropped_is_not_unconfirmed(store: Store) -> None:
    await (await writer(store)).publish(now=NOW, put=records(4), complete=True)
    publisher = await opened(store, LastPublished("alpha"))

    await publisher.publish(
        now=LATER,
        put={"u00000": records(1)["u00000"], "u00001": record("u00001", "alpha-00001", title="new")},
        rotated={"u00002": credential()},
    )
    assert publisher.state.head is not None
    assert publisher.state.head.unconfirmed == ("u00003",)

    await publisher.publish(now=LATER, drop=["u00003"], status={"x": 1})
    assert publisher.state.head.unconfirmed == ()
    assert publisher.state == await store.load("alpha")


async def test_the_check_moves_once_a_listing_was_tried(store: Store) -> None:
    await (await writer(store)).publish(now=NOW, put=records(1), complete=True)
    publisher = await opened(store, LastPublished("alpha"))

    await publisher.write_unversioned(now=LATER)
    before = (await store.load("alpha")).head
    publisher.listing_tried([])
    await publisher.write_unversioned(now=LATER)
    after = (await store.load("alpha")).head

    assert before is not None
    assert after is not None
    assert (before.checked_at, after.checked_at) == (NOW, LATER)


async def test_documents_that_an_older_key_signed_are_signed_again(valkey_url: str, prefix: str) -> None:
    old, new = SealKeys.generate_line("old"), SealKeys.generate_line("new")
    before, both, after = (SealKeys.from_lines(lines) for lines in (old, f"{new}\n{old}", new))
    async with Store.open(valkey_url, prefix=prefix, sealer=before) as store:
        await (await writer(store)).publish(
            now=NOW, put=records(1), complete=True, memory={"u00000": ClusterMemory(verified_at=NOW)}
        )
    async with Store.open(valkey_url, prefix=prefix, sealer=both) as store:
        known = LastPublished("alpha")
        publisher = await opened(store, known)
        publisher.listing_tried(["u00000"])
        await known.restore(publisher, epoch=publisher.epoch, sealer=both, now=LATER)
    async with Store.open(valkey_url, prefix=prefix, sealer=after) as store:
        state = await store.load("alpha")
        assert state.trusted
        assert state.memory == {"u00000": ClusterMemory(verified_at=NOW)}


def test_a_life_begins_without_anything() -> None:
    life = Life()
    life.confirm(["a", "b"])
    life.listed = True
    assert life.unconfirmed(["a", "c"]) == {"c"}

    life.forget(["b"])
    assert life.unconfirmed(["a", "b"]) == {"b"}
    life.begin()

    assert not life.listed
    assert life.unconfirmed(["a"]) == {"a"}

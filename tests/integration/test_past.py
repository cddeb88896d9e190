"""What diagnosis reads from a real server: former versions, changes as they happen, who leads."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from builders import NOW, access, credential, records
from integration.store_builders import writer
from palette_sync.core.documents import format_time
from palette_sync.core.history import at_version, transitions
from palette_sync.core.model import AccessState
from palette_sync.core.reasons import Reason
from palette_sync.core.snapshot_codec import encode_record, record_in_history
from palette_sync.store.inspect import Leader, Unverified, inspect
from palette_sync.store.lease import Lease
from palette_sync.store.past import ChangeReader, former_version, read_changes, read_history

if TYPE_CHECKING:
    from palette_sync.store.redis import Store
    from palette_sync.store.seal import SealKeys


async def published(store: Store) -> dict[str, Any]:
    """Two clusters; one of them fails, gets a new token, and is dropped. Returns the records of now, as the history has
    them.
    """
    publisher = await writer(store)
    both = records(2)
    await publisher.publish(now=NOW, put=both, rotated=dict.fromkeys(both, credential()), complete=True)
    failed = replace(both["u00001"], access=access(AccessState.FAILED, Reason.UNREACHABLE, "no answer"))
    await publisher.publish(now=NOW, put={"u00001": failed})
    await publisher.publish(now=NOW, rotated={"u00001": credential("other")})
    await publisher.publish(now=NOW, drop=["u00001"])
    return {"u00000": record_in_history(encode_record(both["u00000"]))}


async def test_former_versions_are_what_was_published(store: Store, seal_keys: SealKeys) -> None:
    current = await published(store)

    entries, changes = await read_history(store, seal_keys, "alpha"), await read_changes(store, "alpha")

    assert [entry.version for entry in entries] == [1, 2, 4]
    assert [change.version for change in changes] == [1, 2, 3, 4]
    found = transitions(entries, changes, current)
    assert [(one.version, one.name, one.what, one.reason) for one in found] == [
        (4, "alpha-00001", "removed", "Unreachable"),
        (3, "alpha-00001", "new token", "Unreachable"),
        (2, "alpha-00001", "ready → failed", "Unreachable"),
        (1, "alpha-00000", "published", "Verified"),
        (1, "alpha-00001", "published", "Verified"),
    ]
    before = at_version(entries, current, version=2, newest=4)
    assert {uid: one["access"]["state"] for uid, one in before.items()} == {"u00000": "ready", "u00001": "failed"}
    assert "ca_data" not in before["u00000"]["server"]


async def test_the_newest_versions_are_read_alone(store: Store, seal_keys: SealKeys) -> None:
    await published(store)

    entries = await read_history(store, seal_keys, "alpha", after=2)
    changes = await read_changes(store, "alpha", after=2)

    assert ([one.version for one in entries], [one.version for one in changes]) == ([4], [3, 4])


async def test_one_version_is_read_by_itself(store: Store, seal_keys: SealKeys) -> None:
    await published(store)

    entry = await former_version(store, seal_keys, "alpha", 2)

    assert entry is not None
    assert (entry.version, list(entry.was)) == (2, ["u00001"])
    assert await former_version(store, seal_keys, "alpha", 3) is None, "it only rotated a token"
    assert await former_version(store, seal_keys, "alpha", 9) is None


async def test_entries_that_another_program_wrote_are_left_out(store: Store, seal_keys: SealKeys, raw: Any) -> None:
    await published(store)
    history, changes = store.keys.history("alpha"), store.keys.changes("alpha")
    for number, fields in enumerate(
        ({"at": "x"}, {"at": format_time(NOW)}, {"at": format_time(NOW), "was": "x"}, {"was": b"\xff"}), start=10
    ):
        await raw.xadd(history, fields, id=f"{number}-0")
    await raw.xadd(changes, {"at": "never"}, id="10-0")
    await raw.xadd(changes, {"at": format_time(NOW), "put": "{", "drop": "5"}, id="11-0")

    assert [entry.version for entry in await read_history(store, seal_keys, "alpha")] == [1, 2, 4]
    odd = (await read_changes(store, "alpha"))[-1]
    assert (odd.version, odd.put, odd.drop) == (11, frozenset(), frozenset())
    assert [await former_version(store, seal_keys, "alpha", number) for number in (10, 11, 12)] == [None] * 3


async def test_an_entry_that_somebody_changed_is_left_out(store: Store, seal_keys: SealKeys, raw: Any) -> None:
    await published(store)
    history = store.keys.history("alpha")
    (entry,) = await raw.xrange(history, "2-0", "2-0")
    await raw.xadd(history, entry[1], id="5-0")

    assert [one.version for one in await read_history(store, seal_keys, "alpha")] == [1, 2, 4]
    assert len(await read_history(store, Unverified(), "alpha")) == 4, "who has no key cannot tell"


async def test_changes_are_followed_as_they_happen(store: Store) -> None:
    await published(store)
    reader = ChangeReader(store, {"alpha": 4})
    waiting = asyncio.create_task(reader.wait())
    publisher = await writer(store)
    await publisher.publish(now=NOW, drop=["u00000"])

    found = await waiting or await reader.wait()

    assert [(name, one.version, one.drop) for name, one in found] == [("alpha", 5, frozenset({"u00000"}))]


async def test_who_leads_is_seen(store: Store, seal_keys: SealKeys) -> None:
    await published(store)
    assert (await inspect(store, seal_keys, "alpha")).leader is None

    async with await Lease.acquire(store.link, store.keys, "alpha", ttl=30, holder="there:7"):
        found = await inspect(store, seal_keys, "alpha")

    assert found.leader is not None
    assert (found.leader.holder, found.leader.since is None, found.denied) == ("there:7", False, frozenset())
    assert found.state.trusted


async def test_a_lease_of_another_program_is_somebodys(store: Store, seal_keys: SealKeys, raw: Any) -> None:
    await raw.set(store.keys.lease("alpha"), "x")

    assert (await inspect(store, seal_keys, "alpha")).leader == Leader("somebody", None)

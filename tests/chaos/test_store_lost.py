"""Redis dies, is emptied, is taken over by another writer, or is tampered with; and no secret is readable in it."""

from __future__ import annotations

import base64
import json
import os
import secrets
import signal
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import redis.asyncio as aioredis

from builders import token_in
from integration.runners import running
from palette_sync.assembly.instance import client_of, open_shared, ports_of
from palette_sync.config import load
from palette_sync.core.model import AccessState, ServiceAccountAuth
from palette_sync.reconcile.run import run_pass
from palette_sync.simulator.faults import Fault
from palette_sync.store.embedded import EmbeddedValkey
from palette_sync.store.lease import Lease
from palette_sync.store.redis import Fenced, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from integration.stage import Stage


@pytest.fixture
async def raw(valkey_url: str) -> AsyncIterator[aioredis.Redis]:
    async with aioredis.from_url(valkey_url) as client:
        yield client


async def test_a_tampered_server_address_is_never_contacted_and_the_snapshot_is_repaired(
    stage_of: Any, raw: Any
) -> None:
    stage: Stage = await stage_of(clusters=3, oidc_share=0.0)
    await stage.run()
    before = await stage.state()
    victim, other = list(before.records)[:2]
    key = stage.shared.store.keys.clusters("alpha")
    real = before.records[victim].server
    trap = before.records[other].server
    assert real is not None
    assert trap is not None
    changed = (await raw.hget(key, victim)).replace(real.url.encode(), b"https://127.0.0.1:9")
    await raw.hset(key, victim, changed)

    report = await stage.run()

    assert any("refused" in note for note in report.notes)
    assert stage.simulator.requests.count("palette", path_regex=".*adminKubeconfig") == 3
    after = await stage.state()
    assert after.trusted
    assert after.records[victim].server == real
    assert after.records[victim].name == before.records[victim].name
    assert after.records[victim].access.state is AccessState.READY
    assert await stage.pods(victim) > 0


async def test_a_tampered_server_address_is_removed_while_its_cluster_cannot_be_reached(
    stage_of: Any, raw: Any
) -> None:
    stage: Stage = await stage_of(clusters=2, oidc_share=0.5)
    await stage.run()
    key = stage.shared.store.keys.clusters("alpha")
    for uid, record in (await raw.hgetall(key)).items():
        await raw.hset(key, uid, record.replace(b'"https://127.0.0.1:', b'"https://127.0.0.9:'))
    stage.simulator.faults.add(Fault(target="palette", kind="status", path="/assets/|/oidc$", status=403))

    await stage.run()

    after = await stage.state()
    assert after.trusted
    assert [one.server for one in after.records.values()] == [None, None]
    assert not after.credentials


async def test_a_token_moved_to_another_cluster_does_not_open_and_is_replaced(stage_of: Any, raw: Any) -> None:
    stage: Stage = await stage_of(clusters=2, oidc_share=0.0)
    await stage.run()
    one, two = (await stage.state()).records
    key = stage.shared.store.keys.credentials("alpha")
    await raw.hset(key, one, await raw.hget(key, two))

    await stage.run(resync=True)

    assert await stage.pods(one) > 0
    assert await stage.pods(two) > 0


async def damage(raw: Any, key: str, field: str, **changes: object) -> None:
    """Change members of a document, and leave the mac in front of it as it is."""
    mac, brace, rest = (await raw.hget(key, field)).partition(b"{")
    await raw.hset(key, field, mac + json.dumps(json.loads(brace + rest) | changes).encode())


NEVER, FIRST = "9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z"
DEEP = base64.urlsafe_b64encode(b'{"kid":' * 100_000).decode() + "..a.b.c"


@pytest.mark.parametrize(
    ("what", "changes"),
    [
        pytest.param("credentials", {"renew_at": FIRST}, id="a renewal time in the year 1"),
        pytest.param("credentials", {"renew_at": NEVER, "expires_at": FIRST}, id="an expiry in the year 1"),
        pytest.param("credentials", {"sealed": DEEP}, id="a JWE header of deeply nested brackets"),
        pytest.param("work", {"verified_at": NEVER}, id="a verification in the year 9999"),
        pytest.param(
            "work", {"retired": [{"name": "a", "uid": "b", "delete_at": NEVER}]}, id="a deletion in the year 9999"
        ),
        pytest.param("issuers", {"valid_until": NEVER}, id="an issuer valid until the year 9999"),
    ],
)
async def test_values_written_without_a_seal_key_never_stop_the_daemon(
    stage_of: Any, raw: Any, what: str, changes: dict[str, object]
) -> None:
    stage: Stage = await stage_of(clusters=2, oidc_share=0.5)
    await stage.run()
    key = stage.shared.store.keys.of("alpha", what)
    for field in await raw.hkeys(key):
        await damage(raw, key, field, **changes)

    async with running(stage) as one:
        report = await one.list()

        assert not one.task.done()
        assert not one.watcher.failed
        assert report.access == {"ready": 2}


@pytest.mark.parametrize("what", ["clusters", "status"])
async def test_a_document_nested_too_deeply_to_be_encoded_again_is_replaced(stage_of: Any, raw: Any, what: str) -> None:
    stage: Stage = await stage_of(clusters=2)
    await stage.run()
    keys = stage.shared.store.keys
    deep = b',"new":' + b'{"a":' * 300 + b"1" + b"}" * 301
    if what == "status":
        await raw.set(keys.status("alpha"), (await raw.get(keys.status("alpha")))[:-1] + deep)
    else:
        for uid, record in (await raw.hgetall(keys.clusters("alpha"))).items():
            await raw.hset(keys.clusters("alpha"), uid, record[:-1] + deep)

    report = await stage.run()

    assert report.access == {"ready": 2}
    after = await stage.state()
    assert after.trusted
    assert not after.problems


async def test_an_emptied_store_is_refilled_with_working_access(stage_of: Any, raw: Any) -> None:
    stage: Stage = await stage_of(clusters=3)
    await stage.run()
    keys = [key async for key in raw.scan_iter(match=f"*{stage.settings.redis.prefix}*")]
    await raw.delete(*keys)

    report = await stage.run()

    assert dict(report.access) == {"ready": 3}
    assert stage.kube_writes() == 0, "the objects in the clusters are found as they should be"


async def test_a_writer_with_an_old_epoch_publishes_nothing(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=2, oidc_share=0.0)
    await stage.run()
    store = stage.shared.store
    async with client_of("alpha", stage.settings.instances["alpha"], stage.shared.limits) as client:
        async with await Lease.acquire(store.link, store.keys, "alpha", ttl=15, holder="one:1") as lease:
            publisher = await store.publisher("alpha", epoch=lease.epoch, writer="one")
        async with await Lease.acquire(store.link, store.keys, "alpha", ttl=15, holder="two:2"):
            before = await stage.state()
            added = await stage.simulator.world.add_cluster("alpha", None, "late")
            ports = ports_of(stage.shared, "alpha", client, publisher=publisher, clock=stage.clock)
            with pytest.raises(Fenced):
                await run_pass(ports, pass_id="overtaken")

    after = await stage.state()
    assert added.uid not in after.records
    assert after.head == before.head


async def test_no_token_is_issued_after_the_lease_is_lost(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=3, oidc_share=0.0)
    async with (
        client_of("alpha", stage.settings.instances["alpha"], stage.shared.limits) as client,
        await Lease.acquire(stage.shared.store.link, stage.shared.store.keys, "alpha", ttl=15, holder="one:1") as lease,
    ):
        publisher = await stage.shared.store.publisher("alpha", epoch=lease.epoch, writer="one")
        ports = ports_of(stage.shared, "alpha", client, publisher=publisher, clock=stage.clock, may_issue=lambda: False)
        await run_pass(ports, pass_id="suspended")

    assert stage.kube_requests() == 0
    assert all(not cluster.tokens.issued for cluster in stage.simulator.world.clusters.values())


async def test_a_redis_server_killed_during_a_pass_loses_nothing_that_was_published(
    stage_of: Any, tmp_path: Path
) -> None:
    stage: Stage = await stage_of(clusters=6, oidc_share=0.0)
    data = tmp_path / "valkey"
    data.mkdir()
    environ = {"PALETTE_SYNC_REDIS__PREFIX": f"test-{secrets.token_hex(4)}"}

    async def once(server: EmbeddedValkey, *, die: bool = False) -> Any:
        settings = load(stage.directory / "config.toml", environ={**environ, "PALETTE_SYNC_REDIS__URL": server.url})
        async with (
            open_shared(settings) as shared,
            client_of("alpha", settings.instances["alpha"], shared.limits) as client,
            await Lease.acquire(shared.store.link, shared.store.keys, "alpha", ttl=1, holder="test:1") as lease,
        ):
            publisher = await shared.store.publisher("alpha", epoch=lease.epoch, writer="test")

            def progress(_stage: str, done: int, _total: int) -> None:
                if die and done == 3:
                    os.kill(server.pid, signal.SIGKILL)

            ports = ports_of(shared, "alpha", client, publisher=publisher, progress=progress)
            report, _ = await run_pass(ports, pass_id="x")
            return report, await shared.store.load("alpha")

    async with EmbeddedValkey(directory=data) as server:
        with pytest.raises(StoreUnavailable):
            await once(server, die=True)
    async with EmbeddedValkey(directory=data) as server:
        report, state = await once(server)

    assert state.trusted
    assert dict(report.access) == {"ready": 6}
    assert len(state.credentials) == 6


async def test_tokens_issued_in_the_future_are_renewed_after_a_clock_leap(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=1, projects=1, oidc_share=0.0)
    await stage.run()
    first = (await stage.state()).credentials

    stage.offset = timedelta(hours=-3)
    report = await stage.run()

    assert [change.reason for change in report.changes] == ["TokenDue"]
    assert (await stage.state()).credentials != first


async def test_no_secret_is_readable_in_redis_or_in_the_log(
    stage_of: Any, raw: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    stage: Stage = await stage_of(clusters=6)
    await stage.run()
    stage.advance(hours=17)
    await stage.run(resync=True)
    state = await stage.state()
    tokens = [
        token_in(state, uid, sealer=stage.shared.sealer, prefix=stage.shared.store.keys.prefix).reveal()
        for uid in state.credentials
    ]
    canaries = [text.encode() for text in (*stage.simulator.secrets(), *tokens)]
    assert len(tokens) == 4

    stored = b""
    async for key in raw.scan_iter(match=f"*{stage.settings.redis.prefix}*"):
        stored += key + (await raw.dump(key) or b"")
    printed = capsys.readouterr()

    logged = (printed.out + printed.err).encode()
    assert len(stored) > 1000
    for canary in canaries:
        assert canary not in stored
        assert canary not in logged
    assert all(isinstance(record.auth, ServiceAccountAuth) or record.auth for record in state.records.values())

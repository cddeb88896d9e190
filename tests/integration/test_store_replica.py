"""A server that becomes a replica while connections to it are open, and Sentinels that do not agree."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
import redis.asyncio as aioredis
from redis import exceptions

from integration.store_builders import Proxy, raw_client, until
from palette_sync.store.embedded import EmbeddedValkey
from palette_sync.store.errors import StoreUnavailable
from palette_sync.store.redis import Store
from palette_sync.store.seal import Unsealed
from palette_sync.store.sentinel import Sentinels
from palette_sync.store.streams import read_on

if TYPE_CHECKING:
    from pathlib import Path

NOWHERE = ("REPLICAOF", "127.0.0.1", "1")


async def test_a_write_that_a_replica_refuses_goes_to_the_server_that_stands_at_the_address_now(tmp_path: Path) -> None:
    """As behind a virtual address, or a name in DNS."""
    async with EmbeddedValkey() as former, EmbeddedValkey() as new, Proxy(former.url, tmp_path) as address:
        async with Store.open(address.url, prefix="p", sealer=Unsealed()) as store, raw_client(former.url) as raw:
            # Two connections, so that an idle one leads to the former master too.
            async with asyncio.TaskGroup() as group:
                for _ in range(2):
                    group.create_task(store.ping())
            await raw.execute_command(*NOWHERE)
            address.lead_to(new.url)

            assert await store.link.command("test", "SADD", "p:instances", "alpha") == 1

        async with raw_client(new.url) as raw:
            assert await raw.smembers("p:instances") == {b"alpha"}


async def test_a_wait_that_a_demotion_ends_may_be_repeated() -> None:
    async with (
        EmbeddedValkey() as server,
        Store.open(server.url, prefix="p", sealer=Unsealed()) as store,
        raw_client(server.url) as raw,
    ):
        waiting = asyncio.create_task(read_on(store.link, {"s": "0-0"}, wait=60.0))
        await until(lambda: _blocked(raw))
        await raw.execute_command(*NOWHERE)

        with pytest.raises(StoreUnavailable, match="is a replica and takes no writes"):
            await waiting


async def _blocked(raw: Any) -> bool:
    return bool((await raw.info("clients"))["blocked_clients"])


class Witness:
    """A Sentinel with an opinion."""

    def __init__(self, port: int = 0, epoch: int = 0, *, error: Exception | None = None, hangs: bool = False) -> None:
        self._port, self._epoch, self._error, self._hangs = port, epoch, error, hangs

    async def sentinel_masters(self) -> dict[str, dict[str, Any]]:
        if self._hangs:
            await asyncio.Event().wait()
        if self._error is not None:
            raise self._error
        state = {"is_master": True, "is_sdown": False, "is_odown": False, "num-other-sentinels": 2}
        return {"main": {**state, "ip": "127.0.0.1", "port": self._port, "config-epoch": self._epoch}}


def sentinels(*witnesses: Witness) -> Sentinels:
    found = Sentinels([])
    found.sentinels = list(witnesses)
    return found


async def test_the_sentinel_with_the_newest_configuration_names_the_master() -> None:
    stale, fresh = Witness(6001, 3), Witness(6002, 4)

    assert await sentinels(stale, fresh, stale).discover_master("main") == ("127.0.0.1", 6002)


async def test_a_sentinel_that_hangs_delays_the_others_only_a_moment() -> None:
    assert await sentinels(Witness(hangs=True), Witness(6001)).discover_master("main") == ("127.0.0.1", 6001)


async def test_what_a_sentinel_refuses_counts_if_no_other_one_knows_the_master() -> None:
    away, refuses = Witness(error=exceptions.ConnectionError()), Witness(error=exceptions.NoPermissionError("no"))

    with pytest.raises(exceptions.NoPermissionError):
        await sentinels(away, refuses).discover_master("main")
    with pytest.raises(aioredis.sentinel.MasterNotFoundError):
        await sentinels(away).discover_master("main")
    with pytest.raises(aioredis.sentinel.MasterNotFoundError):
        await sentinels(Witness(6001)).discover_master("other")
    assert await sentinels(away, refuses, Witness(6001)).discover_master("main") == ("127.0.0.1", 6001)

"""A connection that breaks, a server that dies, a caller that is cancelled: what was sent counts once or not at all."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import subprocess
import sys
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from redis import exceptions

from builders import NOW, credential, record, records
from integration.store_builders import Proxy, raw_client, until, writer
from palette_sync.core.model import ClusterMemory
from palette_sync.store import connect, fenced_writer
from palette_sync.store.embedded import EmbeddedValkey
from palette_sync.store.redis import Store, StoreError, StoreUnavailable
from palette_sync.store.server import foreign_keys, server_facts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from palette_sync.store.seal import SealKeys

LATER = NOW + timedelta(minutes=10)


@pytest_asyncio.fixture
async def proxy(valkey_url: str, tmp_path: Path) -> AsyncIterator[Proxy]:
    async with Proxy(valkey_url, tmp_path) as opened:
        yield opened


@pytest_asyncio.fixture
async def through(proxy: Proxy, prefix: str, seal_keys: SealKeys) -> AsyncIterator[Store]:
    async with Store.open(proxy.url, prefix=prefix, sealer=seal_keys) as opened:
        yield opened


async def test_a_version_whose_answer_was_lost_is_published_once(through: Store, proxy: Proxy) -> None:
    publisher = await writer(through)
    await publisher.publish(now=NOW, put=records(1))
    proxy.lose_answer = b"EVALSHA"

    version = await publisher.publish(
        now=LATER, put=records(3), rotated={"u00001": credential()}, memory={"u00001": ClusterMemory()}
    )

    assert proxy.lost == 1
    assert version == publisher.version == 2
    state = await through.load("alpha")
    assert state.head is not None
    assert state.head.version == 2
    assert state.records == records(3)
    assert state.trusted
    assert await publisher.publish(now=LATER, put=records(4)) == 3


async def test_a_version_that_never_arrived_is_sent_again(through: Store, proxy: Proxy) -> None:
    publisher = await writer(through)
    await publisher.publish(now=NOW, put=records(1))
    proxy.lose_request = b"EVALSHA"

    assert await publisher.publish(now=LATER, put=records(3)) == 2
    assert proxy.lost == 1


async def test_an_attempt_that_arrives_late_is_not_mistaken_for_the_next_one(
    through: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both would make the same version of the same records; only the later one holds the second token.

    The late one gives the version its content, and what is new becomes another version.
    """
    publisher = await writer(through)
    await publisher.publish(now=NOW, put=records(2))
    real, late = fenced_writer._PUBLISH_SCRIPT, list[Any]()

    async def lost(_client: Any, keys: Any, arguments: Any) -> Any:
        late[:] = [keys, arguments]
        raise exceptions.ConnectionError

    monkeypatch.setattr(fenced_writer, "_PUBLISH_SCRIPT", lost)
    with pytest.raises(StoreUnavailable):
        await publisher.publish(now=NOW, rotated={"u00000": credential("one")})

    async def behind_the_late_one(client: Any, keys: Any, arguments: Any) -> Any:
        await real(client, *late)
        return await real(client, keys, arguments)

    monkeypatch.setattr(fenced_writer, "_PUBLISH_SCRIPT", behind_the_late_one)
    before = publisher.version
    version = await publisher.publish(now=NOW, rotated={"u00000": credential("one"), "u00001": credential("two")})

    assert version == before + 2
    assert (await through.load("alpha")).credentials.keys() == {"u00000", "u00001"}


async def test_a_version_whose_answer_was_lost_keeps_its_content_although_the_server_lost_it(
    through: Store, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readers saw it before the server lost its last writes, as in a failover."""
    publisher = await writer(through)
    await publisher.publish(now=NOW, put=records(1))
    names = [through.keys.of("alpha", what) for what in ("head", "clusters", "credentials", "changes", "history")]
    kept = {name: value for name in names if (value := await raw.dump(name)) is not None}
    real = fenced_writer._PUBLISH_SCRIPT

    async def answer_lost(client: Any, keys: Any, arguments: Any) -> Any:
        await real(client, keys, arguments)
        raise exceptions.ConnectionError

    monkeypatch.setattr(fenced_writer, "_PUBLISH_SCRIPT", answer_lost)
    monkeypatch.setattr(connect, "PAUSES", ())
    with pytest.raises(StoreUnavailable):
        await publisher.publish(now=LATER, put=records(7), rotated={"u00003": credential()})
    assert publisher.uncertain
    seen = await through.load("alpha")
    for name in names:
        await raw.delete(name)
    for name, value in kept.items():
        await raw.restore(name, 0, value)
    monkeypatch.setattr(fenced_writer, "_PUBLISH_SCRIPT", real)
    digests = list[tuple[str, str]]()

    async def watched(client: Any, keys: Any, arguments: Any) -> Any:
        answer = await real(client, keys, arguments)
        found = (await through.load("alpha")).head
        assert found is not None
        digests.append((str(found.version), found.digest + found.credentials_digest))
        return answer

    monkeypatch.setattr(fenced_writer, "_PUBLISH_SCRIPT", watched)
    version = await publisher.publish(now=LATER, put=records(14), rotated={"u00003": credential()})

    assert seen.head is not None
    assert (seen.head.version, version) == (2, 3)
    assert digests[0] == ("2", seen.head.digest + seen.head.credentials_digest), "number 2 has one content"
    assert (await through.load("alpha")).records == records(14)
    assert not publisher.uncertain


async def test_the_next_publish_finds_out_about_a_cancelled_one(through: Store, proxy: Proxy) -> None:
    publisher = await writer(through)
    await publisher.publish(now=NOW, put=records(1))
    proxy.hold = b"EVALSHA"

    task = asyncio.create_task(
        publisher.publish(now=LATER, put=records(3), rotated={"u00002": credential()}, complete=True)
    )
    await proxy.holding.wait()  # the server has applied it, the answer is held back
    task.cancel()
    await asyncio.wait([task])
    proxy.release.set()

    assert task.cancelled()
    again = await publisher.publish(now=LATER, put=records(3), rotated={"u00002": credential()}, complete=True)
    assert again == 2
    state = await through.load("alpha")
    assert state.trusted
    assert state.records == records(3)


async def test_a_cancelled_command_does_not_mix_up_answers(through: Store, proxy: Proxy, valkey_url: str) -> None:
    publisher = await writer(through)
    await publisher.publish(now=NOW, put=records(3))
    for _ in range(5):
        proxy.hold, proxy.holding, proxy.release = b"SMEMBERS", asyncio.Event(), asyncio.Event()
        task = asyncio.create_task(through.instances())
        await proxy.holding.wait()
        task.cancel()
        await asyncio.wait([task])
        proxy.release.set()

        assert (await through.load("alpha")).records == records(3)
        assert await through.instances() == {"alpha"}


async def test_a_server_that_hangs_is_unavailable_until_it_answers_again(
    proxy: Proxy, prefix: str, seal_keys: SealKeys
) -> None:
    async with Store.open(proxy.url, prefix=prefix, sealer=seal_keys, timeout=2) as store:
        proxy.hold = b"PING"
        with pytest.raises(StoreUnavailable, match="did not answer in time"):
            await store.link.once("ping", lambda: store.link.client.execute_command("PING"))
        proxy.release.set()
        await store.ping()


async def test_an_absent_server_is_unavailable_and_named(prefix: str, seal_keys: SealKeys) -> None:
    async with Store.open("redis://user:canary-pw@127.0.0.1:1/0", prefix=prefix, sealer=seal_keys) as store:
        with pytest.raises(StoreUnavailable, match=r"Redis at 127.0.0.1:1 cannot be reached") as caught:
            await store.ping()
    assert "canary" not in str(caught.value)
    assert caught.value.__cause__ is None


async def test_scripts_are_loaded_again_after_the_server_lost_them(store: Store, valkey_url: str) -> None:
    publisher = await writer(store)
    await publisher.publish(now=NOW, put=records(1))
    async with raw_client(valkey_url) as raw:
        await raw.script_flush()

    assert await publisher.publish(now=LATER, put=records(2)) == 2


async def test_a_lost_store_is_an_error_that_names_no_token(store: Store, valkey_url: str) -> None:
    publisher = await writer(store)
    async with raw_client(valkey_url) as raw:
        await raw.execute_command("SET", store.keys.credentials("alpha"), "x")
        with pytest.raises(StoreError) as caught:
            await publisher.publish(now=NOW, put=records(1), rotated={"u00000": credential("canary-token")})
    assert "canary" not in repr(caught.value)


# ---- the embedded server --------------------------------------------------------------------------------------------


async def test_an_embedded_server_listens_on_no_port_and_leaves_nothing(prefix: str, seal_keys: SealKeys) -> None:
    server = EmbeddedValkey()
    async with server, Store.open(server.url, prefix=prefix, sealer=seal_keys) as store:
        await store.ping()
        async with raw_client(server.url) as raw:
            assert (await raw.config_get("port"))["port"] == "0"
        facts = await server_facts(store.link, store.keys)
        pid = server.pid

    assert (facts.name, facts.role, facts.eviction, facts.append_only) == ("valkey", "master", "noeviction", False)
    assert facts.supported
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert not os.path.exists(server.url.removeprefix("unix://"))  # noqa: ASYNC240, PTH110 - nothing is running any more


async def test_data_survives_in_a_directory_that_only_one_may_serve(
    prefix: str, seal_keys: SealKeys, tmp_path: Path
) -> None:
    for version in (1, 2):
        async with (
            EmbeddedValkey(directory=tmp_path / "data") as server,
            Store.open(server.url, prefix=prefix, sealer=seal_keys) as store,
        ):
            async with EmbeddedValkey(directory=tmp_path / "data") as second:
                assert second.url == server.url
            publisher = await writer(store)
            assert await publisher.publish(now=NOW, put=records(version)) == version


async def test_a_second_process_on_a_served_directory_sees_its_data_and_leaves_the_server_running(
    prefix: str, seal_keys: SealKeys, tmp_path: Path
) -> None:
    async with (
        EmbeddedValkey(directory=tmp_path) as server,
        Store.open(server.url, prefix=prefix, sealer=seal_keys) as store,
    ):
        await (await writer(store)).publish(now=NOW, put=records(2))
        for _ in range(2):
            async with (
                EmbeddedValkey(directory=tmp_path) as borrowed,
                Store.open(borrowed.url, prefix=prefix, sealer=seal_keys) as looking,
            ):
                assert (await looking.load("alpha")).records == records(2)
        await store.ping()
        pid = server.pid
    async with EmbeddedValkey(directory=tmp_path) as successor:
        assert successor.pid != pid, "with its daemon gone the directory is served anew"


async def test_a_lock_that_names_a_dead_server_is_reported(tmp_path: Path) -> None:
    lock = (tmp_path / "palette-sync.lock").open("a+")
    fcntl.flock(lock, fcntl.LOCK_EX)
    lock.write(str(tmp_path / "gone"))
    lock.flush()

    with lock, pytest.raises(StoreUnavailable, match=r"another process serves the data in .*, but is not ready yet"):
        await EmbeddedValkey(directory=tmp_path).__aenter__()


async def test_a_directory_whose_server_is_not_ready_yet_is_reported(tmp_path: Path) -> None:
    lock = (tmp_path / "palette-sync.lock").open("a+")
    fcntl.flock(lock, fcntl.LOCK_EX)

    with lock, pytest.raises(StoreUnavailable, match="another process serves"):
        await EmbeddedValkey(directory=tmp_path).__aenter__()


async def test_an_unusable_directory_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(StoreError, match="cannot keep data in"):
        await EmbeddedValkey(directory=tmp_path / "file").__aenter__()


async def test_a_server_that_does_not_start_is_reported_with_its_log(tmp_path: Path) -> None:
    data = tmp_path / "appendonlydir"
    data.mkdir()
    (data / "appendonly.aof.manifest").write_text("nonsense")

    with pytest.raises(StoreUnavailable, match="exited during its start"):
        await EmbeddedValkey(directory=tmp_path).__aenter__()


async def test_the_server_dies_with_a_parent_that_is_killed() -> None:
    program = (
        "import asyncio\n"
        "from palette_sync.store.embedded import EmbeddedValkey\n"
        "async def main():\n"
        "    async with EmbeddedValkey() as server:\n"
        "        print(server.pid, flush=True)\n"
        "        await asyncio.sleep(3600)\n"
        "asyncio.run(main())\n"
    )
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    server = int(await parent.stdout.readline())
    parent.kill()
    await parent.wait()

    await until(lambda: not _lives(server))


def _lives(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123 - a zombie that nobody reaps here is dead too
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_a_server_killed_in_the_middle_of_publishing_comes_back_whole(
    prefix: str, seal_keys: SealKeys, tmp_path: Path
) -> None:
    """Versions are written one after the other while the server is killed; what is found afterwards is one of them."""
    written = 0

    async def publish_on(store: Store) -> None:
        nonlocal written
        publisher = await writer(store)
        while True:
            titled = records(150, title=f"version {written + 1}")
            await publisher.publish(
                now=NOW, put=titled, rotated={uid: credential(str(written)) for uid in list(titled)[:50]}
            )
            written = publisher.version

    async with (
        EmbeddedValkey(directory=tmp_path) as server,
        Store.open(server.url, prefix=prefix, sealer=seal_keys) as store,
    ):
        task = asyncio.create_task(publish_on(store))
        await until(lambda: written >= 5)
        os.kill(server.pid, signal.SIGKILL)
        await asyncio.wait([task])
        assert isinstance(task.exception(), StoreUnavailable)

    async with (
        EmbeddedValkey(directory=tmp_path) as server,
        Store.open(server.url, prefix=prefix, sealer=seal_keys) as store,
    ):
        state = await store.load("alpha")
        assert state.trusted
        assert state.head is not None
        assert state.head.version in {written, written + 1}
        assert {one.title for one in state.records.values()} == {f"version {state.head.version}"}
        assert await (await writer(store)).publish(now=LATER, put=records(1)) == state.head.version + 1


async def test_a_publisher_continues_after_its_server_was_restarted(
    prefix: str, seal_keys: SealKeys, tmp_path: Path
) -> None:
    link = tmp_path / "current.sock"
    data = tmp_path / "data"
    async with EmbeddedValkey(directory=data) as server:
        link.symlink_to(server.url.removeprefix("unix://"))
        store = Store.open(f"unix://{link}", prefix=prefix, sealer=seal_keys)
        publisher = await writer(store)
        await publisher.publish(now=NOW, put=records(1))
    with pytest.raises(StoreUnavailable):
        await publisher.publish(now=LATER, put=records(2), rotated={"u00001": credential()})

    async with EmbeddedValkey(directory=data) as server:
        link.unlink()
        link.symlink_to(server.url.removeprefix("unix://"))
        assert await publisher.publish(now=LATER, put=records(2), rotated={"u00001": credential()}) == 2
        assert (await store.load("alpha")).trusted
        await store.close()


# ---- access control and memory --------------------------------------------------------------------------------------


@pytest_asyncio.fixture
async def guarded() -> AsyncIterator[tuple[str, Any]]:
    """A server of its own whose users a test may change."""
    async with EmbeddedValkey() as server, raw_client(server.url) as admin:
        yield server.url, admin


def login(url: str, user: str, password: str) -> str:
    return url.replace("unix://", f"unix://{user}:{password}@")


async def test_a_wrong_password_is_reported_without_showing_it(guarded: tuple[str, Any], seal_keys: SealKeys) -> None:
    url, admin = guarded
    await admin.execute_command("ACL", "SETUSER", "writer", "on", ">right", "~*", "+@all")

    async with Store.open(login(url, "writer", "right"), prefix="p", sealer=seal_keys) as store:
        assert (await server_facts(store.link, store.keys)).user == "writer"
    async with Store.open(login(url, "writer", "canary-pw"), prefix="p", sealer=seal_keys) as store:
        with pytest.raises(StoreError, match="refuses the login") as caught:
            await store.ping()
        assert not isinstance(caught.value, StoreUnavailable)
        assert "canary" not in str(caught.value)


async def test_a_missing_login_is_reported(guarded: tuple[str, Any], seal_keys: SealKeys) -> None:
    url, admin = guarded
    async with Store.open(login(url, "admin", "pw"), prefix="p", sealer=seal_keys) as store:
        await admin.execute_command("ACL", "SETUSER", "admin", "on", ">pw", "~*", "+@all")
        await admin.execute_command("ACL", "SETUSER", "default", "off")
        await store.ping()
    async with Store.open(url, prefix="p", sealer=seal_keys) as store:
        with pytest.raises(StoreError, match="login"):
            await store.ping()


async def test_missing_rights_are_listed_and_reported(guarded: tuple[str, Any], seal_keys: SealKeys) -> None:
    url, admin = guarded
    await admin.execute_command(
        "ACL", "SETUSER", "writer", "on", ">pw", "~p:*", "~{p:*", "+@all", "-xadd", "-hdel", "-smembers"
    )

    async with Store.open(login(url, "writer", "pw"), prefix="p", sealer=seal_keys) as store:
        facts = await server_facts(store.link, store.keys)
        assert facts.denied == ("HDEL", "SMEMBERS", "XADD")
        with pytest.raises(StoreError, match="does not permit it"):
            await store.instances()
        publisher = await writer(store)
        with pytest.raises(StoreError, match="does not permit it"):
            await publisher.publish(now=NOW, put=records(1))
        assert (await store.load("alpha")).head is None


async def test_a_user_who_may_not_query_the_acl_is_tested_with_eval(
    guarded: tuple[str, Any], seal_keys: SealKeys
) -> None:
    url, admin = guarded
    await admin.execute_command("ACL", "SETUSER", "reader", "on", ">pw", "~p:*", "~{p:*", "+@read", "+ping")
    await admin.execute_command("ACL", "SETUSER", "mute", "on", ">pw", "~p:*", "~{p:*", "+@all", "-acl")

    async with Store.open(login(url, "reader", "pw"), prefix="p", sealer=seal_keys) as store:
        assert (await server_facts(store.link, store.keys)).denied == ("EVAL",)
    async with Store.open(login(url, "mute", "pw"), prefix="p", sealer=seal_keys) as store:
        assert (await server_facts(store.link, store.keys)).denied is None


async def test_a_key_of_another_type_is_named(guarded: tuple[str, Any], seal_keys: SealKeys) -> None:
    url, admin = guarded
    async with Store.open(url, prefix="p", sealer=seal_keys) as store:
        await (await writer(store)).publish(now=NOW, put=records(1))
        assert await foreign_keys(store.link, store.keys, ["alpha", "bravo"]) == {}
        await admin.set("{p:bravo}:head", "x")

        assert await foreign_keys(store.link, store.keys, ["alpha", "bravo"]) == {"{p:bravo}:head": "string"}
        for refused in (store.load, partial(writer, store)):
            with pytest.raises(StoreError, match="answered WRONGTYPE: another program wrote one of our keys"):
                await refused("bravo")


async def test_a_writer_with_all_rights_is_denied_nothing(guarded: tuple[str, Any], seal_keys: SealKeys) -> None:
    url, _ = guarded
    async with Store.open(url, prefix="p", sealer=seal_keys) as store:
        assert (await server_facts(store.link, store.keys)).denied == ()


async def test_a_full_server_stores_no_part_of_a_version(guarded: tuple[str, Any], seal_keys: SealKeys) -> None:
    url, admin = guarded
    async with Store.open(url, prefix="p", sealer=seal_keys) as store:
        publisher = await writer(store)
        await publisher.publish(now=NOW, put=records(1))
        await admin.config_set("maxmemory", "1")

        with pytest.raises(StoreUnavailable, match="maxmemory"):
            await publisher.publish(now=LATER, put=records(5))

        await admin.config_set("maxmemory", "0")
        state = await store.load("alpha")
        assert state.trusted
        assert await admin.xlen(store.keys.changes("alpha")) == 1
        assert state.records == records(1)
        assert await publisher.publish(now=LATER, put=records(5)) == 2


async def test_a_replica_is_unavailable_for_writes(guarded: tuple[str, Any], seal_keys: SealKeys) -> None:
    url, admin = guarded
    async with Store.open(url, prefix="p", sealer=seal_keys) as store:
        publisher = await writer(store)
        await admin.execute_command("REPLICAOF", "127.0.0.1", "1")

        with pytest.raises(StoreUnavailable, match="replica"):
            await publisher.publish(now=NOW, put={"u1": record("u1")})
        with suppress(StoreError):
            assert (await server_facts(store.link, store.keys)).role == "slave"

        await admin.execute_command("REPLICAOF", "NO", "ONE")
        assert await publisher.publish(now=NOW, put={"u1": record("u1")}) == 1

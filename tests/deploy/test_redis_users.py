"""`deploy/redis/users.acl` in a real server: each user can do its work and nothing else, and nobody logs in as is."""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis.asyncio as aioredis
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from redis import exceptions

from builders import NOW, credential, records
from clusters import clustered
from deploy.users_server import PLACEHOLDER, READER, USERS, WRITER, serving
from integration.store_builders import until
from palette_sync.config.settings import RedisSettings
from palette_sync.store.errors import StoreDenied
from palette_sync.store.inspect import inspect
from palette_sync.store.lease import Lease
from palette_sync.store.past import read_changes, read_history
from palette_sync.store.redis import Store, StoreError
from palette_sync.store.server import ServerFacts, all_server_facts, server_facts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from palette_sync.store.seal import SealKeys

PREFIX = "palette-sync"
DANGEROUS = [
    "FLUSHALL", "FLUSHDB", "CONFIG GET *", "CONFIG SET maxmemory 1", "KEYS *", "SCAN 0", "RANDOMKEY", "DBSIZE",
    "DEBUG SLEEP 0", "SCRIPT FLUSH", "SCRIPT KILL", "FUNCTION FLUSH", "SHUTDOWN NOSAVE", "SAVE", "BGREWRITEAOF",
    "REPLICAOF localhost 1", "CLUSTER INFO", "MONITOR", "CLIENT LIST", "CLIENT KILL TYPE normal", "ACL LIST",
    "ACL GETUSER default", "ACL SETUSER default on nopass", "ACL SAVE", "MODULE LIST", "SLOWLOG GET", "LATENCY RESET",
    "SWAPDB 0 1", "PUBLISH news text", "SUBSCRIBE news", "RENAME palette-sync:instances {palette-sync:a}:head",
]  # fmt: skip


@dataclass(frozen=True)
class Server:
    socket: Path
    passwords: dict[str, str]

    def url(self, user: str) -> str:
        return f"unix://{user}:{self.passwords[user]}@{self.socket}"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """The file as shipped, with passwords put in as an operator would."""
    passwords = {user: secrets.token_hex(16) for user in (WRITER, READER)}
    users = USERS.read_text()
    for user, password in passwords.items():
        line = f"user {user} on {PLACEHOLDER} "
        assert users.count(line) == 1
        users = users.replace(line, f"user {user} on #{hashlib.sha256(password.encode()).hexdigest()} ")
    with serving(users) as socket:
        yield Server(socket, passwords)


@asynccontextmanager
async def client_of(server: Server, user: str) -> AsyncIterator[Any]:
    client: Any = aioredis.Redis.from_url(server.url(user), protocol=2)
    try:
        yield client
    finally:
        await client.aclose()


@asynccontextmanager
async def opened(server: Server, user: str, seal_keys: SealKeys) -> AsyncIterator[Store]:
    async with Store.open(server.url(user), prefix=PREFIX, sealer=seal_keys) as store:
        yield store


@asynccontextmanager
async def published(server: Server, seal_keys: SealKeys, instance: str) -> AsyncIterator[Store]:
    """A snapshot of three clusters, written by the writer."""
    async with opened(server, WRITER, seal_keys) as store:
        async with await Lease.acquire(store.link, store.keys, instance, ttl=10, holder="test:1") as lease:
            publisher = await store.publisher(instance, epoch=lease.epoch, writer="test:1")
            put = {uid: replace(one, instance=instance) for uid, one in records(3).items()}
            await publisher.publish(
                now=NOW,
                put=put,
                rotated=dict.fromkeys(put, credential()),
                complete=True,
                status={"pass": 1},
            )
        yield store


async def denied(client: Any, command: str) -> bool:
    try:
        await client.execute_command(*command.split())
    except exceptions.NoPermissionError:
        return True
    except exceptions.ResponseError as error:
        raise AssertionError(f"{command}: {error}") from None
    return False


async def test_the_writer_does_everything_the_daemon_does(server: Server, seal_keys: SealKeys) -> None:
    async with published(server, seal_keys, "alpha") as store:
        lease = await Lease.acquire(store.link, store.keys, "alpha", ttl=10, holder="test:2")
        publisher = await store.publisher("alpha", epoch=lease.epoch, writer="test:2")

        version = await publisher.publish(now=NOW, drop=["u00000"], rotated={"u00001": None})
        await publisher.write_unversioned(now=NOW, memory={"u00001": None}, status={"pass": 2})
        renewed = await lease.renew()
        given_back = await lease.release()

        state = await store.load("alpha")
        assert (version, renewed, given_back) == (2, True, True)
        assert state.trusted, state.problems
        assert sorted(state.records) == ["u00001", "u00002"]
        assert state.status == {"pass": 2}
        assert await store.instances() == {"alpha"}


async def test_the_writer_is_denied_nothing_that_check_asks_about(server: Server, seal_keys: SealKeys) -> None:
    async with opened(server, WRITER, seal_keys) as store:
        facts = await server_facts(store.link, store.keys)

    assert facts.denied == ()
    assert facts.user == WRITER
    assert facts.eviction is not None
    assert facts.append_only is not None


async def test_the_writer_sends_and_reads_requests(server: Server) -> None:
    async with client_of(server, WRITER) as client:
        stream = "{palette-sync:control-test}:control"
        added = await client.execute_command("XADD", stream, "MAXLEN", "~", "100", "*", "request", "resync")
        read = await client.execute_command("XREAD", "BLOCK", "100", "STREAMS", stream, "0")

    assert read[0][1][0][0] == added


async def test_the_reader_reads_as_the_contract_says(server: Server, seal_keys: SealKeys) -> None:
    """The commands of the contract's "reading on", in the shapes in which a client library sends them."""
    async with published(server, seal_keys, "reading"), client_of(server, READER) as client:

        async def sent(*command: str) -> Any:
            return await client.execute_command(*command)

        head = "{palette-sync:reading}:head"
        assert await sent("CLIENT", "SETINFO", "LIB-NAME", "test") == b"OK"
        assert await sent("CLIENT", "SETNAME", "backstage")
        assert await sent("PING")
        assert b"reading" in await sent("SMEMBERS", "palette-sync:instances")
        pipe = client.pipeline(transaction=True)
        for key in ("head", "clusters", "credentials"):
            pipe.execute_command("HGETALL", f"{{palette-sync:reading}}:{key}")
        pipe.execute_command("HLEN", "{palette-sync:reading}:clusters")
        pipe.execute_command("HMGET", "{palette-sync:reading}:clusters", "u00000", "u00001")
        fields, clusters, credentials, count, some = await pipe.execute()
        assert fields[b"version"] == b"1"
        assert (len(clusters), len(credentials), count, len(some)) == (3, 3, 3, 2)
        assert await sent("HMGET", head, "epoch", "version")
        changes = await sent("XREAD", "BLOCK", "5000", "STREAMS", "{palette-sync:reading}:changes", "0-0")
        assert changes[0][1][0][0] == b"1-0"


async def test_the_reader_is_enough_to_look_and_what_it_may_not_read_is_named(
    server: Server, seal_keys: SealKeys
) -> None:
    async with published(server, seal_keys, "looking"), opened(server, READER, seal_keys) as store:
        found = await inspect(store, seal_keys, "looking")
        changes = await read_changes(store, "looking")
        with pytest.raises(StoreDenied, match="NOPERM"):
            await read_history(store, seal_keys, "looking")

    assert found.state.trusted
    assert len(found.state.records) == len(found.state.credentials) == 3
    assert found.denied == {"work", "scopes", "issuers", "status", "lease"}
    assert found.leader is None
    assert [change.version for change in changes] == [1]


async def test_the_reader_is_woken_by_a_change(server: Server, seal_keys: SealKeys) -> None:
    async with published(server, seal_keys, "waking") as store, client_of(server, READER) as client:
        key = "{palette-sync:waking}:changes"
        waiting = asyncio.create_task(client.execute_command("XREAD", "BLOCK", "20000", "STREAMS", key, "1-0"))
        async with client_of(server, WRITER) as writer:

            async def is_blocked() -> bool:
                return (await writer.info("clients"))["blocked_clients"] > 0

            await until(is_blocked)
        lease = await Lease.acquire(store.link, store.keys, "waking", ttl=10, holder="test:3")
        publisher = await store.publisher("waking", epoch=lease.epoch, writer="test:3")
        await publisher.publish(now=NOW, drop=["u00000"])

        assert (await waiting)[0][1][0][0] == b"2-0"


@pytest.mark.parametrize(
    "command",
    [
        "SADD palette-sync:instances mine",
        "SREM palette-sync:instances alpha",
        "HSET {palette-sync:alpha}:head version 9",
        "HDEL {palette-sync:alpha}:clusters u00001",
        "DEL {palette-sync:alpha}:head",
        "UNLINK {palette-sync:alpha}:head",
        "EXPIRE {palette-sync:alpha}:head 1",
        "XADD {palette-sync:alpha}:changes * a b",
        "XTRIM {palette-sync:alpha}:changes MAXLEN 0",
        "XADD {palette-sync:alpha}:control * request resync",
        "EVAL return(1) 1 {palette-sync:alpha}:head",
        "EVAL return(1) 0",
        "SET {palette-sync:alpha}:epoch 9",
        "INFO",
        "ACL WHOAMI",
    ],
)
async def test_the_reader_writes_nothing(server: Server, command: str) -> None:
    async with client_of(server, READER) as client:
        assert await denied(client, command)


@pytest.mark.parametrize("what", ["lease", "epoch", "status", "control", "work", "scopes", "issuers", "history"])
async def test_the_reader_does_not_see_the_daemons_own_keys(server: Server, what: str) -> None:
    key = f"{{palette-sync:alpha}}:{what}"
    async with client_of(server, READER) as client:
        assert await denied(client, f"HGETALL {key}")
        assert await denied(client, f"XREAD STREAMS {key} 0")
        assert await denied(client, f"GET {key}")


@pytest.mark.parametrize("user", [WRITER, READER])
@pytest.mark.parametrize(
    "key", ["session:1", "palette-sync", "palette-sync:other", "{palette-sync-test:alpha}:head", "{other:alpha}:head"]
)
async def test_keys_of_other_programs_are_denied(server: Server, user: str, key: str) -> None:
    async with client_of(server, user) as client:
        assert await denied(client, f"HGETALL {key}")
        assert await denied(client, f"HSET {key} a b")
        assert await denied(client, f"EVAL return(redis.call('GET',KEYS[1])) 1 {key}")


async def test_a_script_of_the_writer_cannot_reach_keys_of_other_programs(server: Server) -> None:
    async with client_of(server, WRITER) as client:
        with pytest.raises(exceptions.ResponseError, match="ACL failure in script"):
            await client.execute_command("EVAL", "return redis.call('GET', 'session:1')", "0")
        with pytest.raises(exceptions.ResponseError, match="ACL failure in script"):
            await client.execute_command("EVAL", "return redis.call('FLUSHALL')", "0")


@pytest.mark.parametrize("user", [WRITER, READER])
@pytest.mark.parametrize("command", DANGEROUS)
async def test_dangerous_commands_are_denied(server: Server, user: str, command: str) -> None:
    async with client_of(server, user) as client:
        assert await denied(client, command)


async def test_without_a_login_everything_is_denied(server: Server) -> None:
    reader, writer = await asyncio.open_unix_connection(server.socket)
    for command in ("PING", "INFO", "SMEMBERS palette-sync:instances", "ACL WHOAMI"):
        writer.write(f"{command}\r\n".encode())
        assert (await reader.readline()).startswith(b"-NOAUTH ")
    writer.close()


@pytest.mark.parametrize("password", ["", "0" * 64, "palette-sync", "password", "change-me"])
@pytest.mark.parametrize("user", [WRITER, READER, "default"])
async def test_the_file_as_shipped_lets_nobody_in(seal_keys: SealKeys, user: str, password: str) -> None:
    with serving(USERS.read_text()) as socket:
        async with Store.open(f"unix://{user}:{password}@{socket}", prefix=PREFIX, sealer=seal_keys) as store:
            with pytest.raises(StoreError, match=r"refuses the login|asks for a login"):
                await store.ping()


def test_the_file_has_no_syntax_that_an_older_server_refuses() -> None:
    """Only Redis 8.8 began to skip comments; selectors and %R~ came with 7.0."""
    lines = [line for line in USERS.read_text().splitlines() if line]
    assert [line.split()[:2] for line in lines] == [["user", "default"], ["user", WRITER], ["user", READER]]
    assert not set("()%") & set("".join(lines))


@given(
    st.from_regex(r"[a-zA-Z0-9._-]{1,20}", fullmatch=True) | st.sampled_from(["palette-sync-dev", "palette-sync.dev"])
)
def test_the_patterns_of_a_user_match_no_key_of_another_prefix(other: str) -> None:
    """A prefix holds no colon, so that `{palette-sync:*}` cannot match `{palette-sync:dev:prod}`."""
    patterns = re.findall(r" ~(\S+)", USERS.read_text())
    keys = [
        f"{other}:instances",
        *(f"{{{other}:prod}}:{name}" for name in ("head", "clusters", "credentials", "changes")),
    ]

    matched = [key for key in keys if any(fnmatchcase(key, pattern) for pattern in patterns)]
    assert (matched == keys) if other == PREFIX else not matched


@pytest.mark.parametrize("prefix", ["palette-sync:dev", "palette-sync:", "a:b"])
def test_a_prefix_with_a_colon_is_refused(prefix: str) -> None:
    with pytest.raises(ValidationError, match="may contain only"):
        RedisSettings(prefix=prefix)


async def test_both_users_can_do_their_work_in_a_cluster(tmp_path: Path, seal_keys: SealKeys) -> None:
    passwords = {user: secrets.token_hex(16) for user in (WRITER, READER, "admin")}
    users = f"{USERS.read_text()}\nuser admin on {PLACEHOLDER} ~* &* +@all\n"
    for user, password in passwords.items():
        digest = hashlib.sha256(password.encode()).hexdigest()
        users = users.replace(f"user {user} on {PLACEHOLDER} ", f"user {user} on #{digest} ")
    (tmp_path / "users.acl").write_text(users)
    options = ("--aclfile", str(tmp_path / "users.acl"))
    async with clustered(tmp_path, login=f"admin:{passwords['admin']}@", options=options) as servers:
        places = ",".join(one.address for one in servers.all)

        def of(user: str) -> Store:
            url = f"redis+cluster://{user}:{passwords[user]}@{places}"
            return Store.open(url, prefix=PREFIX, sealer=seal_keys)

        async with of(WRITER) as store:
            for facts in (await all_server_facts(store.link, store.keys)).values():
                assert isinstance(facts, ServerFacts)
                assert facts.denied == ()
            lease = await Lease.acquire(store.link, store.keys, "alpha", ttl=30, holder="test:1", sealer=seal_keys)
            publisher = await store.publisher("alpha", epoch=lease.epoch, writer="test:1")
            assert await publisher.publish(now=NOW, put=records(2), rotated={"u00000": credential()}) == 1
            await servers.move(store.keys.head("alpha"), to=servers.all[0])
            await servers.move(store.keys.head("alpha"), to=servers.all[1])
            assert await publisher.publish(now=NOW, put=records(3)) == 2
        async with of(READER) as store:
            assert len((await inspect(store, seal_keys, "alpha")).state.records) == 3
            assert len(await read_changes(store, "alpha")) == 2
            with pytest.raises(StoreDenied):
                await store.link.command("write", "SET", store.keys.status("alpha"), "x")

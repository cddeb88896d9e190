"""Every fault on the wire becomes a TransportError with a cause, and a text that is safe to log."""

from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
from contextlib import contextmanager
from datetime import UTC, datetime
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from contract.palette_fake import CANARY, Fake, Seen, nobody, raw_server, reply, says, script, tls
from loopback import LOOPBACK
from palette_sync.core.network import NetworkPolicy, Standing
from palette_sync.http import NOT_REACHED, Cause, Reply, TransportError, open_session, request
from palette_sync.tls import LARGEST_HANDSHAKE, trusting

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

LIMIT = 1024 * 1024


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with open_session(tls=tls().client, connections=4, connect_timeout=5) as one:
        yield one


async def get(session: aiohttp.ClientSession, url: str, **options: Any) -> Reply:
    return await request(session, "GET", url, **{"timeout": 5.0, "max_body": LIMIT, **options})


async def failure(session: aiohttp.ClientSession, url: str, **options: Any) -> TransportError:
    with pytest.raises(TransportError) as caught:
        await get(session, url, headers={"ApiKey": CANARY}, params={"secret": CANARY}, **options)
    assert CANARY not in str(caught.value)
    assert CANARY not in repr(caught.value)
    return caught.value


async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def test_an_answer_is_read_whole_whatever_its_status(session: aiohttp.ClientSession) -> None:
    async with Fake(script(reply({"a": 1}, 503, X_Word="yes"))) as fake:
        answer = await get(session, fake.url + "/x", params={"q": "1"}, headers={"ApiKey": "k"})

    assert (answer.status, answer.body, answer.headers["x-word"]) == (503, b'{"a":1}', "yes")
    assert (fake.seen[0].path, fake.seen[0].query, fake.seen[0].headers["ApiKey"]) == ("/x", {"q": "1"}, "k")


async def test_the_repr_of_an_answer_shows_no_body() -> None:
    assert CANARY not in repr(Reply(200, {"x": CANARY}, CANARY.encode()))


async def test_a_redirect_comes_back_as_it_is(session: aiohttp.ClientSession) -> None:
    async with Fake(script(web.Response(status=307, headers={"Location": "/elsewhere"}))) as fake:
        answer = await get(session, fake.url)

    assert (answer.status, answer.headers["Location"]) == (307, "/elsewhere")
    assert len(fake.seen) == 1


async def test_no_cookie_is_kept_and_the_environment_is_not_read(
    session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password something\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "")

    async with Fake(lambda _: reply({}, Set_Cookie="a=b")) as fake:
        await get(session, fake.url)
        await get(session, fake.url)

    assert all("Cookie" not in seen.headers and "Authorization" not in seen.headers for seen in fake.seen)
    assert len(fake.seen) == 2


async def test_a_server_that_never_answers_is_a_timeout(session: aiohttp.ClientSession) -> None:
    async with raw_server(hang) as url:
        error = await failure(session, url, timeout=0.2)

    assert error.cause is Cause.TIMEOUT
    assert "0.2 s" in str(error)


async def test_a_body_that_drips_for_ever_is_a_timeout(session: aiohttp.ClientSession) -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with raw_server(drip) as url:
        error = await failure(session, url, timeout=0.3)  # the whole body would take half an hour

    assert error.cause is Cause.TIMEOUT


async def test_a_tls_handshake_that_hangs_is_a_timeout() -> None:
    async with open_session(tls=True, connections=1, connect_timeout=0.2) as session, raw_server(hang) as url:
        error = await failure(session, url.replace("http:", "https:"), timeout=3600)

    assert error.cause is Cause.TIMEOUT


async def test_a_refused_connection_names_the_host(session: aiohttp.ClientSession) -> None:
    with nobody() as url:
        error = await failure(session, url)

    assert error.cause is Cause.CONNECT
    assert url.removeprefix("http://") in str(error)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"", id="the connection is dropped before an answer"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", id="the body is truncated"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc", id="a chunk is truncated"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n", id="a chunk size is none"),
        pytest.param(b"\x00\xff\x00 canary/api+key=0123456789abcdef\r\n\r\n", id="the status line is garbage"),
        pytest.param(b"HTTP/1.1 200 OK\r\nBad Header\x00: x\r\n\r\n", id="a header is garbage"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", id="the length is negative"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n", id="a header is endless"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 8\r\n\r\nnot gzip", id="invalid gzip"
        ),
    ],
)
async def test_a_broken_answer_is_a_broken_connection(session: aiohttp.ClientSession, answer: bytes) -> None:
    async with raw_server(says(answer)) as url:
        error = await failure(session, url)

    assert error.cause is Cause.BROKEN


async def test_a_reset_while_reading_is_a_broken_connection(session: aiohttp.ClientSession) -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await writer.drain()
        writer.transport.abort()

    async with raw_server(reset) as url:
        assert (await failure(session, url)).cause is Cause.BROKEN


async def test_a_body_that_announces_too_much_is_not_read(session: aiohttp.ClientSession) -> None:
    async with raw_server(says(b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999\r\n\r\n")) as url:
        error = await failure(session, url)

    assert error.cause is Cause.TOO_LARGE


async def test_a_body_that_does_not_announce_its_size_is_cut_off(session: aiohttp.ClientSession) -> None:
    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"x" * 65536)
            await writer.drain()

    async with raw_server(pour) as url:
        assert (await failure(session, url)).cause is Cause.TOO_LARGE


async def test_a_body_of_exactly_the_limit_is_taken(session: aiohttp.ClientSession) -> None:
    async with Fake(lambda _: web.Response(body=b"x" * 1000)) as fake:
        assert len((await get(session, fake.url, max_body=1000)).body) == 1000
        assert (await failure(session, fake.url, max_body=999)).cause is Cause.TOO_LARGE


async def test_a_gzip_bomb_is_counted_decompressed(session: aiohttp.ClientSession) -> None:
    bomb = gzip.compress(b"\0" * 64 * LIMIT)
    assert len(bomb) < LIMIT

    async with Fake(lambda _: web.Response(body=bomb, headers={"Content-Encoding": "gzip"})) as fake:
        assert (await failure(session, fake.url)).cause is Cause.TOO_LARGE


async def test_a_compressed_body_within_the_limit_is_read(session: aiohttp.ClientSession) -> None:
    packed = gzip.compress(b"hello" * 100)

    async with Fake(lambda _: web.Response(body=packed, headers={"Content-Encoding": "gzip"})) as fake:
        assert (await get(session, fake.url)).body == b"hello" * 100


async def test_a_certificate_of_another_authority_is_refused() -> None:
    async with open_session(tls=True, connections=1) as session, Fake(lambda _: reply({})) as fake:
        error = await failure(session, fake.url)

    assert error.cause is Cause.TLS
    assert "certificate of 127.0.0.1" in str(error)
    assert fake.seen == []


async def test_a_certificate_for_another_name_is_refused(session: aiohttp.ClientSession) -> None:
    async with Fake(lambda _: reply({})) as fake:
        error = await failure(session, fake.url, server_hostname="other.example")

    assert error.cause is Cause.TLS


async def test_a_server_that_answers_in_plain_http_is_named(session: aiohttp.ClientSession) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()

    async with raw_server(speak) as url:
        error = await failure(session, url.replace("http:", "https:"))

    assert error.cause is Cause.PLAIN_HTTP
    assert "plain HTTP" in str(error)


@pytest.mark.parametrize(
    "alert",
    [
        pytest.param(b"\x15\x03\x01\x00\x02\x02\x46", id="it refuses the version"),
        pytest.param(
            # A ServerHello of TLS 1.1: length 45, version 3.2, 32 random bytes, no session, one cipher, no compression,
            # and the extension of secure renegotiation, without which some OpenSSL complain about that instead.
            b"\x16\x03\x02\x00\x31\x02\x00\x00\x2d\x03\x02"
            + bytes(32)
            + b"\x00\xc0\x13\x00\x00\x05\xff\x01\x00\x01\x00",
            id="it chooses TLS 1.1",
        ),
    ],
)
async def test_a_server_that_speaks_only_old_tls_is_named(alert: bytes) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(alert)
        await writer.drain()
        await reader.read()  # the client ends the connection: it must not be reset before it has read the alert

    # With our own context: what others allow by default depends on the build of Python.
    async with raw_server(speak) as url, open_session(tls=trusting(None), connections=4, connect_timeout=5) as own:
        error = await failure(own, url.replace("http:", "https:"))

    assert error.cause is Cause.TLS_VERSION
    assert "1.2" in str(error)


class DeadResolver(AbstractResolver):
    async def resolve(self, host: str, port: int = 0, family: int = 0) -> Any:
        raise OSError(-2, "Name or service not known")

    async def close(self) -> None:
        pass


async def test_a_dead_host_name_is_told_as_such() -> None:
    connector = aiohttp.TCPConnector(resolver=DeadResolver())
    async with aiohttp.ClientSession(connector=connector) as session:
        error = await failure(session, "https://palette.example")

    assert error.cause is Cause.DNS
    assert "palette.example" in str(error)


async def test_a_dead_proxy_is_told_as_such() -> None:
    async with raw_server(hang) as dead:
        pass
    async with open_session(tls=True, connections=1, proxy=dead) as session:
        error = await failure(session, "https://palette.example")

    assert error.cause is Cause.CONNECT
    assert "proxy" in str(error)


@pytest.mark.parametrize(
    ("status", "cause"), [(407, Cause.PROXY), (403, Cause.PROXY), (502, Cause.CONNECT), (504, Cause.CONNECT)]
)
async def test_a_proxy_that_refuses_is_named_with_its_answer(status: int, cause: Cause) -> None:
    async with (
        raw_server(says(b"HTTP/1.1 %d No\r\n\r\n" % status)) as proxy,
        open_session(tls=True, connections=1, proxy=proxy) as session,
    ):
        error = await failure(session, "https://palette.example")

    assert error.cause is cause
    assert str(error) == f"the proxy for palette.example answered HTTP {status}"


@pytest.mark.parametrize("url", ["nonsense", "https://", "ftp://host/", "https://[::1", "http://host:99999/"])
async def test_an_address_that_is_none_is_told_without_repeating_it(session: aiohttp.ClientSession, url: str) -> None:
    error = await failure(session, url)

    assert error.cause is Cause.CONNECT
    assert "nonsense" not in str(error)


async def test_a_password_in_the_address_stays_out_of_the_text(session: aiohttp.ClientSession) -> None:
    async with raw_server(says(b"")) as url:
        error = await failure(session, url.replace("http://", "http://user:hunter2@"))

    assert "hunter2" not in str(error)


async def test_a_header_that_cannot_be_sent_is_a_broken_connection(session: aiohttp.ClientSession) -> None:
    async with Fake(lambda _: reply({})) as fake:
        with pytest.raises(TransportError) as caught:
            await get(session, fake.url, headers={"ApiKey": CANARY + "\r\nX: y"})

    assert caught.value.cause is Cause.BROKEN
    assert CANARY not in str(caught.value)


async def test_being_cancelled_is_no_transport_error(session: aiohttp.ClientSession) -> None:
    arrived = asyncio.Event()

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        arrived.set()
        await reader.read()

    async with raw_server(wait) as url:
        task = asyncio.create_task(get(session, url))
        await arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_session_goes_on_after_a_fault(session: aiohttp.ClientSession) -> None:
    def answer(seen: Seen) -> web.Response:
        return web.Response(body=b"x" * (2 * LIMIT if seen.path == "/big" else 1))

    async with Fake(answer) as fake:
        await failure(session, fake.url + "/big")
        assert (await get(session, fake.url)).body == b"x"


def test_the_test_context_verifies() -> None:
    assert tls().client.verify_mode is ssl.CERT_REQUIRED


class Names(AbstractResolver):
    """Resolves every name to the given addresses."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses

    async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> Any:
        return [
            {
                "hostname": host,
                "host": one,
                "port": port,
                "family": socket.AF_INET6 if ":" in one else socket.AF_INET,
                "proto": 0,
                "flags": 0,
            }
            for one in self.addresses
        ]

    async def close(self) -> None:
        pass


def judged(network: NetworkPolicy, *addresses: str) -> aiohttp.ClientSession:
    """A session whose connections `network` judges, and for which every name has the given addresses."""
    session = open_session(tls=tls().client, connections=4, connect_timeout=5, network=network)
    if addresses:
        session.connector._resolver = Names(*addresses)  # type: ignore[union-attr]
    return session


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]", "169.254.169.254", "0.0.0.0", "[fe80::1]"],
)
async def test_a_literal_address_that_is_refused_is_not_connected_to(host: str) -> None:
    async with Fake(script()) as fake, judged(NetworkPolicy()) as session:
        port = fake.url.rpartition(":")[2]
        error = await failure(session, f"https://{host}:{port}/")

        assert fake.seen == []
    assert error.cause is Cause.ADDRESS
    assert "[network] allow" in str(error)


@pytest.mark.parametrize("addresses", [("127.0.0.1",), ("127.0.0.1", "::1"), ("::ffff:127.0.0.1",)])
async def test_a_name_is_judged_by_what_it_resolves_to(addresses: tuple[str, ...]) -> None:
    async with Fake(script()) as fake, judged(NetworkPolicy(), *addresses) as session:
        port = fake.url.rpartition(":")[2]
        error = await failure(session, f"https://metadata.example:{port}/")

        assert fake.seen == []
    assert error.cause is Cause.ADDRESS


async def test_an_address_that_is_allowed_is_connected_to() -> None:
    async with Fake(script(reply({}))) as fake, judged(LOOPBACK) as session:
        assert (await get(session, fake.url + "/x")).status == 200


async def test_a_name_with_one_permitted_address_is_connected_to_there() -> None:
    policy = NetworkPolicy(allow=(ip_network("127.0.0.1/32"),))
    async with Fake(script(reply({}))) as fake, judged(policy, "127.0.0.2", "127.0.0.1") as session:
        port = fake.url.rpartition(":")[2]
        answer = await get(session, f"https://cluster.example:{port}/x", server_hostname="127.0.0.1")

    assert answer.status == 200


async def drop(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"SSH-2.0-OpenSSH\r\n")
    await reader.read()


async def test_outside_of_allow_a_closed_a_silent_and_another_port_fail_alike(monkeypatch: Any) -> None:
    # Loopback stands for an address that nobody named.
    monkeypatch.setattr(NetworkPolicy, "judge", lambda *_: Standing.UNNAMED)
    errors = []
    with nobody() as closed:
        async with raw_server(hang) as silent, raw_server(drop) as dropping, raw_server(babble) as other:
            for url in (silent, dropping, other, closed):
                async with judged(NetworkPolicy()) as session:
                    errors.append(await failure(session, url.replace("http:", "https:"), timeout=0.5))

    assert {(error.cause, str(error)) for error in errors} == {(Cause.CONNECT, NOT_REACHED)}
    assert len({error.detail for error in errors}) > 2, "the log has the cause"


async def test_in_allow_the_cause_is_in_the_text() -> None:
    with nobody() as closed:
        async with judged(LOOPBACK) as session:
            error = await failure(session, closed.replace("http:", "https:"))

    assert "cannot connect" in str(error)
    assert error.detail == ""


async def test_every_request_names_its_sender(session: aiohttp.ClientSession) -> None:
    async with Fake(script(reply({}))) as fake:
        await get(session, fake.url)

    assert fake.seen[0].headers["User-Agent"].startswith("palette-sync/")


@contextmanager
def chain_of(certificates: int) -> Iterator[ssl.SSLContext]:
    """A server that sends so many certificates with its own. They need not belong together to cost work."""
    import tempfile

    key = rsa.generate_private_key(65537, 4096)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "more")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.not_valid_before(datetime(2020, 1, 1, tzinfo=UTC)).not_valid_after(
        datetime(2040, 1, 1, tzinfo=UTC)
    )
    more = builder.serial_number(1).sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile() as file:
        file.write(
            tls().certificate_and_key.replace(b"-----BEGIN PRIVATE", more * certificates + b"-----BEGIN PRIVATE")
        )
        file.flush()
        context.load_cert_chain(file.name)
    yield context


@pytest.mark.parametrize(("certificates", "accepted"), [(0, True), (5, True), (16, False)])
async def test_a_server_that_sends_too_many_certificates_is_refused_before_they_are_verified(
    certificates: int, *, accepted: bool
) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    with chain_of(certificates) as context:
        server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        async with open_session(tls=trusting(tls().ca_pem), connections=1) as session:
            if accepted:
                assert (await get(session, url)).status == 204
            else:
                error = await failure(session, url)
                assert error.cause is Cause.HANDSHAKE
                assert f"more than {LARGEST_HANDSHAKE} bytes" in str(error)
        server.close()
        await server.wait_closed()

"""A TLS server on loopback that answers as a test scripts it, and one that speaks raw bytes."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Self

import orjson
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping

CANARY = "canary/api+key=0123456789abcdef"


@dataclass(frozen=True)
class TestTls:
    __test__ = False

    ca_pem: str
    server: ssl.SSLContext
    certificate_and_key: bytes

    @property
    def client(self) -> ssl.SSLContext:
        return ssl.create_default_context(cadata=self.ca_pem)


@lru_cache(maxsize=1)
def tls() -> TestTls:
    """One self-signed authority, its certificate for 127.0.0.1, for the whole process."""
    import tempfile

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "palette-fake")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile() as file:
        file.write(pem + private)
        file.flush()
        context.load_cert_chain(file.name)
    return TestTls(pem.decode(), context, pem + private)


@dataclass(frozen=True)
class Seen:
    """A request as it arrived."""

    method: str
    path: str
    query: dict[str, str]
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)


@dataclass
class Fake:
    """Answers each request by calling `answer`; keeps what it saw."""

    answer: Callable[[Seen], web.StreamResponse | Awaitable[web.StreamResponse]]
    seen: list[Seen] = field(default_factory=list)
    url: str = ""

    async def __aenter__(self) -> Self:
        self._server = web.Server(self._handle, access_log=None)
        self._listener = await asyncio.get_running_loop().create_server(self._server, "127.0.0.1", 0, ssl=tls().server)
        self.url = f"https://127.0.0.1:{self._listener.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listener.close()
        await self._server.shutdown(timeout=0.05)
        await asyncio.sleep(0)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        one = Seen(request.method, request.path, dict(request.query), request.headers, await request.read())
        self.seen.append(one)
        answer = self.answer(one)
        return answer if isinstance(answer, web.StreamResponse) else await answer


def reply(document: object, status: int = 200, **headers: str) -> web.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return web.Response(
        status=status, body=orjson.dumps(document), headers={"Content-Type": "application/json", **named}
    )


def script(*answers: web.StreamResponse | Callable[[], web.StreamResponse]) -> Callable[[Seen], web.StreamResponse]:
    """Answer the n-th request with the n-th answer; the last one is given for ever, if it is a function."""
    waiting = list(answers)

    def answer(_: Seen) -> web.StreamResponse:
        one = waiting.pop(0) if len(waiting) > 1 or not callable(waiting[0]) else waiting[0]
        return one() if callable(one) else one

    return answer


@contextmanager
def nobody() -> Iterator[str]:
    """The http URL of a port that nobody listens at and, while it is held, that no other process can take."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


@asynccontextmanager
async def raw_server(
    talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    """A plain TCP server; yields its http URL. Each connection is handed to `talk` and closed after it."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talk(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


def says(data: bytes) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    """Read a request's head, then send `data` and close."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(data)
        await writer.drain()

    return talk

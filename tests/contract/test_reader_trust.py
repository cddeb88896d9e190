"""The CA that is published is one with which Node verifies the API server, because Backstage runs on Node."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import ssl
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from contract.palette_fake import nobody, raw_server
from loopback import LOOPBACK
from palette_sync import kube, tls
from palette_sync.core.model import Server, ca_data_of, ca_pem_of
from palette_sync.core.network import NetworkPolicy, Standing
from palette_sync.core.reasons import Reason
from palette_sync.http import NOT_REACHED
from palette_sync.kube import trust
from palette_sync.tls import path_to_root
from pki import Issued, server_context

HERE = kube.Requests(network=LOOPBACK)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ROOT = Issued("root")
INTER = Issued("inter", ROOT)
LEAF = Issued("leaf", INTER, authority=False)
OTHER = Issued("other root")
SELF = Issued("self-signed server", authority=False)
DEEPER = Issued("deeper", INTER)
DEEP_LEAF = Issued("deep leaf", DEEPER, authority=False)
# A root of the same name as the real one, which signed nothing here.
IMPOSTOR = Issued("root")

NODE = shutil.which("node")
SCRIPT = Path(__file__).with_name("verify_with_node.js")


@asynccontextmanager
async def serving(*chain: Issued) -> AsyncIterator[str]:
    """A server that answers every request with the version of an API server; it presents this chain."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            body = b'{"major":"1","minor":"36","gitVersion":"v1.36.2"}'
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=server_context(*chain))
    async with server:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def published(url: str, *known: Issued) -> Server:
    """The server as it would be published, where the kubeconfig holds these certificates."""
    server = Server(url, ca_data_of("".join(one.pem for one in known)) if known else None)

    async def work(reached: Server) -> Server:
        await kube.probe_version(reached, timeout=30, requests=HERE)
        return reached

    return await kube.as_reader(server, work, timeout=30, network=LOOPBACK)


async def node_says(url: str, ca_pem: str) -> str:
    """What Node makes of the server with this CA: "ok", or the code of its error."""
    assert NODE is not None
    process = await asyncio.create_subprocess_exec(
        NODE, SCRIPT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env={"NODE_EXTRA_CA_CERTS": ""}
    )
    out, _ = await process.communicate(json.dumps({"url": url, "ca": ca_pem}).encode())
    return out.decode().strip()


# (known CA, presented chain, certificates that are published; None = ChainIncomplete)
CASES = [
    pytest.param((ROOT,), (LEAF, INTER), (ROOT,), id="the root"),
    pytest.param((INTER, ROOT), (LEAF,), (INTER, ROOT), id="intermediate and root, the server presents its own only"),
    pytest.param((SELF,), (SELF,), (SELF,), id="a server that signed itself"),
    pytest.param((INTER,), (LEAF, INTER), None, id="the intermediate only"),
    pytest.param((INTER,), (LEAF,), None, id="the intermediate only, and the server presents its own only"),
    pytest.param((LEAF,), (LEAF,), None, id="the server's own"),
    pytest.param((LEAF,), (LEAF, INTER), None, id="the server's own, without the root"),
    pytest.param((INTER,), (LEAF, INTER, ROOT), (INTER, ROOT), id="the server presents the root"),
    pytest.param((LEAF,), (LEAF, INTER, ROOT), (LEAF, INTER, ROOT), id="the server's own, and it presents all"),
    pytest.param((DEEPER,), (DEEP_LEAF, DEEPER, INTER, ROOT), (DEEPER, INTER, ROOT), id="two steps to the root"),
    pytest.param((INTER,), (LEAF, INTER, IMPOSTOR), None, id="a root that only has the name"),
    pytest.param((INTER, OTHER), (LEAF, INTER), None, id="a root that signed nothing here"),
]


@pytest.mark.parametrize(("known", "presented", "expected"), CASES)
async def test_what_is_published_ends_at_a_root(
    known: tuple[Issued, ...], presented: tuple[Issued, ...], expected: tuple[Issued, ...] | None
) -> None:
    async with serving(*presented) as url:
        if expected is None:
            with pytest.raises(kube.ChainIncomplete, match="no root") as caught:
                await published(url, *known)
            assert caught.value.reason is Reason.CHAIN_INCOMPLETE
            assert "[defaults.trust]" in str(caught.value)
        else:
            assert ca_pem_of(await published(url, *known)) == "".join(one.pem for one in expected)


@pytest.mark.skipif(NODE is None, reason="Node is not installed")
@pytest.mark.parametrize(("known", "presented", "expected"), CASES)
async def test_node_verifies_what_is_published_and_refuses_what_is_withheld(
    known: tuple[Issued, ...], presented: tuple[Issued, ...], expected: tuple[Issued, ...] | None
) -> None:
    async with serving(*presented) as url:
        pem = "".join(one.pem for one in known)
        if expected is not None:
            pem = ca_pem_of(await published(url, *known))

        said = await node_says(url, pem)

    assert (said == "ok") is (expected is not None), said


async def test_a_ca_that_did_not_sign_the_server_is_refused_and_not_completed() -> None:
    """The server presents a whole chain, but nothing connects it with what is known."""
    async with serving(LEAF, INTER, ROOT) as url:
        with pytest.raises(kube.Unreachable) as caught:
            await published(url, OTHER)

    assert caught.value.reason is Reason.CERTIFICATE_REFUSED


@pytest.fixture
def host_trusts_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """This host trusts ROOT, which Node does not know."""

    def system_trust() -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=ROOT.pem)
        return context

    monkeypatch.setattr(tls, "system_trust", system_trust)
    tls.reader_trust.cache_clear()
    monkeypatch.setattr("palette_sync.kube.transport.reader_trust", tls.reader_trust)


@pytest.mark.usefixtures("host_trusts_the_root")
async def test_without_a_ca_the_root_that_was_used_is_published() -> None:
    try:
        async with serving(LEAF, INTER) as url:
            server = await published(url)
            said = "ok" if NODE is None else await node_says(url, ca_pem_of(server))
    finally:
        tls.reader_trust.cache_clear()

    assert ca_pem_of(server) == ROOT.pem
    assert said == "ok"


async def test_without_a_ca_an_unknown_root_is_refused() -> None:
    async with serving(LEAF, INTER) as url:
        with pytest.raises(kube.Unreachable) as caught:
            await published(url)

    assert caught.value.reason is Reason.CERTIFICATE_REFUSED


async def test_other_failures_are_not_about_the_chain() -> None:
    async with serving(LEAF, INTER, ROOT) as url:
        pass

    with pytest.raises(kube.Unreachable) as caught:
        await published(url, INTER)
    assert caught.value.reason is Reason.UNREACHABLE
    with pytest.raises(kube.Unreachable) as caught:
        await trust.with_root(Server(url, ca_data_of(INTER.pem)), timeout=30, network=LOOPBACK)
    assert caught.value.reason is Reason.UNREACHABLE


async def test_a_refusal_of_a_name_is_not_completed_away() -> None:
    """The CA is whole; the certificate is for another name."""
    async with serving(LEAF, INTER) as url:
        server = replace(Server(url, ca_data_of(ROOT.pem)), tls_server_name="elsewhere.example")
        with pytest.raises(kube.Unreachable) as caught:
            await kube.as_reader(
                server, lambda one: kube.probe_version(one, timeout=30, requests=HERE), timeout=30, network=LOOPBACK
            )

    assert caught.value.reason is Reason.CERTIFICATE_REFUSED


async def test_a_file_that_ends_without_a_line_break_is_completed_too() -> None:
    async with serving(LEAF, INTER, ROOT) as url:
        server = Server(url, ca_data_of(INTER.pem.rstrip("\n")))
        completed = await trust.with_root(server, timeout=30, network=LOOPBACK)

    assert ca_pem_of(completed) == INTER.pem + ROOT.pem


def test_the_path_to_a_root_is_found_by_signatures_and_in_any_order() -> None:
    presented = [one.certificate for one in (ROOT, IMPOSTOR, LEAF, INTER)]

    assert path_to_root(LEAF.certificate, presented) == [INTER.certificate, ROOT.certificate]
    assert path_to_root(ROOT.certificate, presented) == []
    assert path_to_root(INTER.certificate, [IMPOSTOR.certificate, LEAF.certificate]) is None
    assert path_to_root(DEEPER.certificate, presented) == [INTER.certificate, ROOT.certificate]


def test_the_published_ca_keeps_what_was_known_in_front() -> None:
    """So that a CA of a rule is recognised in a record."""
    assert base64.b64decode(ca_data_of(INTER.pem + ROOT.pem)).decode().startswith(INTER.pem)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"])
async def test_the_search_for_a_root_connects_to_no_refused_address(host: str) -> None:
    async with serving(LEAF, INTER) as url:
        refused = Server(url.replace("127.0.0.1", host))
        with pytest.raises(kube.Unreachable) as caught:
            await trust.with_root(refused, timeout=30, network=NetworkPolicy())

    assert caught.value.reason is Reason.ADDRESS_REFUSED


async def test_the_search_for_a_root_is_no_port_scanner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NetworkPolicy, "judge", lambda *_: Standing.UNNAMED)
    texts = set()
    with nobody() as closed:
        async with raw_server(lambda reader, _writer: reader.read()) as silent:
            for url in (closed, silent):
                with pytest.raises(kube.Unreachable) as caught:
                    await trust.with_root(Server(url.replace("http:", "https:")), timeout=0.5, network=NetworkPolicy())
                assert caught.value.reason is Reason.UNREACHABLE
                assert caught.value.detail
                texts.add(str(caught.value))

    assert texts == {NOT_REACHED}

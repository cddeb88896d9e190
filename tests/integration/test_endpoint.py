"""Health and metrics as a prober sees them: real HTTP on loopback."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from palette_sync.telemetry.endpoint import INDEX, MAX_CONNECTIONS, Endpoint, EndpointError

if TYPE_CHECKING:
    from collections.abc import Mapping


class Daemon:
    """What the endpoint shows, as a test sets it."""

    def __init__(self) -> None:
        self.dead: list[str] = []
        self.unready: list[str] = []

    def not_live(self) -> list[str]:
        return self.dead

    def not_ready(self) -> list[str]:
        return self.unready

    def status(self) -> Mapping[str, object]:
        return {"state": "ready", "instances": {"prod": {"version": 3}}}

    def metrics(self) -> tuple[bytes, str]:
        return b"palette_sync_snapshot_version 3\n", "text/plain; version=0.0.4; charset=utf-8"


async def get(url: str, path: str, *, method: str = "GET") -> tuple[int, str, str]:
    async with aiohttp.ClientSession() as session, session.request(method, url + path) as answer:
        return answer.status, answer.headers["Content-Type"], await answer.text()


async def test_a_well_daemon_answers_200_everywhere() -> None:
    async with Endpoint("127.0.0.1:0", Daemon()) as endpoint:
        assert await get(endpoint.url, "/") == (200, "text/plain; charset=utf-8", INDEX)
        assert await get(endpoint.url, "/livez") == (200, "text/plain; charset=utf-8", "ok\n")
        assert await get(endpoint.url, "/readyz") == (200, "text/plain; charset=utf-8", "ok\n")
        assert await get(endpoint.url, "/metrics") == (
            200,
            "text/plain; version=0.0.4; charset=utf-8",
            "palette_sync_snapshot_version 3\n",
        )
        assert await get(endpoint.url, "/status.json") == (
            200,
            "application/json",
            '{"state":"ready","instances":{"prod":{"version":3}}}',
        )


async def test_a_problem_is_a_503_that_names_it_and_each_probe_has_its_own() -> None:
    daemon = Daemon()
    async with Endpoint("127.0.0.1:0", daemon) as endpoint:
        daemon.unready = ["prod: no snapshot yet", "dev: no snapshot yet"]
        assert (await get(endpoint.url, "/livez"))[0] == 200
        status, _, text = await get(endpoint.url, "/readyz")
        assert (status, text) == (503, "prod: no snapshot yet\ndev: no snapshot yet\n")

        daemon.unready, daemon.dead = [], ["the runner of prod has ended"]
        assert (await get(endpoint.url, "/livez"))[::2] == (503, "the runner of prod has ended\n")
        assert (await get(endpoint.url, "/readyz"))[0] == 200


async def test_a_probe_may_ask_for_the_head_alone() -> None:
    async with Endpoint("127.0.0.1:0", Daemon()) as endpoint:
        assert (await get(endpoint.url, "/livez", method="HEAD"))[0] == 200


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/status.json", "/"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_it_only_reads(path: str, method: str) -> None:
    async with Endpoint("127.0.0.1:0", Daemon()) as endpoint:
        assert (await get(endpoint.url, path, method=method))[0] == 405


@pytest.mark.parametrize("path", ["/nowhere", "/livez/", "/metrics/../config", "/%2e%2e/etc/passwd"])
async def test_there_is_nothing_else(path: str) -> None:
    async with Endpoint("127.0.0.1:0", Daemon()) as endpoint:
        assert (await get(endpoint.url, path))[0] == 404


async def test_it_listens_on_ipv6_too() -> None:
    async with Endpoint("[::1]:0", Daemon()) as endpoint:
        assert endpoint.url.startswith("http://[::1]:")
        assert (await get(endpoint.url, "/livez"))[0] == 200


async def test_after_the_end_nobody_listens() -> None:
    async with Endpoint("127.0.0.1:0", Daemon()) as endpoint:
        assert not endpoint.url.endswith(":0")
    with pytest.raises(aiohttp.ClientConnectorError):
        await get(endpoint.url, "/livez")


async def test_an_address_in_use_is_reported_with_a_remedy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        listen = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(EndpointError) as caught:
            async with Endpoint(listen, Daemon()):
                pass

    assert str(caught.value).startswith(f"http.listen: cannot listen at {listen}: ")
    assert "it is in use (by another palette-sync?)" in str(caught.value)
    assert str(caught.value).endswith('; choose another address, or "" for none')
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("listen", ["127.0.0.1:70000", "203.0.113.9:1"])
async def test_an_address_of_another_machine_is_reported(listen: str) -> None:
    with pytest.raises(EndpointError, match=f"cannot listen at {listen}"):
        await Endpoint(listen, Daemon()).__aenter__()


async def test_a_probe_that_fails_is_a_500_and_shows_no_traceback() -> None:
    class Broken(Daemon):
        def status(self) -> Any:
            raise LookupError("canary")

    async with Endpoint("127.0.0.1:0", Broken()) as endpoint:
        status, _, text = await get(endpoint.url, "/status.json")
        assert (status, "canary" in text) == (500, False)
        assert (await get(endpoint.url, "/livez"))[0] == 200


async def test_who_only_holds_connections_open_uses_up_no_files_and_keeps_nobody_out() -> None:
    async with AsyncExitStack() as held, Endpoint("127.0.0.1:0", Daemon()) as endpoint:
        host, port = endpoint.url.removeprefix("http://").split(":")
        readers = []
        for _ in range(4 * MAX_CONNECTIONS):
            reader, writer = await asyncio.open_connection(host, int(port))
            held.callback(writer.close)
            readers.append(reader)

        for reader in readers[: 3 * MAX_CONNECTIONS]:
            assert await reader.read() == b""  # it was closed
        assert (await get(endpoint.url, "/livez"))[0] == 200
        assert not readers[-1].at_eof()


async def named(url: str, host: str | None) -> tuple[int, str]:
    """Ask with that Host header, or without one, as HTTP/1.0 allows."""
    _, _, port = url.rpartition(":")
    reader, writer = await asyncio.open_connection("127.0.0.1", int(port))
    header = f"Host: {host}\r\n" if host is not None else ""
    writer.write(f"GET /status.json HTTP/1.0\r\n{header}\r\n".encode())
    answer = (await reader.read()).decode()
    writer.close()
    await writer.wait_closed()
    return int(answer.split()[1]), answer.partition("\r\n\r\n")[2]


@pytest.mark.parametrize(
    "host",
    [
        None,
        "127.0.0.1",
        "127.0.0.1:9464",
        "[::1]:9464",
        "::1",
        "10.1.2.3",
        "localhost",
        "palette-sync:9464",
        "Metrics.Example:80",
    ],
)
async def test_a_host_by_which_it_can_be_meant_is_answered(host: str | None) -> None:
    async with Endpoint("127.0.0.1:0", Daemon(), hosts=["metrics.example"]) as endpoint:
        assert (await named(endpoint.url, host))[0] == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:9464", "127.0.0.1.evil.example", "", "metrics.example.evil"]
)
async def test_a_page_that_rebinds_its_name_to_the_endpoint_reads_nothing(host: str) -> None:
    async with Endpoint("127.0.0.1:0", Daemon(), hosts=["metrics.example"]) as endpoint:
        status, text = await named(endpoint.url, host)

    assert status == 421
    assert "instances" not in text
    assert "[http] hosts" in text

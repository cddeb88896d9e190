"""One call to Palette: what is sent, what is tried again and after how long, and that the key shows nowhere."""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
import structlog
from aiohttp import web

from contract.palette_fake import CANARY, Fake, Seen, nobody, raw_server, reply, says, script, tls
from palette_sync import kube, palette
from palette_sync.core.model import Cluster, Project, Scope, Secret
from palette_sync.palette.client import PaletteClient, Timing
from palette_sync.palette.limits import Limits, Rate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

INFO = "/v1/users/info"
GOOD = {"orgName": "org", "tenantUid": "t1", "userUid": "u1"}
NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
KUBECONFIG = "apiVersion: v1\nkind: Config\n"
CLUSTER = Cluster("c1", "web", Scope.PROJECT, Project("p1", "payments"), "Running")
SHARED = Cluster("c2", "shared", Scope.TENANT, None, "Running")


@dataclass
class Counts:
    """A recorder."""

    requests: Counter[tuple[str, str]] = field(default_factory=Counter)
    retries: Counter[str] = field(default_factory=Counter)

    def request(self, api: str, outcome: str) -> None:
        self.requests[api, outcome] += 1

    def retry(self, api: str) -> None:
        self.retries[api] += 1


@dataclass
class Rig:
    """A client against a fake; `slept` are its waits, which take no time."""

    fake: Fake
    client: PaletteClient
    slept: list[float]
    counts: Counts


@asynccontextmanager
async def rig(
    answer: Callable[[Seen], Any], *, draw: Callable[[], float] = lambda: 1.0, **options: Any
) -> AsyncIterator[Rig]:
    slept: list[float] = []
    counts = Counts()

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    settings: dict[str, Any] = {
        "limits": Limits(enabled=False),
        "tls": tls().client,
        "recorder": counts,
        "sleep": sleep,
        "draw": draw,
        "now": lambda: NOW,
        **options,
    }
    async with (
        Fake(answer) as fake,
        PaletteClient("prod", fake.url, Secret(CANARY), **settings) as client,
    ):
        yield Rig(fake, client, slept, counts)


async def failure(one: Rig, kind: type[palette.PaletteError]) -> palette.PaletteError:
    with pytest.raises(palette.PaletteError) as caught:
        await one.client.get_json(INFO)
    assert type(caught.value) is kind
    for text in (str(caught.value), repr(caught.value)):
        assert CANARY not in text
        assert quote(CANARY, safe="") not in text
    return caught.value


async def test_a_request_carries_key_accept_and_no_project_unless_told() -> None:
    async with rig(lambda _: reply(GOOD)) as one:
        assert await one.client.get_json(INFO) == GOOD

    seen = one.fake.seen[0]
    assert (seen.method, seen.path, seen.headers["ApiKey"]) == ("GET", INFO, CANARY)
    assert seen.headers["Accept"] == "application/json"
    assert "ProjectUid" not in seen.headers
    assert "Authorization" not in seen.headers


async def test_a_search_is_posted_as_json_with_its_query_in_the_address() -> None:
    async with rig(lambda _: reply(GOOD)) as one:
        await one.client.post_json("/v1/search", {"a": 1}, project="p1", params={"continue": "to/ken=="})

    seen = one.fake.seen[0]
    assert (seen.method, seen.json, seen.query) == ("POST", {"a": 1}, {"continue": "to/ken=="})
    assert (seen.headers["ProjectUid"], seen.headers["Content-Type"]) == ("p1", "application/json")


async def test_concurrent_requests_keep_their_own_project() -> None:
    async def answer(seen: Seen) -> web.Response:
        await asyncio.sleep(0.01)
        return reply({"project": seen.headers.get("ProjectUid"), "asked": seen.query["asked"]})

    async with rig(answer) as one, asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(one.client.get_json(INFO, project=name, params={"asked": str(name)}))
            for name in ("a", "b", None, "c") * 5
        ]

    assert all(str(task.result()["project"]) == task.result()["asked"] for task in tasks)  # type: ignore[index]


async def test_a_uid_is_quoted_into_the_path() -> None:
    async with rig(lambda _: reply({})) as one:
        await one.client.get_json("/v1/spectroclusters/{uid}/oidc", uid="a/../b?c")
        raw = one.fake.seen[0]

    assert raw.path == "/v1/spectroclusters/a/../b?c/oidc"
    assert raw.query == {}


@pytest.mark.parametrize("status", [429, 500, 501, 502, 503, 504])
async def test_a_passing_failure_is_tried_again(status: int) -> None:
    async with rig(
        script(web.Response(status=status), reply({"code": "x", "message": "y"}, status), reply(GOOD))
    ) as one:
        assert await one.client.get_json(INFO) == GOOD

    assert len(one.fake.seen) == 3
    assert one.client.requests == 3
    assert one.slept == [1.0, 2.0]
    assert one.counts.retries == {INFO: 2}
    assert one.counts.requests[INFO, "ok"] == 1
    assert sum(one.counts.requests.values()) == 3


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, palette.Rejected),
        (401, palette.Unauthorized),
        (403, palette.NotPermitted),
        (404, palette.NotFound),
        (405, palette.Rejected),
        (408, palette.Rejected),
        (422, palette.Rejected),
    ],
)
async def test_another_refusal_is_final(status: int, kind: type[palette.PaletteError]) -> None:
    async with rig(lambda _: web.Response(status=status, headers={"Retry-After": "1"})) as one:
        error = await failure(one, kind)

    assert len(one.fake.seen) == 1
    assert one.slept == []
    assert error.status == status


async def test_a_redirect_is_refused_and_the_key_goes_nowhere_else() -> None:
    async with Fake(lambda _: reply(GOOD)) as elsewhere:
        moved = {"Location": elsewhere.url + INFO}
        async with rig(lambda _: web.Response(status=307, headers=moved)) as one:
            error = await failure(one, palette.Rejected)

    assert "redirect" in str(error)
    assert elsewhere.seen == []


async def test_five_attempts_are_enough_and_the_last_error_tells() -> None:
    async with rig(lambda _: reply({"code": "Busy", "message": "come back later"}, 503)) as one:
        error = await failure(one, palette.ServerFailure)

    assert len(one.fake.seen) == 5
    assert one.slept == [1.0, 2.0, 4.0, 8.0]
    assert "come back later" in str(error)
    assert f"GET {INFO}: HTTP 503 Busy" in str(error)


async def test_the_backoff_is_drawn_from_zero_to_a_capped_ceiling() -> None:
    draws = chain([0.0, 0.5, 1.0, 0.25], repeat(1.0))
    timing = Timing(backoff=4, backoff_cap=10)
    async with rig(lambda _: web.Response(status=500), draw=lambda: next(draws), timing=timing) as one:
        await failure(one, palette.ServerFailure)

    assert one.slept == [0.0, 4.0, 10.0, 2.5]


@pytest.mark.parametrize(
    ("headers", "waited"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "7.5"}, 7.5),
        ({"Retry-After": "0"}, 0.0),
        ({"Retry-After": "-5"}, 0.0),
        ({"Retry-After": "3600"}, 30.0),
        ({"Retry-After": "soon"}, 0.0),
        ({"Retry-After": "9999999999999999999"}, 0.0),
        ({"Retry-After": format_datetime(NOW + timedelta(seconds=9), usegmt=True)}, 9.0),
        ({"Retry-After": "Fri, 01 May 2026 12:00:09 -0000"}, 9.0),
        ({"Retry-After": format_datetime(NOW - timedelta(hours=9), usegmt=True)}, 0.0),
        ({}, 0.0),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
async def test_a_wait_that_palette_asks_for_is_kept_up_to_a_cap(
    headers: dict[str, str], waited: float, status: int
) -> None:
    date = {"Date": format_datetime(NOW, usegmt=True)}
    async with rig(
        script(web.Response(status=status, headers={**date, **headers}), reply(GOOD)), draw=lambda: 0.0
    ) as one:
        await one.client.get_json(INFO)

    assert one.slept == [waited]


async def test_a_date_to_come_back_is_measured_by_the_servers_own_clock() -> None:
    skewed = NOW + timedelta(hours=5)
    headers = {
        "Date": format_datetime(skewed, usegmt=True),
        "Retry-After": format_datetime(skewed + timedelta(seconds=4), usegmt=True),
    }
    async with rig(script(web.Response(status=429, headers=headers), reply(GOOD)), draw=lambda: 0.0) as one:
        await one.client.get_json(INFO)

    assert one.slept == [4.0]


async def test_those_who_were_told_the_same_wait_come_back_apart() -> None:
    answers = script(web.Response(status=429, headers={"Retry-After": "7"}), reply(GOOD))
    async with rig(answers, draw=lambda: 0.5) as one:
        await one.client.get_json(INFO)

    assert one.slept == [7.5]


async def test_a_wait_that_does_not_fit_into_the_deadline_is_not_begun() -> None:
    timing = Timing(deadline=15)
    async with rig(lambda _: web.Response(status=429, headers={"Retry-After": "20"}), timing=timing) as one:
        await failure(one, palette.TooManyRequests)

    assert len(one.fake.seen) == 1
    assert one.slept == []


async def test_a_broken_connection_is_tried_again() -> None:
    answered = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal answered
        await reader.readuntil(b"\r\n\r\n")
        answered += 1
        if answered == 1:
            return
        if answered == 2:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{")
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        await writer.drain()

    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    server = await asyncio.start_server(lambda r, w: _closing(talk, r, w), "127.0.0.1", 0, ssl=tls().server)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with PaletteClient(
        "prod", url, Secret(CANARY), limits=Limits(), tls=tls().client, sleep=sleep, draw=lambda: 1.0
    ) as client:
        # A POST, because aiohttp itself sends a GET once more over a new connection.
        assert await client.post_json(INFO, {}) == {}
    server.close()

    assert answered == 3
    assert slept == [1.0, 2.0]


async def _closing(talk: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await talk(reader, writer)
    writer.close()


async def test_nobody_at_the_address_is_unreachable_after_all_attempts() -> None:
    refused = r"GET /v1/users/info: cannot connect to 127\.0\.0\.1:\d+: Connection refused"
    with nobody() as url:
        https = url.replace("http:", "https:")
        async with PaletteClient(
            "prod", https, Secret(CANARY), limits=Limits(), tls=tls().client, sleep=_no_sleep
        ) as client:
            with pytest.raises(palette.Unreachable, match=refused):
                await client.get_json(INFO)

    assert client.requests == 5


async def _no_sleep(_: float) -> None:
    pass


async def test_a_certificate_that_does_not_verify_is_not_tried_again() -> None:
    async with rig(lambda _: reply(GOOD), tls=None, ca_pem=None) as one:
        error = await failure(one, palette.Unreachable)

    assert "certificate" in str(error)
    assert one.fake.seen == []
    assert one.client.requests == 1
    assert not error.retryable


async def test_a_ca_in_pem_is_the_trust() -> None:
    async with rig(lambda _: reply(GOOD), tls=None, ca_pem=tls().ca_pem) as one:
        assert await one.client.get_json(INFO) == GOOD


async def test_a_body_that_is_too_large_is_not_tried_again() -> None:
    async with rig(lambda _: web.Response(body=b"x" * (1024 * 1024 + 1))) as one:
        with pytest.raises(palette.FileTooLarge, match="larger than 1048576 bytes"):
            await one.client.get_file("/v1/spectroclusters/{uid}/assets/kubeconfig", uid="c1")

    assert len(one.fake.seen) == 1


async def test_a_listing_may_be_larger_than_a_file() -> None:
    async with rig(lambda _: reply({"x": "y" * (2 * 1024 * 1024)})) as one:
        assert isinstance(await one.client.get_json(INFO), dict)


async def test_the_deadline_covers_hanging_attempts_and_waits_together() -> None:
    async def hang(_: Seen) -> web.Response:
        await asyncio.Event().wait()
        return reply(GOOD)

    # Without the deadline the attempts would go on for hours.
    timing = Timing(attempt=0.2, attempts=100_000, deadline=3, backoff=0.001, backoff_cap=0.001)
    started = time.monotonic()
    async with rig(hang, timing=timing) as one:
        error = await failure(one, palette.Unreachable)
        spent = time.monotonic() - started

    assert spent > 2.5, "not given up with the first attempt"
    assert len(one.fake.seen) >= 2
    assert "did not answer" in str(error)


async def test_waiting_for_the_rate_limit_counts_against_the_deadline() -> None:
    limits = Limits(rates=(Rate("/v1", 0.0001, 1),))
    async with rig(lambda _: reply(GOOD), limits=limits, timing=Timing(deadline=0.3)) as one:
        await limits.of(one.fake.url.removeprefix("https://")).acquire(INFO)  # the next place is hours away
        error = await failure(one, palette.Unreachable)

    assert "rate limit" in str(error)
    assert one.client.requests == 0


async def test_the_last_error_is_told_when_the_deadline_ends_a_retry() -> None:
    limits = Limits(rates=(Rate("/v1", 0.0001, 1),))  # there is no second place within the deadline
    async with rig(lambda _: web.Response(status=503), limits=limits, timing=Timing(deadline=5, backoff=0.01)) as one:
        await failure(one, palette.ServerFailure)

    assert len(one.fake.seen) == 1


async def test_every_attempt_takes_its_place_in_the_rate_limit() -> None:
    limits = Limits(rates=(Rate("/v1", 1000, 2),))
    async with rig(lambda _: web.Response(status=500), limits=limits) as one:
        started = time.monotonic()
        await failure(one, palette.ServerFailure)

    assert time.monotonic() - started >= 0.002
    assert one.client.requests == 5


async def test_cancelling_a_call_ends_it_at_once() -> None:
    arrived = asyncio.Event()

    async def hang(_: Seen) -> web.Response:
        arrived.set()
        await asyncio.Event().wait()
        return reply(GOOD)

    async with rig(hang) as one:
        task = asyncio.create_task(one.client.get_json(INFO))
        await arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert one.client.requests == 1
    assert one.slept == []


@pytest.mark.parametrize("body", [b"", b"not json", b'{"a":', b"<html>", b"\xff"])
async def test_an_answer_that_is_no_json_is_malformed(body: bytes) -> None:
    async with rig(lambda _: web.Response(body=body)) as one:
        error = await failure(one, palette.Malformed)

    assert len(one.fake.seen) == 1
    assert INFO in str(error)


@pytest.mark.parametrize(
    "spelling", [CANARY, quote(CANARY, safe=""), CANARY.replace("/", "\\/")], ids=["bare", "quoted", "escaped"]
)
async def test_a_key_that_palette_echoes_is_removed(spelling: str) -> None:
    body = f'{{"code":"ResourceNotFound","message":"key {spelling} unknown","details":"{spelling}"}}'
    async with rig(lambda _: web.Response(status=404, body=body.encode())) as one:
        error = await failure(one, palette.Unauthorized)  # the key is what was not found

    assert "key *** unknown" in str(error)


@pytest.mark.parametrize("ask", [palette.oidc_spec, palette.admin_kubeconfig])
async def test_a_key_that_palette_does_not_know_any_more_makes_nothing_absent(ask: Any) -> None:
    body = {"code": "ResourceNotFound", "message": f"ApiKey {CANARY} not found"}
    async with rig(lambda _: reply(body, 404)) as one:
        with pytest.raises(palette.Unauthorized):
            await ask(one.client, CLUSTER)


@pytest.mark.parametrize(
    ("status", "code"),
    [(404, "ProjectNotFoundInTenant"), (403, "ResourceAccessDenied"), (500, "ProjectNotFoundInTenant")],
)
async def test_an_error_about_the_project_says_nothing_about_oidc_or_a_kubeconfig(status: int, code: str) -> None:
    async with rig(lambda _: reply({"code": code, "message": "Project is not found"}, status)) as one:
        for ask in (palette.oidc_spec, palette.admin_kubeconfig):
            with pytest.raises(palette.ProjectUnavailable):
                await ask(one.client, CLUSTER)

    assert len(one.fake.seen) == 2, "it is not retried"


async def test_the_key_shows_in_no_repr_and_no_log(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    with structlog.testing.capture_logs() as logs:
        async with rig(script(web.Response(status=500), web.Response(status=401, body=CANARY.encode()))) as one:
            await failure(one, palette.Unauthorized)
            shown = repr(one.client)

    printed = capsys.readouterr()
    for text in (shown, caplog.text, str(logs), printed.out, printed.err):
        assert CANARY not in text


@pytest.mark.parametrize(
    "url",
    [
        "http://palette.example",
        "palette.example",
        "https://",
        "https://user:pw@palette.example",
        "https://palette.example/path",
        "https://palette.example/?a=1",
        "https://palette.example/#a",
        "https://[::1",
    ],
)
def test_an_address_that_is_not_https_and_a_host_is_refused(url: str) -> None:
    with pytest.raises(palette.UnusableSettings) as caught:
        PaletteClient("prod", url, Secret(CANARY), limits=Limits())

    assert "pw" not in str(caught.value)


@pytest.mark.parametrize("key", ["", "abc", "with space", "new\nline1", "kéy-value"])
def test_a_key_that_no_header_carries_is_refused_unseen(key: str) -> None:
    with pytest.raises(palette.UnusableSettings) as caught:
        PaletteClient("prod", "https://palette.example", Secret(key), limits=Limits())

    assert not key or key not in str(caught.value)


@pytest.mark.parametrize(
    "ca", ["", " ", "nonsense", "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n", "ä"]
)
def test_a_ca_that_is_none_is_refused(ca: str) -> None:
    with pytest.raises(palette.UnusableSettings, match="CA"):
        PaletteClient("prod", "https://palette.example", Secret(CANARY), limits=Limits(), ca_pem=ca)


async def test_a_client_that_is_not_open_says_so() -> None:
    client = PaletteClient("prod", "https://palette.example", Secret(CANARY), limits=Limits())

    with pytest.raises(RuntimeError, match="context manager"):
        await client.get_json(INFO)


async def test_an_own_clock_measures_dates_that_come_without_one() -> None:
    when = format_datetime(NOW + timedelta(seconds=6), usegmt=True)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 429 Slow\r\nRetry-After: {when}\r\nContent-Length: 0\r\n\r\n".encode())
        await writer.drain()

    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    server = await asyncio.start_server(lambda r, w: _closing(talk, r, w), "127.0.0.1", 0, ssl=tls().server)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with PaletteClient(
        "prod",
        url,
        Secret(CANARY),
        limits=Limits(),
        tls=tls().client,
        timing=Timing(attempts=2),
        sleep=sleep,
        draw=lambda: 0.0,
        now=lambda: NOW,
    ) as client:
        with pytest.raises(palette.TooManyRequests) as caught:
            await client.get_json(INFO)
    server.close()

    assert slept == [6.0]
    assert caught.value.retry_after == 6.0


async def test_a_proxy_is_used_when_given() -> None:
    asked: list[bytes] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        await says(b"HTTP/1.1 403 Forbidden\r\n\r\n")(reader, writer)

    async with (
        raw_server(proxy) as url,
        PaletteClient(
            "prod", "https://palette.example", Secret(CANARY), limits=Limits(), proxy=url, sleep=_no_sleep
        ) as client,
    ):
        with pytest.raises(palette.Unreachable, match=r"the proxy for palette\.example answered HTTP 403"):
            await client.get_json(INFO)

    assert asked[0].startswith(b"CONNECT palette.example:443 ")
    assert len(asked) == 1, "what a proxy refuses is not repeated"


async def test_the_admin_kubeconfig_is_asked_for_in_its_project() -> None:
    async with rig(lambda _: web.Response(body=base64.b64encode(KUBECONFIG.encode()))) as one:
        text = await palette.admin_kubeconfig(one.client, CLUSTER)

    seen = one.fake.seen[0]
    assert text == Secret(KUBECONFIG)
    assert seen.path == "/v1/spectroclusters/c1/assets/adminKubeconfig"
    assert (seen.headers["ProjectUid"], seen.headers["Accept"]) == ("p1", "application/octet-stream")
    assert one.counts.requests == {("/v1/spectroclusters/{uid}/assets/adminKubeconfig", "ok"): 1}


async def test_a_tenant_scoped_cluster_is_asked_for_without_a_project() -> None:
    async with rig(lambda _: web.Response(body=KUBECONFIG.encode())) as one:
        await palette.admin_kubeconfig(one.client, SHARED)
        await palette.kubeconfig(one.client, SHARED, frp=True)

    assert all("ProjectUid" not in seen.headers for seen in one.fake.seen)


@pytest.mark.parametrize(("frp", "sent"), [(True, "true"), (False, "false")])
async def test_the_users_kubeconfig_says_whether_the_proxys_address_is_wanted(frp: bool, sent: str) -> None:  # noqa: FBT001 - a table
    async with rig(lambda _: web.Response(body=KUBECONFIG.encode())) as one:
        assert (await palette.kubeconfig(one.client, CLUSTER, frp=frp)).reveal() == KUBECONFIG

    assert one.fake.seen[0].path == "/v1/spectroclusters/c1/assets/kubeconfig"
    assert one.fake.seen[0].query == {"frp": sent}


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (lambda: reply({"code": "ResourceNotFound", "message": "no"}, 404), palette.NotFound),
        (lambda: reply({"code": "ResOperationForbidden", "message": "no"}, 403), palette.NotPermitted),
        (lambda: web.Response(body=b" \n"), palette.NotFound),
    ],
)
async def test_a_kubeconfig_that_is_not_there_has_its_reason(answer: Any, kind: type[palette.PaletteError]) -> None:
    async with rig(lambda _: answer()) as one:
        with pytest.raises(kind) as caught:
            await palette.kubeconfig(one.client, CLUSTER, frp=True)

    assert type(caught.value) is kind
    assert "/v1/spectroclusters/c1/assets/kubeconfig" in str(caught.value)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"<html><body>Sign in</body></html>", id="a web page"),
        pytest.param("apiVersion: v1\n".encode("utf-16"), id="UTF-16"),
        pytest.param(b'"apiVersion: v1"', id="a JSON string"),
        pytest.param(b"private-key-canary", id="a word"),
    ],
)
async def test_an_answer_that_is_no_kubeconfig_is_refused_by_its_reader(body: bytes) -> None:
    async with rig(lambda _: web.Response(body=body)) as one:
        text = await palette.admin_kubeconfig(one.client, CLUSTER)

    with pytest.raises(kube.KubeconfigError, check=lambda error: error.reason == "KubeconfigMalformed") as caught:
        kube.parse(text)
    assert "canary" not in str(caught.value)


async def test_the_oidc_configuration_comes_without_its_secret() -> None:
    document = {"issuerUrl": "https://i.example", "clientId": "c", "clientSecret": "oidc-canary", "issuerTls": None}
    async with rig(lambda _: reply(document)) as one:
        spec = await palette.oidc_spec(one.client, CLUSTER)

    assert spec == palette.OidcSpec("https://i.example", "c")
    assert "canary" not in repr(spec)
    assert one.fake.seen[0].headers["ProjectUid"] == "p1"


@pytest.mark.parametrize("answer", [lambda: reply({}), lambda: reply({"code": "ResourceNotFound"}, 404)])
async def test_an_empty_object_and_a_404_both_mean_no_oidc(answer: Any) -> None:
    async with rig(lambda _: answer()) as one:
        assert await palette.oidc_spec(one.client, CLUSTER) is None


async def test_an_oidc_configuration_that_may_not_be_read_is_not_permitted() -> None:
    async with rig(lambda _: reply({"code": "OperationForbidden", "message": "cluster.get"}, 403)) as one:
        with pytest.raises(palette.NotPermitted, match=r"cluster\.get"):
            await palette.oidc_spec(one.client, CLUSTER)


async def test_the_keys_expiry_is_read_by_name() -> None:
    item = {
        "metadata": {"name": "mine", "uid": "k1"},
        "spec": {"expiry": "2027-01-01T00:00:00Z", "user": {"uid": "u1"}},
        "status": {"isActive": True},
    }
    of_another = {**item, "spec": {"expiry": "2026-06-01T00:00:00Z", "user": {"uid": "u2"}}}
    user = {"orgName": "acme", "tenantUid": "t1", "userUid": "u1"}
    answers = {"/v1/users/info": user, "/v1/apiKeys": {"items": [of_another, item]}}
    async with rig(lambda request: reply(answers[request.path])) as one:
        found = await palette.api_key_expiry(one.client, "mine")
        missing = await palette.api_key_expiry(one.client, "other")

    assert found == palette.ApiKeyInfo("mine", datetime(2027, 1, 1, tzinfo=UTC))
    assert missing is None

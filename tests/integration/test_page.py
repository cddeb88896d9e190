"""The page over HTTP on loopback: its paths, its headers, and who gets it."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from datetime import timedelta

import aiohttp
import pytest

from builders import NOW, by_uid, head, record, sealed_credential
from page_source import Source, served
from palette_sync.core.model import InstanceState, Pause, Secret
from palette_sync.page import routes as page_routes
from palette_sync.page.guard import from_this_machine
from palette_sync.page.overview import analyse


def instance_state(**changes: object) -> InstanceState:
    return InstanceState(head=head(version=3), records=by_uid(record(**changes)))


async def get(url: str, path: str, **headers: str) -> tuple[int, str, aiohttp.typedefs.LooseHeaders]:
    async with aiohttp.ClientSession() as session, session.get(url + path, headers=headers) as answer:
        return answer.status, await answer.text(), answer.headers


async def test_the_page_runs_nothing_from_elsewhere_and_is_not_kept() -> None:
    async with served(Source(instance_state())) as url:
        for path in ("/", "/timeline", "/configuration", "/clusters/alpha/c1", "/clusters/alpha/none"):
            _, text, headers = await get(url, path)
            policy = dict(one.strip().partition(" ")[::2] for one in headers["Content-Security-Policy"].split(";"))
            assert policy.pop("default-src") == "'none'"
            assert policy.pop("base-uri") == policy.pop("frame-ancestors") == "'none'"
            assert set(policy.values()) == {"'self'"}
            assert (headers["Cache-Control"], headers["X-Content-Type-Options"]) == ("no-store", "nosniff")
            assert not re.search(r"<style|style=|<script>|(src|href)=\"(https?:)?//", text)


async def test_the_files_of_the_page_are_named_by_their_content_and_kept() -> None:
    async with served(Source(instance_state())) as url:
        found = re.findall(r'"(/static/page-[0-9a-f]{16}\.(\w+))"', (await get(url, "/"))[1])
        assert {suffix for _, suffix in found} == {"css", "js", "svg"}
        for path, _ in found:
            status, _, headers = await get(url, path)
            assert (status, "immutable" in headers["Cache-Control"]) == (200, True)
        assert (await get(url, "/static/page.css"))[0] == 404
        assert (await get(url, "/static/..%2Frender.py"))[0] == 404


async def test_a_cluster_has_a_page_and_an_unknown_one_is_404() -> None:
    source = Source(instance_state())
    async with served(source) as url:
        status, text, _ = await get(url, "/clusters/alpha/c1")
        assert (status, "alpha-web" in text) == (200, True)
        for path in ("/clusters/alpha/none", "/clusters/none/c1", "/clusters/alpha/%3Cscript%3E"):
            status, text, _ = await get(url, path)
            assert (status, "Unknown cluster" in text) == (404, True)
        source.past = None
        assert "Redis does not answer" in (await get(url, "/clusters/alpha/c1"))[1]


async def test_the_timeline_is_that_of_an_instance_or_of_all() -> None:
    source = Source(instance_state())
    async with served(source) as url:
        for path in ("/timeline", "/timeline/alpha"):
            status, text, _ = await get(url, path)
            assert (status, "The last 24 hours of alpha" in text) == (200, True)
            assert "Nothing changed in the versions that are kept." in text
        status, text, _ = await get(url, "/timeline/%3Cscript%3E")
        assert (status, "Unknown instance" in text) == (404, True)
        source.past = None
        assert "Redis does not answer" in (await get(url, "/timeline"))[1]
        source.names = ("alpha", "bravo")
        text = (await get(url, "/timeline"))[1]
        assert "Newest changes" not in text
        assert 'href="/timeline/bravo"' in text


async def test_requests_in_a_row_share_the_analysis(monkeypatch: pytest.MonkeyPatch) -> None:
    analysed = []

    def counted(*values: object, **moments: object) -> object:
        analysed.append(values)
        return analyse(*values, **moments)  # type: ignore[arg-type]

    monkeypatch.setattr(page_routes, "analyse", counted)
    async with served(Source(instance_state())) as url, asyncio.TaskGroup() as group:
        for _ in range(5):
            group.create_task(get(url, "/"))
    assert len(analysed) == 1


async def test_a_new_snapshot_is_shown_at_once_and_time_goes_on() -> None:
    source = Source(instance_state())
    async with served(source) as url:
        assert "5h00m ago" in (await get(url, "/"))[1]
        source.time = NOW + timedelta(hours=1)
        assert "6h00m ago" in (await get(url, "/"))[1]
        source.state = instance_state(name="alpha-renamed")
        assert "alpha-renamed" in (await get(url, "/"))[1]


async def test_a_web_page_cannot_read_it_through_a_name_of_its_own() -> None:
    async with served(Source(instance_state())) as url:
        for path in ("/", "/clusters/alpha/c1"):
            status, text, _ = await get(url, path, Host="rebound.example")
            assert (status, "alpha" in text) == (421, False)


@pytest.mark.parametrize("header", ["Forwarded", "Via", "X-Forwarded-For", "X-Real-IP", "X-Forwarded-Host"])
async def test_without_a_token_a_proxy_on_this_machine_gets_no_page(header: str) -> None:
    async with served(Source(instance_state())) as url:
        assert (await get(url, "/", **{header: "10.0.0.9"}))[0] == 403


@pytest.mark.parametrize(
    ("host", "status"), [("localhost:9464", 200), ("[::1]:1", 200), ("vm", 403), ("10.0.0.1", 403)]
)
async def test_without_a_token_the_page_is_opened_through_localhost(host: str, status: int) -> None:
    async with served(Source(instance_state())) as url:
        assert (await get(url, "/", Host=host))[0] == status


async def test_another_machine_gets_no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aiohttp.web.Request, "remote", "10.0.0.9")
    async with served(Source(instance_state())) as url:
        for path in ("/", "/clusters/alpha/c1", "/timeline", "/configuration"):
            status, text, _ = await get(url, path)
            assert (status, "alpha-web" in text, "port-forward" in text) == (403, False, True)
        assert (await get(url, "/livez"))[0] == 200


@pytest.mark.parametrize(
    ("peer", "here"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("10.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("fe80::1%eth0", False),
        ("", False),
        (None, False),
    ],
)
def test_only_loopback_is_this_machine(peer: str | None, *, here: bool) -> None:
    assert from_this_machine(peer) is here


# -- with a token -----------------------------------------------------------------------------------------------------

TOKEN = "canary-token-of-the-page"


@pytest.fixture
def guarded() -> Source:
    source = Source(instance_state())
    source.token = Secret(TOKEN)
    return source


async def post(session: aiohttp.ClientSession, url: str, path: str, **form: str) -> tuple[int, str]:
    async with session.post(url + path, data=form, allow_redirects=False) as answer:
        return answer.status, await answer.text()


async def page_key(session: aiohttp.ClientSession, url: str) -> str:
    """What the forms of the page carry, once somebody is logged in."""
    async with session.get(url) as answer:
        found = re.search(r'name="key" value="([0-9a-f]{64})"', await answer.text())
    assert found is not None
    return found[1]


async def test_with_a_token_nothing_is_shown_without_it(guarded: Source) -> None:
    async with served(guarded) as url:
        for path in ("/timeline", "/timeline/alpha", "/configuration"):
            status, text, _ = await get(url, path)
            assert (status, "alpha" in text, 'action="/login"' in text) == (401, False, True)
        for path in ("/", "/clusters/alpha/c1"):
            status, text, headers = await get(url, path)
            assert (status, "alpha" in text, 'action="/login"' in text) == (401, False, True)
            assert "default-src 'none'" in headers["Content-Security-Policy"]
            assert (await get(url, path, Authorization="Bearer wrong"))[0] == 401
            assert (await get(url, path, Cookie="palette-sync-session=9999999999.00"))[0] == 401
            status, text, _ = await get(url, path, Authorization=f"Bearer {TOKEN}")
            assert (status, "alpha-web" in text, '<form method="post"' in text) == (200, True, False)
        assert (await get(url, "/readyz"))[0] == 200


async def test_a_login_gives_a_cookie_that_no_script_and_no_other_site_uses(guarded: Source) -> None:
    async with served(guarded) as url, aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        status, text = await post(session, url, "/login", token="wrong")
        assert (status, "not the token" in text, "wrong" in text) == (401, True, False)
        async with session.post(f"{url}/login", data={"token": TOKEN}, allow_redirects=False) as answer:
            cookie = answer.headers["Set-Cookie"]
            assert (answer.status, answer.headers["Location"]) == (303, "/")
        assert all(part in cookie for part in ("HttpOnly", "SameSite=Lax", "Path=/", "Max-Age=43200"))
        assert "Secure" not in cookie
        assert TOKEN not in cookie
        key = await page_key(session, url)

        assert (await post(session, url, "/logout", key=key))[0] == 303
        async with session.get(url) as answer:
            assert answer.status == 401


async def test_behind_https_the_cookie_is_for_https(guarded: Source) -> None:
    headers = {"X-Forwarded-Proto": "https"}
    async with (
        served(guarded) as url,
        aiohttp.ClientSession(headers=headers) as session,
        session.post(f"{url}/login", data={"token": TOKEN}, allow_redirects=False) as answer,
    ):
        assert "Secure" in answer.headers["Set-Cookie"]


async def test_a_button_asks_for_a_resync_and_no_other_site_can_press_it(guarded: Source) -> None:
    path = "/instances/alpha/resync"
    async with served(guarded) as url, aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        assert (await post(session, url, path, allow_prune="yes"))[0] == 401
        await post(session, url, "/login", token=TOKEN)
        key = await page_key(session, url)
        for form in ({}, {"key": ""}, {"key": key[:-1]}, {"key": "0" * 64}):
            assert (await post(session, url, path, **form, allow_prune="yes"))[0] == 403
        async with session.post(url + path, json={"key": key}) as answer:
            assert answer.status == 403
        async with session.get(url + path) as answer:
            assert answer.status == 405
        assert guarded.asked == []

        assert (await post(session, url, path, key=key))[0] == 303
        assert (await post(session, url, path, key=key, allow_prune="yes"))[0] == 303
        status, text = await post(session, url, "/instances/other/resync", key=key)
        assert (status, "does not lead" in text) == (409, True)
        assert guarded.asked == [("alpha", False), ("alpha", True), ("other", False)]


async def test_a_bearer_may_ask_for_a_resync(guarded: Source) -> None:
    async with served(guarded) as url, aiohttp.ClientSession(headers={"Authorization": f"Bearer {TOKEN}"}) as session:
        assert (await post(session, url, "/instances/alpha/resync"))[0] == 303
    assert guarded.asked == [("alpha", False)]


async def test_without_a_token_there_are_no_buttons_and_no_login() -> None:
    source = Source(instance_state())
    async with served(source) as url, aiohttp.ClientSession() as session:
        assert '<form method="post"' not in (await get(url, "/"))[1]
        for path in ("/login", "/logout", "/instances/alpha/resync"):
            assert (await post(session, url, path, token="", key=""))[0] == 403
    assert source.asked == []


@pytest.mark.parametrize(("action", "rotate"), [("resync", False), ("rotate", True)])
async def test_the_buttons_of_a_cluster_ask_for_it_alone_and_no_other_site_can_press_them(
    guarded: Source, action: str, *, rotate: bool
) -> None:
    guarded.state = replace(guarded.state, credentials={"c1": sealed_credential()})
    path = f"/clusters/alpha/c1/{action}"
    async with served(guarded) as url, aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        assert (await post(session, url, path))[0] == 401
        await post(session, url, "/login", token=TOKEN)
        key = await page_key(session, url)
        async with session.get(f"{url}/clusters/alpha/c1") as answer:
            assert f'action="{path}"' in await answer.text()
        for form in ({}, {"key": key[:-1]}, {"key": "0" * 64}):
            assert (await post(session, url, path, **form))[0] == 403
        async with session.get(url + path) as answer:
            assert answer.status == 405
        assert guarded.asked_clusters == []

        async with session.post(url + path, data={"key": key}, allow_redirects=False) as answer:
            assert (answer.status, answer.headers["Location"]) == (303, "/clusters/alpha/c1")
        status, text = await post(session, url, f"/clusters/other/c1/{action}", key=key)
        assert (status, "it is led elsewhere" in text) == (409, True)
        assert (await post(session, url, "/clusters/alpha/c1/release", key=key))[0] == 404
    assert guarded.asked_clusters == [("c1", rotate)]


async def test_a_cluster_has_no_buttons_without_a_token_or_while_it_is_paused(guarded: Source) -> None:
    async with served(Source(instance_state())) as url, aiohttp.ClientSession() as session:
        assert "<form" not in (await get(url, "/clusters/alpha/c1"))[1]
        assert (await post(session, url, "/clusters/alpha/c1/rotate", key=""))[0] == 403
    guarded.state = instance_state(pause=Pause("<b>it moves</b>", "anna", NOW, NOW + timedelta(hours=2)))
    async with served(guarded) as url:
        text = (await get(url, "/clusters/alpha/c1", Authorization=f"Bearer {TOKEN}"))[1]
    assert "c1/rotate" not in text
    assert "paused by anna, until 2026-03-01 14:00:00 UTC: &lt;b&gt;it moves&lt;/b&gt;" in text
    assert "palette-sync resume c1" in text

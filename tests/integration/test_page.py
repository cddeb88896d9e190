"""The page over HTTP on loopback: its paths, its headers, and who gets it."""

from __future__ import annotations

import re
from datetime import timedelta

import aiohttp
import pytest

from builders import NOW, by_uid, head, record
from page_source import Source, served
from palette_sync.core.model import InstanceState
from palette_sync.page.routes import from_this_machine


def instance_state(**changes: object) -> InstanceState:
    return InstanceState(head=head(version=3), records=by_uid(record(**changes)))


async def get(url: str, path: str, **headers: str) -> tuple[int, str, aiohttp.typedefs.LooseHeaders]:
    async with aiohttp.ClientSession() as session, session.get(url + path, headers=headers) as answer:
        return answer.status, await answer.text(), answer.headers


async def test_the_page_runs_nothing_from_elsewhere_and_is_not_kept() -> None:
    async with served(Source(instance_state())) as url:
        for path in ("/", "/clusters/alpha/c1", "/clusters/alpha/none"):
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


async def test_another_machine_gets_no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aiohttp.web.Request, "remote", "10.0.0.9")
    async with served(Source(instance_state())) as url:
        for path in ("/", "/clusters/alpha/c1"):
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

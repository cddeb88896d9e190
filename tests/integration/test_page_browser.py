"""The page in a real browser: it filters, opens a cluster, stays up to date, fits a phone, and runs nothing foreign."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from browser import CHROMIUM, tab
from builders import HOUR, NOW, by_uid, head, record, records, sealed_credential
from page_source import Source, served
from page_world import PATHS, world
from palette_sync.core.model import Access, AccessState, InstanceState, PaletteFacts, Secret
from palette_sync.core.reasons import Reason

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="there is no Chromium here: the page is not tried in a browser"
)

HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>"
NAMES = "[...document.querySelectorAll('#clusters tbody a')].map((one) => one.textContent)"


async def test_an_operator_looks_for_a_cluster_and_the_page_follows(tmp_path: Path) -> None:
    failed = Access(AccessState.FAILED, Reason.UNREACHABLE, HOSTILE, since=NOW - HOUR)
    clusters = records(120) | by_uid(record("bad", "alpha-bad", title=HOSTILE, access=failed))
    state = InstanceState(
        head=head(version=3), records=clusters, credentials={uid: sealed_credential() for uid in clusters}
    )
    source = Source(state)
    async with served(source) as url, tab(tmp_path / "profile") as page:
        await page.open(url)
        assert (await page.value(NAMES))[0] == "alpha-bad"
        assert len(await page.value(NAMES)) == 50

        await page.value("document.querySelector('[name=name]').value = '-0011'")
        await page.leave_by("document.querySelector('form button').click()")
        assert await page.value(NAMES) == [f"alpha-0011{number}" for number in range(10)]

        await page.leave_by("document.querySelector('#clusters tbody a').click()")
        assert (await page.value("document.querySelector('h1').textContent")).startswith("alpha-00110")

        await page.open(url)
        source.state = InstanceState(head=head(version=4), records=by_uid(record("new", "alpha-new")))
        await page.value("refresh()")
        assert await page.value(NAMES) == ["alpha-new"]
        assert await page.value("document.querySelector('h1').textContent") == "Nothing is wrong"
        assert page.complaints == []


@pytest.mark.parametrize("width", [360, 1280])
async def test_every_page_fits_and_shows_foreign_text_as_text(tmp_path: Path, width: int) -> None:
    source = world("long-name-" * 12 + HOSTILE)
    async with served(source) as url, tab(tmp_path / "profile") as page:
        await page.do(
            "Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 800
        )
        for path in PATHS:
            await page.open(url + path)
            await page.value("for (const one of document.querySelectorAll('details')) one.open = true")
            assert await page.value("document.documentElement.scrollWidth") <= width, path
            assert HOSTILE in await page.value("document.body.textContent")
            assert await page.value("document.querySelectorAll('img, body script').length") == 0
        assert page.complaints == []


async def test_an_operator_logs_in_and_presses_a_button(tmp_path: Path) -> None:
    source = Source(InstanceState(head=head(), records=by_uid(record())))
    source.token = Secret("canary-token-of-the-page")
    async with served(source) as url, tab(tmp_path / "profile") as page:
        await page.open(url)
        assert await page.value("document.querySelector('h1').textContent") == "Log in"
        await page.value("document.querySelector('[name=token]').value = 'canary-token-of-the-page'")
        await page.leave_by("document.querySelector('form button').click()")
        assert await page.value(NAMES) == ["alpha-web"]
        assert await page.value("document.cookie") == ""

        await page.leave_by("document.querySelector('form[action$=resync] button').click()")
        assert source.asked == [("alpha", False)]
        await page.leave_by("document.querySelector('form[action$=logout] button').click()")
        assert await page.value("document.querySelector('h1').textContent") == "Log in"
        assert not [one for one in page.complaints if "401" not in one], "a browser notes each 401 by itself"


async def test_no_foreign_text_runs_wherever_it_stands(tmp_path: Path) -> None:
    source = world(f"'\"><img src=x onerror=alert(1)>{HOSTILE}" + "{{ 7*7 }}")
    async with served(source) as url, tab(tmp_path / "profile") as page:
        for path in PATHS:
            await page.open(url + path)
            assert "onerror=alert(1)" in await page.value("document.body.textContent"), path
            assert await page.value("document.querySelectorAll('img, body script, [onerror]').length") == 0, path
            assert await page.value("[...document.links].every((one) => /^https?:/.test(one.protocol))"), path
            assert not await page.value("document.body.textContent.includes('49')"), path
        assert page.complaints == []


async def test_an_operator_sorts_and_filters_ten_thousand_clusters(tmp_path: Path) -> None:
    source = Source(InstanceState(head=head(), records=records(10_000)))
    tagged = record(
        "tagged", "zulu", palette=PaletteFacts("Running", "", tags=("team:shop",)), kubernetes_version="v1.9"
    )
    source.state = replace(source.state, records=source.state.records | by_uid(tagged))
    async with served(source) as url, tab(tmp_path / "profile") as page:
        await page.open(url)
        assert await page.value("document.getElementById('count').textContent") == "1 to 50 of 10001"
        await page.leave_by("document.querySelector('a[rel=next]').click()")
        assert await page.value(NAMES) == [f"alpha-{number:05}" for number in range(50, 100)]

        await page.leave_by("document.querySelector('thead a[href*=version]').click()")
        assert (await page.value(NAMES))[:2] == ["zulu", "alpha-00000"], "1.9 is older than 1.33"
        assert await page.value("document.querySelector('[aria-sort]').ariaSort") == "ascending"
        await page.leave_by("document.querySelector('[aria-sort] a').click()")
        assert (await page.value(NAMES))[0] == "alpha-00000"
        assert await page.value("document.querySelector('[aria-sort]').ariaSort") == "descending"

        await page.value("document.querySelector('[name=tag]').value = 'team:'")
        await page.leave_by("document.querySelector('.filters button').click()")
        assert await page.value(NAMES) == ["zulu"]
        assert page.complaints == []


async def test_an_operator_reads_what_happened_and_what_is_configured(tmp_path: Path) -> None:
    async with served(world()) as url, tab(tmp_path / "profile") as page:
        await page.open(url)
        await page.leave_by("document.querySelector('.spark a').click()")
        text = await page.value("document.querySelector('main').innerText")
        assert "The last 24 hours of alpha" in text
        assert "2 passes (2 listed Palette, 1 failed)" in text
        assert "ready → degraded" in text
        assert await page.value("document.querySelectorAll('.strip path.failed').length") == 1

        await page.leave_by("document.querySelector('nav a[href=\"/configuration\"]').click()")
        text = await page.value("document.querySelector('main').innerText")
        assert "0123456789abcdef" in text
        assert "A newer configuration was rejected" in text
        assert "tenant" not in text, "it has its default"
        await page.value("document.querySelector('summary').click()")
        await page.value("refresh()")
        assert "tenant" in await page.value("document.querySelector('main').innerText"), "it stays open"
        assert page.complaints == []

"""The page in a real browser: it filters, opens a cluster, stays up to date, fits a phone, and runs nothing foreign."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from browser import CHROMIUM, tab
from builders import HOUR, NOW, by_uid, head, record, records, sealed_credential
from page_source import Source, served
from palette_sync.core.model import Access, AccessState, InstanceState, Secret
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
async def test_the_page_fits_and_shows_foreign_text_as_text(tmp_path: Path, width: int) -> None:
    failed = Access(AccessState.FAILED, Reason.UNREACHABLE, HOSTILE * 3, since=NOW - HOUR)
    long = record("c2", "alpha-" + "long-name-" * 6, title=HOSTILE, access=failed, kubernetes_version=HOSTILE)
    source = Source(InstanceState(head=head(), records=by_uid(record(), long), credentials={"c1": sealed_credential()}))
    async with served(source) as url, tab(tmp_path / "profile") as page:
        await page.do(
            "Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 800
        )
        for path in ("/", "/clusters/alpha/c2"):
            await page.open(url + path)
            assert await page.value("document.documentElement.scrollWidth") <= width
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

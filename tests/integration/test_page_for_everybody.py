"""The page for everybody, in a real browser: axe-core finds nothing, and a keyboard is enough."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from browser import CHROMIUM, tab
from page_source import served
from page_world import PATHS, world
from palette_sync.core.model import Secret

if TYPE_CHECKING:
    from browser import Tab

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="there is no Chromium here: the page is not tried in a browser"
)

AXE = Path(__file__).parents[2] / "deploy" / "backstage" / "node_modules" / "axe-core" / "axe.min.js"
RUN_AXE = """axe.run(document, {resultTypes: ["violations", "incomplete"]}).then((found) => [
  ...found.violations, ...found.incomplete.filter((one) => one.id === "color-contrast"),
].map((one) => `${one.id}: ${one.help}: ` + one.nodes.slice(0, 3).map((node) => node.html).join(" | ")))"""
TOKEN = "canary-token-of-the-page"
# Everything in the page that a keyboard must reach, by a number that stays with it.
CONTROLS = """(() => {
  const found = [...document.querySelectorAll("a[href], button, input:not([type=hidden]), select, summary")]
    .filter((one) => one.checkVisibility());
  found.forEach((one, number) => { one.dataset.number = number; });
  return found.length;
})()"""
FOCUSED = """(() => {
  const one = document.activeElement, style = getComputedStyle(one), box = one.getBoundingClientRect();
  const seen = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2
    && box.right > 0 && box.bottom > 0 && box.top < innerHeight;
  return one.dataset.number === undefined ? null : [Number(one.dataset.number), seen, one.outerHTML.slice(0, 200)];
})()"""


async def show(page: Tab, *, scheme: str, width: int) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    await page.do("Emulation.setEmulatedMedia", features=features)
    size: dict[str, Any] = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 800}
    await page.do("Emulation.setDeviceMetricsOverride", **size)


async def log_in(page: Tab, url: str) -> None:
    await page.open(url)
    await page.value(f"document.querySelector('[name=token]').value = '{TOKEN}'")
    await page.leave_by("document.querySelector('form button').click()")


@pytest.mark.skipif(
    not AXE.is_file(), reason="axe-core is not installed (npm ci in deploy/backstage): accessibility is not checked"
)
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing_on_any_page(tmp_path: Path, scheme: str) -> None:
    source, found = world(), {}
    source.token = Secret(TOKEN)

    async def check(page: Tab, path: str, width: int) -> None:
        await page.value(AXE.read_text(encoding="utf-8"))
        if problems := await page.value(RUN_AXE):
            found[f"{path} at {width}"] = problems

    async with served(source) as url, tab(tmp_path / "profile") as page:
        for width in (1280, 360):
            await show(page, scheme=scheme, width=width)
            await page.do("Network.clearBrowserCookies")
            await page.open(f"{url}/clusters/alpha/c1")
            assert await page.value("document.querySelector('h1').textContent") == "Log in"
            await check(page, "login", width)
            await log_in(page, url)
            for path in (*PATHS, "/clusters/alpha/unknown"):
                await page.open(url + path)
                await page.value("for (const one of document.querySelectorAll('details')) one.open = true")
                await check(page, path, width)
    assert found == {}


async def test_a_keyboard_reaches_every_control_and_shows_where_it_is(tmp_path: Path) -> None:
    source = world()
    source.token = Secret(TOKEN)
    async with served(source) as url, tab(tmp_path / "profile") as page:
        await show(page, scheme="light", width=1280)
        await log_in(page, url)
        for path in PATHS:
            await page.open(url + path)
            controls, reached = await page.value(CONTROLS), set()
            assert controls > 5
            for _ in range(controls):
                for kind in ("rawKeyDown", "keyUp"):
                    await page.do("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
                number, seen, html = await page.value(FOCUSED)
                assert seen, f"{path}: the focus does not show on {html}"
                reached.add(number)
            assert len(reached) == controls, path

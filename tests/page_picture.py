"""Draws the README's picture of the page, over the simulator: `PYTHONPATH=tests python -m page_picture docs/page.png`.

One instance lost clusters, the other's Palette is down.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

from browser import tab
from e2e.command import simulation
from e2e.daemon import ValkeyProcess, daemon, until

WIDTH, HEIGHT = 1280, 1180


def control(document: dict[str, Any], method: str, path: str, body: Any = None) -> None:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    urllib.request.urlopen(urllib.request.Request(document["control_url"] + path, data, headers, method=method)).close()


async def draw(url: str, profile: Path) -> bytes:
    async with tab(profile) as page:
        await page.do(
            "Emulation.setDeviceMetricsOverride", width=WIDTH, height=HEIGHT, deviceScaleFactor=1, mobile=False
        )
        await page.open(url)
        return base64.b64decode((await page.do("Page.captureScreenshot"))["data"])


def main(target: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        valkey = ValkeyProcess(directory / "valkey")
        valkey.start()
        variables = {"PALETTE_SYNC_REDIS__URL": valkey.url, "PALETTE_SYNC_DEFAULTS__REFRESH_INTERVAL": "5s"}
        try:
            with (
                simulation(directory, "--clusters", "24") as document,
                daemon(directory / "config.toml", **variables) as run,
            ):
                for instance in ("alpha", "bravo"):
                    run.wait_for("pass_finished", instance=instance)
                until(run.idle)
                for cluster in document["instances"][0]["clusters"][:5]:
                    control(document, "DELETE", f"/clusters/{cluster['uid']}")
                fault = {"target": "palette", "instance": "bravo", "kind": "status", "status": 503}
                control(document, "POST", "/faults", fault)
                until(lambda: run.status("alpha").get("prune_held") and run.status("bravo").get("error"))
                target.write_bytes(asyncio.run(draw(run.url, directory / "profile")))
        finally:
            valkey.kill()


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Draws the README's picture of the page, over the simulator: `make picture`.

One instance has a cluster that does not answer, the other's Palette is down.
"""

from __future__ import annotations

import asyncio
import base64
import json
import signal
import sys
import tempfile
import urllib.request
import zlib
from pathlib import Path
from typing import Any

from browser import tab
from e2e.command import simulation
from e2e.daemon import ValkeyProcess, daemon, until

WIDTH, HEIGHT = 1280, 1000
LARGEST = 200_000  # bytes of the picture


def control(document: dict[str, Any], method: str, path: str, body: Any = None) -> None:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    urllib.request.urlopen(urllib.request.Request(document["control_url"] + path, data, headers, method=method)).close()


async def draw(url: str, profile: Path) -> bytes:
    async with tab(profile) as page:
        await page.do(
            "Emulation.setDeviceMetricsOverride", width=WIDTH, height=HEIGHT, deviceScaleFactor=1, mobile=False
        )
        await page.do("Emulation.setScrollbarsHidden", hidden=True)
        await page.open(url)
        return smaller(base64.b64decode((await page.do("Page.captureScreenshot"))["data"]))


def smaller(png: bytes) -> bytes:
    """The same picture, compressed as far as zlib can: a browser compresses for speed."""
    at, pixels, others = 8, b"", []
    while at < len(png):
        length, kind = int.from_bytes(png[at : at + 4]), png[at + 4 : at + 8]
        body = png[at + 8 : at + 8 + length]
        at += 12 + length
        if kind == b"IDAT":
            pixels += body
        else:
            others.append((kind, body))
    packed = (b"IDAT", zlib.compress(zlib.decompress(pixels), 9))
    chunks = [*others[:-1], packed, others[-1]]  # the last one is IEND
    return png[:8] + b"".join(
        len(body).to_bytes(4) + kind + body + zlib.crc32(kind + body).to_bytes(4) for kind, body in chunks
    )


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
                silent = document["instances"][0]["clusters"][2]["uid"]
                control(document, "POST", "/faults", {"target": "kube", "kind": "drop", "cluster": silent})
                fault = {"target": "palette", "instance": "bravo", "kind": "status", "status": 503}
                control(document, "POST", "/faults", fault)
                run.send(signal.SIGUSR1)
                until(lambda: "degraded" in run.status("alpha")["access"] and run.status("bravo").get("error"))
                picture = asyncio.run(draw(run.url, directory / "profile"))
        finally:
            valkey.kill()
    assert len(picture) < LARGEST, f"the picture has {len(picture)} bytes"
    target.write_bytes(picture)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

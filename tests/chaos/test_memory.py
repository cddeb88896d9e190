"""A Palette or an API server that sends without end cannot make one instance's pass take the pod's memory."""

from __future__ import annotations

import asyncio
import resource
import sys
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from aiohttp import web

from contract.palette_fake import Fake, Seen, reply, tls
from palette_sync.palette.client import JSON_LIMIT, MOST_VALUES
from palette_sync.palette.rows import LONGEST_NAME, LONGEST_WORD

if TYPE_CHECKING:
    from pathlib import Path

# The pod's limit is 1 GiB (deploy/kubernetes). Private writable memory, thread stacks included, comes nearest to it.
LIMIT = 700 * 1024 * 1024
WIDE = "\U0001f6f0"  # takes four bytes in memory, as does each other character of its text
PROJECT = "62a54c7b5d0a2f1d6f1e00aa"
PASS = """
import asyncio, orjson, sys
from palette_sync import palette
from palette_sync.core.model import Secret

async def main():
    client = palette.PaletteClient(
        "alpha", sys.argv[1], Secret("some-key"), limits=palette.Limits(enabled=False), ca_pem=open(sys.argv[2]).read()
    )
    async with client:
        found = await palette.discover(client, choose=lambda _: True, tenant_scope=True, include_virtual=False)
    print(orjson.dumps([[one.name, one.error, len(one.clusters)] for one in found.listings]).decode())

asyncio.run(main())
"""


def wide_row(number: int) -> dict[str, Any]:
    """A row whose every field is as long as may be."""
    labels = {f"{WIDE * 60}{tag}": WIDE * 60 for tag in range(16)}
    return {
        "metadata": {
            "uid": f"u{number}",
            "name": f"{number}{WIDE * LONGEST_NAME}",
            "labels": labels,
            "annotations": {"projectUid": PROJECT, "permissions": f"p{number}," * 300},
        },
        "specSummary": {"cloudConfig": {"cloudType": WIDE * LONGEST_WORD}},
        "status": {
            "state": f"{number}{WIDE * LONGEST_WORD}",
            "health": {"state": f"{number}{WIDE * LONGEST_WORD}"},
            "location": dict.fromkeys(("countryCode", "countryName", "regionCode", "regionName"), WIDE * LONGEST_WORD),
        },
    }


def page(items: list[Any], following: str, count: int) -> web.Response:
    return reply({"items": items, "listmeta": {"continue": following, "count": count}})


class Endless:
    """A Palette whose listing of clusters never ends."""

    def __init__(self, per_page: int, row: Any) -> None:
        self.pages = 0
        self.per_page = per_page
        # Rows differ in their numbers only, so that this process does not spend minutes on making them.
        self.row = orjson.dumps(row(1234567)).decode()

    def __call__(self, seen: Seen) -> web.StreamResponse:
        if seen.path == "/v1/users/info":
            return reply({"orgName": "acme", "tenantUid": "t", "userUid": "u"})
        if seen.path.endswith("/projects"):
            return page([{"metadata": {"uid": PROJECT, "name": "one"}}], "", 1)
        self.pages += 1
        first = self.pages * self.per_page
        rows = ",".join(self.row.replace("1234567", str(first + one)) for one in range(self.per_page))
        body = f'{{"items":[{rows}],"listmeta":{{"continue":"t{self.pages}","count":1000000}}}}'
        assert len(body.encode()) <= JSON_LIMIT
        return web.Response(body=body.encode(), content_type="application/json")


async def discovered(answer: Any, tmp_path: Path) -> list[list[Any]]:
    """What discovery found in a process that cannot have more than `LIMIT` of memory."""
    ca = tmp_path / "ca.pem"
    ca.write_text(tls().ca_pem)
    async with Fake(answer) as fake:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            PASS,
            fake.url,
            str(ca),
            stdout=asyncio.subprocess.PIPE,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, LIMIT)),
        )
        out, _ = await process.communicate()
    assert process.returncode == 0
    return list(orjson.loads(out))


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA covers all private memory on Linux only")
async def test_rows_without_end_and_as_long_as_may_be_fit_into_the_memory(tmp_path: Path) -> None:
    listings = await discovered(Endless(200, wide_row), tmp_path)

    assert {clusters for _, _, clusters in listings} == {0}
    assert all("rows, which are not read" in error or "not at its end" in error for _, error, _ in listings)


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA covers all private memory on Linux only")
async def test_a_page_of_nothing_but_brackets_fits_too(tmp_path: Path) -> None:
    """4 MiB of empty objects would be 1.4 million objects in memory."""
    body = b'{"items":[' + b"{}," * ((JSON_LIMIT - 100) // 3) + b'{}],"listmeta":{"continue":"x","count":9}}'
    endless = Endless(1, wide_row)

    def answer(seen: Seen) -> web.StreamResponse:
        return web.Response(body=body) if seen.path.endswith("search") else endless(seen)

    listings = await discovered(answer, tmp_path)

    assert all(f"more than {MOST_VALUES} values" in error for _, error, _ in listings)

"""A headless Chromium, driven by its own protocol: no driver and no library is needed beside it."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import asynccontextmanager, suppress
from itertools import count
from typing import TYPE_CHECKING, Any

import aiohttp

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE = 60.0  # seconds
_LOOK = 0.05
_FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--no-proxy-server", "--remote-debugging-port=0",
)  # fmt: skip


class Tab:
    """One page. `complaints`: exceptions, errors of the console, and dialogs that the page opened."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.complaints: list[str] = []
        self._socket = socket
        self._numbers = count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._loaded = asyncio.Event()

    async def listen(self) -> None:
        async for message in self._socket:
            event = message.json()
            if (number := event.get("id")) is not None:
                self._answers.pop(number).set_result(event)
            elif event["method"] == "Page.loadEventFired":
                self._loaded.set()
            elif event["params"].get("entry", {}).get("level") == "verbose":
                continue  # advice to whoever develops a page
            elif event["method"] in {"Runtime.exceptionThrown", "Page.javascriptDialogOpening", "Log.entryAdded"}:
                self.complaints.append(str(event["params"]))

    async def do(self, method: str, **parameters: Any) -> Any:
        number = next(self._numbers)
        self._answers[number] = answer = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        async with asyncio.timeout(PATIENCE):
            found = await answer
        assert "error" not in found, found
        return found["result"]

    async def open(self, url: str) -> None:
        self._loaded.clear()
        await self.do("Page.navigate", url=url)
        async with asyncio.timeout(PATIENCE):
            await self._loaded.wait()

    async def leave_by(self, script: str) -> None:
        """Run a script that leads to another page, and wait for that."""
        self._loaded.clear()
        await self.value(script)
        async with asyncio.timeout(PATIENCE):
            await self._loaded.wait()

    async def value(self, script: str) -> Any:
        found = await self.do("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")


@asynccontextmanager
async def tab(directory: Path) -> AsyncIterator[Tab]:
    """A tab of a Chromium whose profile is in `directory`."""
    assert CHROMIUM is not None
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        CHROMIUM, *_FLAGS, f"--user-data-dir={directory}", "about:blank", stdout=quiet, stderr=quiet
    )
    try:
        async with asyncio.timeout(PATIENCE):
            port = directory / "DevToolsActivePort"
            while not (port.exists() and port.read_text().strip()):  # noqa: ASYNC110 - a file of the browser
                await asyncio.sleep(_LOOK)
        base = f"http://127.0.0.1:{port.read_text().split()[0]}"
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{base}/json/list") as answer:
                (target,) = [one for one in await answer.json() if one["type"] == "page"]
            async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                one = Tab(socket)
                listening = asyncio.create_task(one.listen())
                for domain in ("Page", "Runtime", "Log"):
                    await one.do(f"{domain}.enable")
                yield one
                listening.cancel()
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()

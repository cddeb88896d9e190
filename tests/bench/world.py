"""The simulated world as a process: `python -m bench.world OPTIONS`. It prints a JSON line once it serves.

It answers requests, one JSON object a line:
- `{"do": "requests"}` returns the number of requests by target, and resets it,
- `{"do": "log"}` returns the latest requests,
- `{"do": "clusters"}` returns the uids,
- `{"do": "searches"}` returns when clusters were searched for,
- `{"do": "add", "count": ..., "state": ...}` adds clusters and returns their uids,
- `{"do": "run", "uid": ...}` makes a cluster Running,
- `{"do": "break", "hang": ..., "refuse": ...}` lets so many clusters hang, and so many close each connection,
- `{"do": "tags", "uid": ..., "tags": [...]}` changes a cluster,
- `{"do": "publish"}` writes the snapshot that a daemon would have left in Redis after work on every cluster.

Listing pages of Palette are cached until something changes, because rendering ten thousand rows would be measured too.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.published import publish_all
from palette_sync.simulator import Fault, Simulator, SimulatorOptions
from palette_sync.store.seal import SealKeys

if TYPE_CHECKING:
    from palette_sync.simulator.exchange import Answer, Call
    from palette_sync.simulator.listener import Site


class Remembered:
    """A site of Palette that renders each listing page once."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._pages: dict[tuple[object, ...], Answer] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._site, name)

    def forget(self) -> None:
        self._pages.clear()

    def answer(self, call: Call) -> Answer:
        if not call.path.endswith(("/search", "/projects")) or self._site._instance.rate_limits:
            return self._site.answer(call)
        key = (call.path, tuple(call.query.items()), call.headers.get("ProjectUid"), call.body)
        if key not in self._pages:
            self._pages[key] = self._site.answer(call)
        return self._pages[key]


async def serve(options: dict[str, Any]) -> None:
    directory, redis_url = Path(options.pop("directory")), options.pop("redis_url")
    simulator = Simulator(SimulatorOptions(**{"oidc_share": 0.0, **options}))
    async with simulator:
        sites = simulator._running._sites
        remembered = {port: Remembered(site) for port, site in sites.items() if site.cluster_uid is None}
        sites.update(remembered)
        simulator.write_config(directory, seal_keys_line=SealKeys.generate_line("bench"), redis_url=redis_url)
        _say({"serving": True})
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=2**24)
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            question = json.loads(line)
            answer = await _answer(simulator, directory, question)
            if question["do"] in {"tags", "add", "run"}:
                for site in remembered.values():
                    site.forget()
            _say(answer)


async def _answer(simulator: Simulator, directory: Path, question: dict[str, Any]) -> Any:
    match question["do"]:
        case "requests":
            kinds = Counter(entry[0] for entry in simulator.requests._counts.elements())
            simulator.requests.reset()
            return {"palette": kinds["palette"], "kube": kinds["kube"]}
        case "log":
            return [
                [entry.time, entry.target, entry.cluster or "", entry.path, entry.status]
                for entry in simulator.requests.entries
            ]
        case "searches":
            entries = simulator.requests.entries
            return [entry.time for entry in entries if entry.path.endswith("/spectroclusters/search")]
        case "add":
            (instance,) = simulator.world.instances.values()
            projects = sorted(instance.projects)
            homes = [projects[number % len(projects)] for number in range(question["count"])]
            added = [await simulator.world.add_cluster(instance, home, state=question["state"]) for home in homes]
            return [cluster.uid for cluster in added]
        case "run":
            simulator.world.set_state(question["uid"], "Running")
        case "tags":
            simulator.world.set_tags(question["uid"], question["tags"])
        case "break":
            _break(simulator, hang=question["hang"], refuse=question["refuse"])
        case "clusters":
            return [cluster.uid for cluster in simulator.world.clusters.values()]
        case "publish":
            await publish_all(simulator, directory / "config.toml")
    return {}


def _break(simulator: Simulator, *, hang: int, refuse: int) -> None:
    """The order has nothing to do with that of Palette's listings."""
    uids = sorted(simulator.world.clusters, key=lambda uid: hashlib.sha256(uid.encode()).digest())
    for number, uid in enumerate(uids[: hang + refuse]):
        simulator.faults.add(Fault(target="kube", kind="hang" if number < hang else "drop", cluster=uid))


def _say(document: Any) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(serve(json.loads(sys.argv[1])))

"""What every end-to-end test may ask for: a prefix of its own in Redis, a simulated world, its control API."""

from __future__ import annotations

import json
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from e2e.command import simulation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path


@pytest.fixture
def redis(valkey_url: str, tmp_path: Path) -> dict[str, str]:
    return {"PALETTE_SYNC_REDIS__URL": valkey_url, "PALETTE_SYNC_REDIS__PREFIX": f"e2e-{tmp_path.name}"}


@dataclass(frozen=True)
class World:
    """A simulator in a process of its own."""

    document: dict[str, Any]
    config: Path

    def control(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.document["control_url"] + path, data=data, method=method)
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read() or b"null")

    def clusters(self, *, oidc: bool | None = None) -> list[str]:
        """The uids of all clusters."""
        return [
            cluster["uid"]
            for instance in self.document["instances"]
            for cluster in instance["clusters"]
            if oidc in (None, cluster["oidc"])
        ]

    def all_by_token(self) -> None:
        """No cluster has OIDC any more."""
        for uid in self.clusters(oidc=True):
            self.control("PATCH", f"/clusters/{uid}", {"oidc": False, "tags": []})

    def requests(self, target: str, **query: str) -> int:
        words = "&".join(f"{name}={value}" for name, value in {"target": target, **query}.items())
        return int(self.control("GET", f"/requests/count?{words}")["count"])

    def issued(self) -> dict[str, int]:
        """Tokens issued so far, by cluster."""
        return {uid: self.control("GET", f"/clusters/{uid}")["tokens_issued"] for uid in self.clusters()}

    def writes(self) -> dict[str, int]:
        return {uid: self.control("GET", f"/clusters/{uid}")["writes"] for uid in self.clusters()}


@pytest.fixture
def world_of(tmp_path: Path) -> Iterator[Callable[..., World]]:
    """Make a world: `world_of("--clusters", "6")`."""
    contexts: list[AbstractContextManager[Any]] = []

    def make(*arguments: str) -> World:
        context = simulation(tmp_path, *arguments)
        document = context.__enter__()
        contexts.append(context)
        return World(document, tmp_path / "config.toml")

    yield make
    for context in contexts:
        context.__exit__(None, None, None)

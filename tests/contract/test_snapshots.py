"""The golden snapshots are current, and our own reader finds in each what it expects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from contract.regenerate_snapshots import DIRECTORY, generate
from palette_sync.core.model import OidcAuth, ServiceAccountAuth
from palette_sync.store.read import Stored, read
from palette_sync.store.redis import StoreError
from palette_sync.store.seal import SealError, SealKeys, Unsealed

FILES = sorted(DIRECTORY.glob("*.json"))
REASONS = {"digest": "the digest does not match", "mac": "the mac does not match", "count": "evicted or tampered with"}
NAMES = {
    *("basic", "empty-complete", "incomplete", "tampered-record", "foreign-seal-key", "moved-token", "unknown-schema"),
    *("tampered-digest", "missing-record", "one-cluster", "rotated-seal-key", "several-versions", "unsealed"),
}


async def test_the_snapshots_are_current() -> None:
    current = await generate()

    assert {path.name for path in FILES} == current.keys() == {f"{name}.json" for name in NAMES}
    for path in FILES:
        assert path.read_text(encoding="utf-8") == current[path.name], "run tests/contract/regenerate_snapshots.py"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
async def test_our_reader_finds_what_a_snapshot_expects(path: Path) -> None:
    golden = _golden(path)
    sealer = SealKeys.from_lines("\n".join(golden["keys"])) if golden["keys"] else Unsealed()
    stored = Stored(**{part: _bytes(golden["redis"][part]) for part in ("head", "clusters", "credentials")})
    expected = golden["expected"]
    if expected.get("reason") == "schema":
        with pytest.raises(StoreError, match="upgrade"):
            await read(golden["instance"], stored, sealer)
        return

    state = (await read(golden["instance"], stored, sealer)).state

    assert state.trusted is expected["accepted"]
    if not expected["accepted"]:
        assert any(REASONS[expected["reason"]] in problem for problem in state.problems)
        return
    assert state.head is not None
    assert (state.head.epoch, state.head.version, state.head.complete) == (
        expected["epoch"],
        expected["version"],
        expected["complete"],
    )
    found: dict[str, dict[str, Any]] = {}
    for uid, record in state.records.items():
        found[uid] = {"name": record.name, "access": record.access.state.value, "reason": record.access.reason}
        if record.server is not None:
            found[uid] |= {"url": record.server.url, "ca_data": record.server.ca_data}
        if isinstance(record.auth, ServiceAccountAuth):
            found[uid]["provider"] = "serviceAccount"
        if isinstance(record.auth, OidcAuth):
            found[uid]["provider"] = "oidc"
        if uid in state.credentials:
            found[uid]["token"] = _opened(sealer, golden["instance"], uid, state.credentials[uid].sealed)
    assert found == expected["clusters"]


def _golden(path: Path) -> dict[str, Any]:
    golden: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return golden


def _bytes(texts: dict[str, str]) -> dict[bytes, bytes]:
    return {name.encode(): value.encode() for name, value in texts.items()}


def _opened(sealer: SealKeys | Unsealed, instance: str, uid: str, sealed: str) -> str | None:
    try:
        return sealer.open(instance, uid, sealed).reveal()
    except SealError:
        return None

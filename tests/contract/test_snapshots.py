"""The golden snapshots are current, and our own reader finds in each what it expects."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from contract.regenerate_snapshots import DIRECTORY, generate
from palette_sync.core.documents import format_time
from palette_sync.core.model import ClusterRecord, OidcAuth, SealedCredential, ServiceAccountAuth
from palette_sync.core.snapshot_codec import sealed_for
from palette_sync.store.read import Stored, read
from palette_sync.store.redis import StoreError
from palette_sync.store.seal import SealError, SealKeys, Unsealed

FILES = sorted(DIRECTORY.glob("*.json"))
NOW = datetime(2027, 1, 15, 10, tzinfo=UTC)
REASONS = {
    "head": "is not a whole number of at most 15 digits",
    "uid": "fields whose name is no uid",
    "count": "evicted or tampered with",
    "digest": "the digest does not match",
    "credentials_digest": "the digest of credentials does not match",
    "mac": "the mac does not match",
}
NAMES = {
    *("basic", "empty-complete", "incomplete", "one-cluster", "several-versions", "unsealed", "unconfirmed"),
    "paused",
    *("moved-server", "token-of-another-server", "token-with-other-times", "rotated-seal-key", "forged-check"),
    *("tampered-record", "tampered-digest", "missing-record", "lowered-count", "foreign-seal-key", "unknown-schema"),
    *("moved-token", "removed-token", "stray-token", "other-prefix", "old-records", "folded-records", "odd-uid"),
    *("long-number", "changed-complete", "changed-unconfirmed", "changed-time"),
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
            await read(golden["prefix"], golden["instance"], stored, sealer, now=NOW)
        return

    state = (await read(golden["prefix"], golden["instance"], stored, sealer, now=NOW)).state

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
    assert (state.head.checked_at and format_time(state.head.checked_at)) == expected["checked_at"]
    assert list(state.head.unconfirmed) == expected["unconfirmed"]
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
            found[uid]["token"] = _opened(sealer, golden["prefix"], record, state.credentials[uid])
    assert found == expected["clusters"]


def _golden(path: Path) -> dict[str, Any]:
    golden: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return golden


def _bytes(texts: dict[str, str]) -> dict[bytes, bytes]:
    return {name.encode(): value.encode() for name, value in texts.items()}


def _opened(
    sealer: SealKeys | Unsealed, prefix: str, record: ClusterRecord, credential: SealedCredential
) -> str | None:
    try:
        return sealer.open(sealed_for(prefix, record, credential), credential.sealed).reveal()
    except SealError:
        return None

"""What somebody without a seal key makes of an instance in Redis is not believed, or it is what was published."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from palette_sync.store.errors import StoreError
from palette_sync.store.read import Stored
from unit.test_store_read import load, stored, value

PARTS = ("head", "clusters", "credentials", "work", "scopes", "issuers")
# What lies in Redis from before, or of another instance, and is authentic where it was.
ORIGINAL, FORMER = stored("c1", "c2", version=2), stored("c1", "c3", version=1, name="former")
POOL = [raw for one in (ORIGINAL, FORMER) for part in PARTS[:4] for raw in getattr(one, part).values()]
POOL += [
    b"",
    b"0",
    b"1",
    b"-1",
    b"18446744073709551615",
    b"1e9",
    b"null",
    b"{}",
    b"[]",
    b"\xff\xfe",
    b"0" * 64 + b" {}",
]
FIELDS = sorted({name for one in (ORIGINAL, FORMER) for part in PARTS[:4] for name in getattr(one, part)})
FIELDS += [b"", b"c1\tx\nc2", b"tenant", b"\xff", b"x" * 65, b"https://issuer.example"]


@st.composite
def damaged(draw: st.DrawFn) -> Stored:
    """The published instance after some writes: fields set, removed, exchanged or cut."""
    parts: dict[str, Any] = {part: dict(getattr(ORIGINAL, part)) for part in PARTS}
    for _ in range(draw(st.integers(1, 6))):
        part = draw(st.sampled_from(PARTS))
        fields = parts[part]
        field = draw(st.sampled_from(sorted(fields) or FIELDS) | st.sampled_from(FIELDS))
        match draw(st.sampled_from(["set", "set", "remove", "cut", "flip", "whole"])):
            case "set":
                fields[field] = draw(st.sampled_from(POOL) | st.binary(max_size=40))
            case "remove":
                fields.pop(field, None)
            case "cut" if fields.get(field):
                fields[field] = fields[field][: draw(st.integers(0, len(fields[field])))]
            case "flip" if fields.get(field):
                at = draw(st.integers(0, len(fields[field]) - 1))
                fields[field] = fields[field][:at] + bytes([fields[field][at] ^ 1]) + fields[field][at + 1 :]
            case "whole":
                parts[part] = dict(getattr(FORMER, part))
    return Stored(**parts, status=draw(st.none() | st.sampled_from(POOL) | st.binary(max_size=40)))


@given(damaged())
async def test_a_damaged_instance_is_not_believed_or_is_what_was_published(found: Stored) -> None:
    try:
        state = (await load(found)).state
    except StoreError:
        return

    if state.head is not None and state.trusted:
        whole = {(2, "c1", "c2"): ORIGINAL, (1, "c1", "c3"): FORMER}[(state.head.version, *sorted(state.records))]
        assert {uid.encode() for uid in state.credentials} == set(whole.credentials)
        assert found.clusters == whole.clusters
        assert found.credentials == whole.credentials
    authentic = {*ORIGINAL.work.values(), *FORMER.work.values()}
    for uid in state.memory:
        assert found.work[uid.encode()] in authentic
    assert not state.scopes
    assert not state.issuers
    assert not state.status


async def test_what_was_published_is_believed() -> None:
    state = (await load(replace(ORIGINAL, status=value("status", "", b'{"held":{}}')))).state

    assert state.trusted
    assert set(state.records) == {"c1", "c2"}
    assert state.status == {"held": {}}

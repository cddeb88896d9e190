"""How large a single write can become."""

from __future__ import annotations

import pytest

from builders import NOW
from palette_sync.core.model import ClusterMemory, ScopeStatus
from palette_sync.store.batches import MOST_CHANGES, Batch, encode_unversioned, in_parts, split, unversioned_arguments
from palette_sync.store.batches import edit_arguments as arguments_of
from palette_sync.store.seal import Unsealed
from palette_sync.store.signed_value import ValueSigner

# Amazon ElastiCache Serverless refuses a command with more:
# docs.aws.amazon.com/AmazonElastiCache/latest/dg/RedisConfiguration.html
MOST_ARGUMENTS = 3_999
FIXED = 60  # keys, hash of the script, and what describes a version


@pytest.mark.parametrize("dropped", [True, False])
def test_no_write_has_more_arguments_than_a_managed_redis_takes(*, dropped: bool) -> None:
    many = [f"u{number:05}" for number in range(3 * MOST_CHANGES)]
    wanted = Batch(drop=tuple(many)) if dropped else Batch(put=dict.fromkeys(many, b"{}"), rotated=dict.fromkeys(many))
    edits = encode_unversioned(
        ValueSigner(Unsealed(), "p", "alpha"),
        memory={uid: ClusterMemory(verified_at=NOW) for uid in many},
        scopes={uid: ScopeStatus("Shop", NOW) for uid in many},
        issuers=None,
        status={"held": {}},
    )

    batches, parts = list(split(wanted)), in_parts(edits)

    for batch in batches:
        for part in parts:
            arguments = [
                *arguments_of({**batch.put, **dict.fromkeys(batch.drop)}),
                *arguments_of({**batch.rotated, **dict.fromkeys(batch.drop)}),
                *unversioned_arguments(part, dropped=batch.drop),
            ]
            assert len(arguments) + FIXED < MOST_ARGUMENTS
    assert {uid for part in parts for uid in part.memory} == set(many)
    assert {uid for part in parts for uid in part.scopes} == set(many)
    assert [bool(part.status) for part in parts] == [False] * (len(parts) - 1) + [True]

"""Seeded faults on Palette, clusters, Redis and two daemons, while an independent checker reads what is published.

`make soak MINUTES=30` runs it for long. A failure prints the seed; PALETTE_SYNC_CHAOS_SEED replays its faults.
"""

from __future__ import annotations

import os
import random
import time
from typing import TYPE_CHECKING

import pytest

from chaos.checker import Checker
from chaos.contract_reader import Key
from chaos.lab import INSTANCE, PREFIX, Lab
from chaos.schedule import FaultKind, steps
from e2e.daemon import until

if TYPE_CHECKING:
    from pathlib import Path

# Read at once: fixtures clear the variables of palette-sync.
SECONDS = float(os.environ.get("PALETTE_SYNC_CHAOS_SECONDS") or 30)
SEED = int(os.environ.get("PALETTE_SYNC_CHAOS_SEED") or random.randrange(1_000_000))
PACE = 1.5  # seconds between two faults, on average
RECOVERY = 60.0  # seconds until everything is well again after the last fault
MOST_SECRETS = 3  # in request mode: one to which tokens are bound; retired ones wait for their overlap


def test_the_same_seed_draws_the_same_faults() -> None:
    one, other = steps(7, pace=1.0), steps(7, pace=1.0)

    drawn = [next(one) for _ in range(2000)]

    assert drawn == [next(other) for _ in range(2000)]
    assert {step.kind for step in drawn} == set(FaultKind)


@pytest.mark.timeout(SECONDS + 300)
def test_no_fault_loses_renames_or_forges_anything(tmp_path: Path) -> None:
    with Lab(tmp_path, daemons=2) as lab:
        line = (tmp_path / "world" / "seal.keys").read_text()
        keys = [Key.read(line)]
        uids = set(lab.world.clusters())
        checker = lab.checker = Checker(str(lab.valkey.socket), PREFIX, INSTANCE, keys, uids)
        checker.start()
        try:
            until(lambda: len(checker.view.tokens) == len(uids), within=60)
            foreign = lab.foreign_objects()
            ends_at = time.monotonic() + SECONDS
            for step in steps(SEED, pace=PACE):
                time.sleep(step.pause)
                if time.monotonic() > ends_at or checker.violations:
                    break
                lab.valkey.keep_dump()
                lab.apply(step)
            lab.calm()
            report = "\n".join(
                [f"seed {SEED}", *lab.applied[-20:], *checker.violations, *lab.crashed(), *lab.unexpected()]
            )
            assert not checker.violations, report
            assert not lab.crashed(), report
            assert not lab.unexpected(), report

            def well() -> bool:
                records = checker.view.records
                ready = {uid for uid, one in records.items() if one["access"]["state"] == "ready"}
                return checker.existing <= ready

            until(well, within=RECOVERY)
            assert max(lab.secrets().values()) <= MOST_SECRETS
            now = lab.foreign_objects()
            assert {uid: now[uid] for uid in foreign if uid in now} == {
                uid: foreign[uid] for uid in foreign if uid in now
            }
        finally:
            checker.stop()
        assert not checker.violations, report
    total = sum(lab.counts.values())
    print(f"\nseed {SEED}: {total} faults, {dict(lab.counts)}, {checker.figures}, 0 violations")

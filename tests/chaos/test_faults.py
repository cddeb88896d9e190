"""Seeded faults on Palette, clusters, Redis and daemons, while an independent checker reads what is published.

`make soak MINUTES=30` runs it for long, with a seed of its own each time, over a single Redis and over Sentinel. A
failure prints the seed; PALETTE_SYNC_CHAOS_SEED replays its faults.
"""

from __future__ import annotations

import os
import random
import time
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from chaos.faults import Faults
from chaos.lab import Lab
from chaos.report import Report
from chaos.schedule import FaultKind, kinds_for, steps
from e2e.daemon import until

if TYPE_CHECKING:
    from collections.abc import Callable

# Read at once: fixtures clear the variables of palette-sync.
SECONDS = float(os.environ.get("PALETTE_SYNC_CHAOS_SECONDS") or 0)
REPORT = os.environ.get("PALETTE_SYNC_CHAOS_REPORT")
SOAKS = SECONDS > 0
# Without a soak, the faults are the same in each run, and few: see the test below when you add a kind.
FIXED_SEED = 18533
SEED = int(os.environ.get("PALETTE_SYNC_CHAOS_SEED") or (random.randrange(1_000_000) if SOAKS else FIXED_SEED))
FEW = 14
PACE = float(
    os.environ.get("PALETTE_SYNC_CHAOS_PACE") or (1.5 if SOAKS else 0.8)
)  # seconds between two faults, on average
# How long a dead token may stay published, and by how much clocks of the observation may disagree. Both measure
# palette-sync on a machine that has time for it, and beside other tests also the machine.
GRACE, SLACK = (3.0, 1.0) if SOAKS else (15.0, 3.0)
RECOVERY = 150.0  # seconds until everything is well again after the last fault
MOST_SECRETS = 4  # the present one, its predecessor, and what an interrupted attempt has left


def test_the_same_seed_draws_the_same_faults() -> None:
    one, other = steps(7, pace=1.0), steps(7, pace=1.0)

    drawn = [next(one) for _ in range(3000)]

    assert drawn == [next(other) for _ in range(3000)]
    assert {step.kind for step in drawn} == set(FaultKind)


def test_the_few_faults_of_each_run_are_the_worst() -> None:
    few = {step.kind for step in islice(steps(FIXED_SEED, pace=1.0, kinds=kinds_for(sentinel=False)), FEW)}

    assert few >= {
        FaultKind.REDIS_WIPE,
        FaultKind.REDIS_OLDER_DUMP,
        FaultKind.REDIS_LOST_WRITES,
        FaultKind.DAEMON_KILL,
        FaultKind.DAEMON_STOP,
        FaultKind.DAEMON_CLOCK,
        FaultKind.PALETTE_NO_ROLES,
    }


@pytest.mark.timeout(SECONDS + 400)
def test_no_fault_loses_renames_or_forges_anything(tmp_path: Path) -> None:
    inject(tmp_path, sentinel=False, daemons=2 + SEED % 2)


@pytest.mark.skipif(not SOAKS, reason="Sentinel takes long to find its replica: make soak")
@pytest.mark.timeout(SECONDS + 400)
def test_no_fault_loses_renames_or_forges_anything_with_sentinel(tmp_path: Path) -> None:
    inject(tmp_path, sentinel=True, daemons=2 + SEED % 2)


def inject(directory: Path, *, sentinel: bool, daemons: int) -> None:
    """Inject faults, and print the figures. Raises AssertionError for whatever is wrong."""
    with Lab(directory, daemons=daemons, sentinel=sentinel, grace=GRACE, slack=SLACK) as lab:
        lab.checker.start()
        faults = Faults(lab)
        began = time.monotonic()
        try:
            wait(lab, lab.ready, "first access to all clusters")
            for watch in lab.checker.watches.values():
                watch.settle(time.time() + 2.0)
            foreign = lab.foreign_objects()
            began = time.monotonic()
            run(lab, faults, sentinel=sentinel)
            faults.calm()
            wait(lab, lab.ready, "access to all clusters after the last fault")
            wait(lab, lambda: set(lab.checker.prove().values()) == {200}, "all published tokens work")
            few = lambda: max(lab.secrets().values()) <= MOST_SECRETS  # noqa: E731
            wait(lab, few, f"at most {MOST_SECRETS} Secrets in each cluster")
            now = lab.foreign_objects()
            changed = [name for name in foreign.keys() & now.keys() if foreign[name] != now[name]]
            lab.violations += [f"an object of somebody else was changed: {name}" for name in changed]
            check(lab)
        finally:
            lab.checker.stop()
            report = Report.of(
                lab.checker,
                faults.counts,
                seed=SEED,
                store="Sentinel" if sentinel else "one Redis",
                daemons=daemons,
                seconds=time.monotonic() - began,
            )
            print(f"\n{report.text()}")
            if REPORT:
                report.write(Path(REPORT) / f"chaos-{'sentinel' if sentinel else 'single'}-{SEED}.json")


def run(lab: Lab, faults: Faults, *, sentinel: bool) -> None:
    """Apply faults until the time is over, or until something is wrong."""
    ends_at = time.monotonic() + SECONDS
    for step in steps(SEED, pace=PACE, kinds=kinds_for(sentinel=sentinel)):
        over = time.monotonic() > ends_at if SOAKS else step.number > FEW
        if over or lab.violations or lab.crashed():
            break
        time.sleep(step.pause)
        faults.apply(step)
    check(lab)


def check(lab: Lab) -> None:
    wrong = [*lab.violations, *lab.crashed(), *lab.unexpected()]
    assert not wrong, "\n".join([f"PALETTE_SYNC_CHAOS_SEED={SEED}", *lab.checker.story, *wrong])


def wait(lab: Lab, holds: Callable[[], bool], what: str) -> None:
    try:
        until(holds, within=RECOVERY)
    except AssertionError:
        lab.violations.append(f"{what}: not within {RECOVERY:.0f} s")
        check(lab)

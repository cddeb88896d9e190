"""The figures of a run: for people as a table, for programs as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections import Counter
    from pathlib import Path

    from chaos.checker import Checker
    from chaos.schedule import FaultKind


@dataclass(frozen=True, slots=True)
class Report:
    """`forgotten`: how often nobody was left who remembered what Redis had lost, by all instances."""

    seed: int
    store: str
    daemons: int
    seconds: float
    faults: dict[str, int]
    looks: int
    versions: int
    writes: int
    proofs: int
    unanswered: int
    lapsed: int
    forgotten: int
    violations: list[str]

    @classmethod
    def of(
        cls,
        checker: Checker,
        counts: Counter[FaultKind],
        *,
        seed: int,
        store: str,
        daemons: int,
        seconds: float,
    ) -> Report:
        watches, figures = checker.watches.values(), checker.figures
        return cls(
            seed=seed,
            store=store,
            daemons=daemons,
            seconds=round(seconds, 1),
            faults={kind.value: number for kind, number in sorted(counts.items())},
            looks=figures.looks,
            versions=sum(watch.versions for watch in watches),
            writes=sum(watch.writes for watch in watches),
            proofs=figures.proofs,
            unanswered=figures.unanswered,
            lapsed=figures.lapsed,
            forgotten=sum(watch.forgotten for watch in watches),
            violations=list(checker.violations),
        )

    def document(self) -> dict[str, Any]:
        return asdict(self)

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.document(), indent=2) + "\n")

    def text(self) -> str:
        rows = [
            ("faults", sum(self.faults.values())),
            *((f"  {kind}", number) for kind, number in self.faults.items()),
            ("looks at Redis", self.looks),
            ("versions that readers took", self.versions),
            ("requests that write to clusters", self.writes),
            ("uses of published tokens", self.proofs),
            ("  that got no answer", self.unanswered),
            ("  whose token had expired", self.lapsed),
            ("times that nobody remembered what Redis lost", self.forgotten),
            ("violations", len(self.violations)),
        ]
        head = f"seed {self.seed}, {self.daemons} daemons, {self.store}, {self.seconds:.0f} s of faults"
        return "\n".join([head, *(f"{name:<46}{number:>8}" for name, number in rows)])

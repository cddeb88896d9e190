"""A measured value and its budget. Pure. In every row, smaller is better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

NOT_MEASURED = "not measured"


@dataclass(frozen=True, slots=True)
class Row:
    """`floor`: no implementation could go below it; in the same unit. `value` None: not measured, `note` says why."""

    what: str
    value: float | None
    unit: str
    budget: float
    floor: float | None = None
    note: str = ""

    @property
    def ok(self) -> bool | None:
        return None if self.value is None else self.value <= self.budget

    @property
    def verdict(self) -> str:
        if self.value is None:
            return NOT_MEASURED
        if self.value <= self.budget:
            return "met"
        missed = f"missed by {shown(self.value - self.budget, self.unit)}"
        if self.budget > 0:
            missed += f" ({(self.value / self.budget - 1) * 100:.0f} %)"
        return missed if self.floor is None else f"{missed}; floor {shown(self.floor, self.unit)}"

    def document(self) -> dict[str, Any]:
        return {
            "name": self.what,
            "value": self.value,
            "unit": self.unit,
            "budget": self.budget,
            "floor": self.floor,
            "ok": self.ok,
            "verdict": self.verdict,
            "note": self.note,
        }


def shown(value: float, unit: str) -> str:
    """Return the value with three significant digits; such a measurement is no more exact."""
    if unit == "" or value == 0 or abs(value) >= 100:
        text = f"{value:,.0f}"
    elif abs(value) >= 10:
        text = f"{value:.1f}"
    else:
        text = f"{value:.2f}"
    return f"{text} {unit}".rstrip()


def serial_floor(calls: int, *, latency: float, concurrency: int) -> float:
    """Return the fewest seconds for `calls` of `latency` seconds each, `concurrency` at a time."""
    return calls * latency / concurrency


def limits_floor(requests: int, *, per_second: float, burst: int) -> float:
    """Return the seconds until a token bucket that begins full has let so many requests through."""
    return max(0.0, (requests - burst) / per_second)


def pages(rows: int, *, size: int = 50) -> int:
    """Return the number of requests for a listing of so many rows; an empty one takes one too."""
    return max(1, -(-rows // size))

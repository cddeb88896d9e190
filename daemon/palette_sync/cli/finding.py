"""The result of one check of `palette-sync check`."""

from __future__ import annotations

from dataclasses import dataclass

OK, WARNING, PROBLEM = "ok", "warning", "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """`where`: the part that was checked. `remedy`: what to do, empty if nothing."""

    level: str
    where: str
    what: str
    remedy: str = ""

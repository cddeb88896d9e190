"""Write the parts of the documentation that follow from the code. `make docs` runs it; a test compares the result.

A generated part of a page stands between `<!-- generated: NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from palette_sync.core.reasons import Reason, Shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

ROOT = Path(__file__).parents[1]
_GROUPS = {
    Shown.RECORD: "In a cluster's record (`palette-sync clusters`, Backstage)",
    Shown.WORK: "Why a pass works on a cluster",
    Shown.ACTION: "Why an object in a cluster is written",
    Shown.CHANGE: "Why a record changed, was dropped or was held back",
    Shown.PASS: "Why a pass ended without a result",
}


def reasons_of_records() -> str:
    """The README's table: every reason that a cluster's record can have."""
    return _table(reason for reason in Reason if Shown.RECORD in reason.shown)


def all_reasons() -> str:
    """The page of all reasons, by where they appear."""
    parts = []
    for shown, title in _GROUPS.items():
        parts += [f"## {title}", "", _table(reason for reason in Reason if shown in reason.shown), ""]
    return "\n".join(parts).rstrip()


def _table(reasons: Iterable[Reason]) -> str:
    rows = [f"| `{one}` | {one.meaning} | {one.by_itself} | {one.remedy or '-'} |" for one in reasons]
    return "\n".join(["| reason | meaning | what palette-sync does | what you can do |", "|---|---|---|---|", *rows])


PARTS: dict[tuple[str, str], Callable[[], str]] = {
    ("README.md", "reasons"): reasons_of_records,
    ("docs/reasons.md", "reasons"): all_reasons,
}


def generated(page: str, text: str) -> str:
    """Return the text of `page` with its generated parts as they follow from the code. Raises KeyError."""
    for (name, part), write in PARTS.items():
        if name != page:
            continue
        pattern = re.compile(rf"(<!-- generated: {part} -->\n).*?(\n<!-- end -->)", re.DOTALL)
        if not pattern.search(text):
            raise KeyError(f"{page} has no part <!-- generated: {part} -->")
        content = write()
        text = pattern.sub(lambda found, content=content: found.group(1) + content + found.group(2), text)
    return text


def main() -> None:
    for page in sorted({page for page, _ in PARTS}):
        path = ROOT / page
        before = path.read_text()
        after = generated(page, before)
        if after != before:
            path.write_text(after)
            sys.stdout.write(f"{page}\n")


if __name__ == "__main__":
    main()

"""What a request asks the table of clusters for: filters, order and page. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from palette_sync.core.rows import SORTS, Filter

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

PAGE_SIZE = 50
LONGEST = 128  # characters of a filter
_WILDCARDS = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class Query:
    """The query of a URL. "" matches everything. `page` begins at 1; one beyond the last page shows the last."""

    name: str = ""
    instance: str = ""
    project: str = ""
    state: str = ""
    reason: str = ""
    sort: str = "state"
    page: int = 1

    @classmethod
    def of(cls, values: Mapping[str, str]) -> Query:
        """Read the query of a URL. What is not valid counts as absent."""
        texts = {name: values.get(name, "").strip()[:LONGEST] for name in ("name", "instance", "project", "state")}
        sort, page = values.get("sort", ""), values.get("page", "")
        return cls(
            **texts,
            reason=values.get("reason", "").strip()[:LONGEST],
            sort=sort if sort in SORTS else "state",
            page=max(1, int(page)) if page.isascii() and page.isdecimal() and len(page) < 7 else 1,  # noqa: PLR2004
        )

    @property
    def filter(self) -> Filter:
        """The filter of rows. A name without wildcards matches anywhere in a name."""
        return Filter(
            names=_one(self.name if _WILDCARDS & set(self.name) else self.name and f"*{self.name}*"),
            projects=_one(self.project),
            states=_one(self.state),
            reasons=_one(self.reason),
        )

    @property
    def narrows(self) -> bool:
        return any((self.name, self.instance, self.project, self.state, self.reason))

    def url(self, **changes: str | int) -> str:
        """The URL of the table with some members changed. Another filter or order begins at the first page."""
        return _url(replace(self, **({"page": 1} | changes)))  # type: ignore[arg-type] # members by name


def _url(query: Query) -> str:
    members = [(name, getattr(query, name)) for name in ("name", "instance", "project", "state", "reason")]
    members += [("sort", query.sort if query.sort != "state" else ""), ("page", query.page if query.page > 1 else "")]
    text = urlencode([(name, value) for name, value in members if value])
    return f"/?{text}#clusters" if text else "/#clusters"


def _one(pattern: str) -> tuple[str, ...]:
    return (pattern,) if pattern else ()


def choices(found: Iterable[str], chosen: str) -> list[str]:
    """The values that a filter offers, sorted; with the one that is chosen, even if nothing has it any more."""
    return sorted({*found, *([chosen] if chosen else [])}, key=str.casefold)

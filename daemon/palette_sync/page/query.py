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
FILTERS = ("name", "instance", "project", "state", "reason", "tag", "auth")
_WILDCARDS = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class Query:
    """The query of a URL. "" matches everything. `reverse` is "1" for the other direction of `sort`, else "".

    `page` begins at 1; one beyond the last page shows the last.
    """

    name: str = ""
    instance: str = ""
    project: str = ""
    state: str = ""
    reason: str = ""
    tag: str = ""
    auth: str = ""
    sort: str = "state"
    reverse: str = ""
    page: int = 1

    @classmethod
    def of(cls, values: Mapping[str, str]) -> Query:
        """Read the query of a URL. What is not valid counts as absent."""
        texts = {name: values.get(name, "").strip()[:LONGEST] for name in FILTERS}
        sort, page = values.get("sort", ""), values.get("page", "")
        return cls(
            **texts,
            sort=sort if sort in SORTS else "state",
            reverse="1" if values.get("reverse") == "1" else "",
            page=max(1, int(page)) if page.isascii() and page.isdecimal() and len(page) < 7 else 1,  # noqa: PLR2004
        )

    @property
    def filter(self) -> Filter:
        """The filter of rows. A name or a tag without wildcards matches anywhere in one."""
        return Filter(
            names=_one(_anywhere(self.name)),
            projects=_exactly(self.project),
            states=_exactly(self.state),
            reasons=_exactly(self.reason),
            tags=_one(_anywhere(self.tag)),
            auths=_exactly(self.auth),
        )

    @property
    def narrows(self) -> bool:
        return any(getattr(self, name) for name in FILTERS)

    def only(self, **filters: str) -> str:
        """The URL of the table with these filters alone, in the order that it has."""
        return _url(Query(sort=self.sort, reverse=self.reverse, **filters))  # type: ignore[arg-type] # members by name

    def sorted_by(self, sort: str) -> str:
        """The URL of the table in that order; in the other direction if it has that order now."""
        return self.url(sort=sort, reverse="1" if sort == self.sort and not self.reverse else "")

    def direction(self, sort: str) -> str:
        """`ascending` or `descending` for the order that the table has, else ""."""
        if sort != self.sort:
            return ""
        return "descending" if (sort == "since") is not bool(self.reverse) else "ascending"

    def url(self, **changes: str | int) -> str:
        """The URL of the table with some members changed. Another filter or order begins at the first page."""
        return _url(replace(self, **({"page": 1} | changes)))  # type: ignore[arg-type] # members by name


def _url(query: Query) -> str:
    members = [(name, getattr(query, name)) for name in FILTERS]
    members += [("sort", query.sort if query.sort != "state" else ""), ("reverse", query.reverse)]
    members += [("page", query.page if query.page > 1 else "")]
    text = urlencode([(name, value) for name, value in members if value])
    return f"/?{text}#clusters" if text else "/#clusters"


def _one(pattern: str) -> tuple[str, ...]:
    return (pattern,) if pattern else ()


def _exactly(text: str) -> tuple[str, ...]:
    return _one("".join(f"[{one}]" if one in _WILDCARDS else one for one in text))


def _anywhere(text: str) -> str:
    return text if not text or _WILDCARDS & set(text) else f"*{text}*"


def choices(found: Iterable[str], chosen: str) -> list[str]:
    """The values that a filter offers, sorted; with the one that is chosen, even if nothing has it any more."""
    return sorted({*found, *([chosen] if chosen else [])}, key=str.casefold)

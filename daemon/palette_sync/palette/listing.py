"""Reading a paged listing of Palette to its end, or finding out that it cannot be trusted.

A continue token is an offset in disguise, not a snapshot: rows move when the set changes between two pages, and a
proxy or a bug may serve the same page for ever. A listing counts only if it ended, repeated no token, brought something
new with every page, and holds as many rows as were announced. A total may grow meanwhile: rows come oldest first, so
what is added comes last. A total that shrinks may have moved a row past the reader.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from palette_sync.palette.errors import IncompleteListing, Malformed
from palette_sync.palette.rows import read_page, read_rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from palette_sync.palette.client import PaletteClient
    from palette_sync.palette.rows import Page

PAGE_SIZE = 50
HARD_CAP = 1000
_READINGS = 2


class Row(Protocol):
    """Anything with a uid."""

    @property
    def uid(self) -> str: ...


R = TypeVar("R", bound=Row)


async def read_listing(
    client: PaletteClient,
    api: str,
    body: object,
    read: Callable[[object], R],
    *,
    project: str | None = None,
) -> list[R]:
    """Read all pages of a POST search; rows in order, each uid once.

    A listing that changed while it was read, or falls short of its announced total, is read once more. Raises
    IncompleteListing if that does not help, and PaletteError.
    """
    problem = ""
    for _ in range(_READINGS):
        walk = _Walk[R](api)
        while walk.more:
            walk.take(*await _fetch(client, api, body, read, token=walk.following, project=project))
        problem = walk.problem
        if not problem:
            return list(walk.rows.values())
    raise IncompleteListing(f"{api}: {problem}, twice")


async def _fetch(
    client: PaletteClient,
    api: str,
    body: object,
    read: Callable[[object], R],
    *,
    token: str,
    project: str | None,
) -> tuple[Page, list[R]]:
    # The token belongs into the query: in a body or a header it is ignored, and page one comes back for ever.
    params = {"limit": str(PAGE_SIZE)} | ({"continue": token} if token else {})
    document = await client.post_json(api, body, project=project, params=params)
    try:
        page = read_page(document)
        return page, read_rows(page.items, read)
    except Malformed as error:
        raise Malformed(f"{api}: {error}") from None


@dataclass
class _Walk(Generic[R]):
    """One walk through the pages. Raises IncompleteListing where going on makes no sense."""

    api: str
    rows: dict[str, R] = field(default_factory=dict)
    tokens: set[str] = field(default_factory=set)
    counts: list[int] = field(default_factory=list)
    following: str = ""
    more: bool = True
    cap: int = 2

    def take(self, page: Page, rows: list[R]) -> None:
        before = len(self.rows)
        for row in rows:
            self.rows.setdefault(row.uid, row)
        self.counts.append(page.count)
        self.following = page.following
        self.more = bool(page.following)
        if not self.more:
            return
        if page.following in self.tokens:
            raise IncompleteListing(f"{self.api}: page {len(self.counts)} leads back to one that was already read")
        self.tokens.add(page.following)
        if len(self.rows) == before:
            raise IncompleteListing(f"{self.api}: page {len(self.counts)} holds nothing new and yet goes on")
        # Twice the pages that the total needs at the size of the first one: pages may be smaller than asked for.
        if len(self.counts) == 1:
            self.cap = min(HARD_CAP, max(2, -(-page.count // len(self.rows)) * 2))
        if len(self.counts) >= self.cap:
            raise IncompleteListing(f"{self.api}: still not at the end after {len(self.counts)} pages")

    @property
    def problem(self) -> str:
        """Why what was read to its end cannot be taken for everything; empty if it can."""
        if len(self.rows) < max(self.counts):
            return f"{len(self.rows)} rows instead of the announced {max(self.counts)}"
        if self.counts != sorted(self.counts):
            return f"the total moved from {self.counts[0]} to {self.counts[-1]} while it was read"
        return ""

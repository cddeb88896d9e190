"""Reading a paged listing of Palette to its end, and detecting one that is incomplete.

A continue token is an encoded offset, not a snapshot: rows move when clusters come or go between two pages, and a proxy
or a bug may return the same page forever. A listing is accepted only if it ended, repeated no token and brought new
rows with every page. It is complete if it also holds as many rows as were announced. The total may grow meanwhile: rows
come oldest first, so a new cluster comes last. A total that shrinks may have moved a row past the reader.

Palette has been seen to announce a wrong total for good (146 announced, 144 given). So a listing that ended but falls
short of its total is returned as short: each of its rows is true, and a missing row proves nothing.
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
# Of all listings of one instance together, in one pass; the tenant's listing repeats the rows of all projects.
# docs/capacity.md is measured to 10,000 clusters.
MOST_ROWS = 30_000
_READINGS = 2


class Row(Protocol):
    """Anything with a uid."""

    @property
    def uid(self) -> str: ...


@dataclass
class Room:
    """How many rows may still be read. A Palette that sends rows without end must not fill the memory."""

    left: int = MOST_ROWS

    def take(self, rows: int, api: str) -> None:
        """Raises IncompleteListing."""
        if rows > self.left:
            raise IncompleteListing(f"{api}: the instance has more than {MOST_ROWS} rows, which are not read")
        self.left -= rows


R = TypeVar("R", bound=Row)


@dataclass(frozen=True, slots=True)
class Found(Generic[R]):
    """The rows of a listing in order, each uid once. `short`: why rows may be missing; None if it is complete."""

    rows: list[R]
    short: str | None = None


async def read_listing(
    client: PaletteClient,
    api: str,
    body: object,
    read: Callable[[object], R],
    *,
    project: str | None = None,
    room: Room | None = None,
) -> Found[R]:
    """Read all pages of a POST search.

    A listing that changed while it was read, or holds fewer rows than announced, is read a second time; if that does
    not help, it is short. `room` bounds the rows of several listings together. Raises IncompleteListing for a listing
    that does not end or for which there is no room, and other PaletteErrors.
    """
    room = room or Room()
    walk = _Walk[R](api, room)
    for _ in range(_READINGS):
        room.left += len(walk.rows)
        walk = _Walk[R](api, room)
        while walk.more:
            walk.take(*await fetch_page(client, api, body, read, token=walk.following, project=project))
        if not walk.problem:
            return Found(list(walk.rows.values()))
    return Found(list(walk.rows.values()), f"{walk.problem}, twice; nothing is dropped because of this listing")


async def fetch_page(
    client: PaletteClient,
    api: str,
    body: object,
    read: Callable[[object], R],
    *,
    token: str,
    project: str | None,
) -> tuple[Page, list[R]]:
    """Read the page that follows `token` ("" = the first one). Raises PaletteError."""
    # The token must be in the query: Palette ignores it in the body and in a header, and returns page one again.
    params = {"limit": str(PAGE_SIZE)} | ({"continue": token} if token else {})
    document = await client.post_json(api, body, project=project, params=params)
    try:
        page = read_page(document)
        return page, read_rows(page.items, read)
    except Malformed as error:
        raise Malformed(f"{api}: {error}") from None


@dataclass
class _Walk(Generic[R]):
    """The pages read so far. Raises IncompleteListing when further pages cannot complete the listing."""

    api: str
    room: Room
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
        self.room.take(len(self.rows) - before, self.api)
        self.counts.append(page.count)
        self.following = page.following
        self.more = bool(page.following)
        if not self.more:
            return
        if page.following in self.tokens:
            raise IncompleteListing(f"{self.api}: page {len(self.counts)} repeats an earlier continue token")
        self.tokens.add(page.following)
        if len(self.rows) == before:
            raise IncompleteListing(f"{self.api}: page {len(self.counts)} holds no new rows, but is not the last")
        # Palette may return smaller pages than requested, so allow twice the pages that the first page's size requires.
        if len(self.counts) == 1:
            self.cap = min(HARD_CAP, max(2, -(-page.count // len(self.rows)) * 2))
        if len(self.counts) >= self.cap:
            raise IncompleteListing(f"{self.api}: not at its end after {len(self.counts)} pages")

    @property
    def problem(self) -> str:
        """Why the listing is not complete although it ended; empty if it is complete."""
        if len(self.rows) < max(self.counts):
            return f"{len(self.rows)} rows instead of the announced {max(self.counts)}"
        if self.counts != sorted(self.counts):
            return f"the total changed from {self.counts[0]} to {self.counts[-1]} while it was read"
        return ""

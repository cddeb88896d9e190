"""The pages of a simulated Palette's listings, and the lies that they can tell."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, TypeVar

import orjson

from palette_sync.simulator import palette_documents as documents
from palette_sync.simulator.palette_errors import PaletteError

if TYPE_CHECKING:
    from palette_sync.simulator.exchange import Call, Json
    from palette_sync.simulator.palette_behaviour import ListingLie

Row = TypeVar("Row")
PAGE = 50
_BAD_LIMIT = 608


def _number(call: Call, name: str) -> int | None:
    text = call.query.get(name)
    if text is None:
        return None
    try:
        return int(text)
    except ValueError:
        raise PaletteError(422, 601, f'{name} in query must be of type int64: "string"') from None


def limit_of(call: Call, *, cap_silently: bool) -> int:
    """Return the size of a page. Raises PaletteError for one that is too large, unless it is only cut down."""
    limit = _number(call, "limit") or PAGE
    if limit > PAGE and not cap_silently:
        raise PaletteError(422, _BAD_LIMIT, f"limit in query should be less than or equal to {PAGE}")
    return min(limit, PAGE)


def page_of(call: Call, rows: list[Row], *, cap_silently: bool, lie: ListingLie = "none") -> tuple[list[Row], Json]:
    """Return a page and its `listmeta`. `continue` is an offset, so rows move if clusters come or go between pages."""
    rows = rows[: {"empty": 0, "half": len(rows) // 2}.get(lie, len(rows))]
    total = len(rows) + (1 + len(rows) // 10 if lie == "total-too-high" else 0)
    limit = limit_of(call, cap_silently=cap_silently)
    offset = _number(call, "offset") or 0
    token = call.query.get("continue")
    if token:
        try:
            offset = int(orjson.loads(base64.b64decode(token))["offset"])
        except (ValueError, KeyError, TypeError):
            raise PaletteError(400, "InvalidContinueToken", "continue token is invalid") from None
    items = rows[offset : offset + limit]
    end = offset + len(items)
    following = ""
    if end < len(rows):
        following = base64.b64encode(orjson.dumps({"offset": end, "count": total, "token": ""})).decode()
    return items, documents.list_meta(following, total, len(items), end)

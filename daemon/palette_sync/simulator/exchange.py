"""Requests and answers as plain values, so that the simulated APIs need no sockets.

An API receives a `Call` and returns an `Answer`; `listener.Frontend` translates both from and to HTTP. The JSON
documents of the simulated APIs are passed between modules as dictionaries (`Json`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Mapping

Json = dict[str, Any]

JSON = "application/json"
OCTETS = "application/octet-stream"
TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Call:
    """A complete request. `client_subject` is (common name, organisations) of the verified client certificate."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = b""
    client_subject: tuple[str, tuple[str, ...]] | None = None

    def json(self) -> Any:
        """Parse the body as JSON; None if it is empty. Raises ValueError if it is invalid."""
        return orjson.loads(self.body) if self.body.strip() else None


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer. `repr` leaves out the body, which may hold a secret."""

    status: int
    body: bytes = field(default=b"", repr=False)
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


def answer_json(document: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(status, orjson.dumps(document), headers=headers or {})

"""One request and one answer as plain values, so that the simulated APIs stay free of sockets.

`Call` is what an API sees, `Answer` what it says; `listener.Frontend` turns them into HTTP. JSON documents of foreign
APIs are the simulator's subject, so they cross its modules as dictionaries (`Json`).
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
    """A request, read whole. `client_subject` is the verified client certificate's (common name, organisations)."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = b""
    client_subject: tuple[str, tuple[str, ...]] | None = None

    def json(self) -> Any:
        """The body as JSON, or None for an empty one. Raises ValueError on anything else."""
        return orjson.loads(self.body) if self.body.strip() else None


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, complete before its first byte is sent. The body never shows: it may hold a secret."""

    status: int
    body: bytes = field(default=b"", repr=False)
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


def answer_json(document: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(status, orjson.dumps(document), headers=headers or {})

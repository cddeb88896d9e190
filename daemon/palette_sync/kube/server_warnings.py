"""Warnings that API servers send beside an answer, such as a token's life that they shortened."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import structlog

from palette_sync.core.text import one_line

if TYPE_CHECKING:
    from palette_sync.core.model import Secret
    from palette_sync.http import Reply

log = structlog.get_logger(__name__)

MOST = 10_000  # warnings that are remembered
LONGEST = 300  # characters of a warning
_TEXT = re.compile(r'299 [^ ]+ "((?:[^"\\]|\\.)*)"')  # RFC 7234, 5.5, as kubernetes writes it


class SeenWarnings:
    """Logs each warning of each server once. What was seen longest ago is forgotten first."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._seen: dict[tuple[str, str], None] = {}

    def log(self, server: str, reply: Reply, *, token: Secret | None) -> None:
        """Log the warnings in an answer. `token` is the one in the request, and is removed from the text."""
        for text in _TEXT.findall(reply.headers.get("Warning", "")):
            if token:
                text = text.replace(token.reveal(), "***")  # noqa: PLW2901
            warning = (server, one_line(text, LONGEST))
            if warning in self._seen:
                continue
            self._seen[warning] = None
            if len(self._seen) > self._most:
                del self._seen[next(iter(self._seen))]
            log.warning("api_server_warning", server=server, reason=warning[1])

"""The error answers of a simulated Palette."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from palette_sync.simulator.exchange import answer_json

if TYPE_CHECKING:
    from palette_sync.simulator.exchange import Answer, Json


class PaletteError(Exception):
    """An error answer. `code` is a word in Palette's own errors, and a number in those of its HTTP framework."""

    def __init__(self, status: int, code: str | int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code

    def answer(self) -> Answer:
        document: Json = {"code": self.code, "message": str(self)}
        if isinstance(self.code, str):
            document["ref"] = hashlib.sha256(f"{self.code}{self}".encode()).hexdigest()[:16]
        return answer_json(document, self.status)

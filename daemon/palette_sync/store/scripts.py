"""Lua scripts of this package: run by hash, and sent whole where the server does not know them yet."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from redis.exceptions import NoScriptError

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Script:
    """A script's text. Calling it runs it; it is atomic, and nobody else's command comes between."""

    text: str
    sha: str

    @classmethod
    def load(cls, name: str) -> Script:
        text = files("palette_sync.store").joinpath(name).read_text(encoding="utf-8")
        # The name that EVALSHA gives to a script, no question of security.
        return cls(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())

    async def __call__(self, client: Any, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        try:
            return await client.execute_command("EVALSHA", self.sha, len(keys), *keys, *arguments)
        except NoScriptError:
            return await client.execute_command("EVAL", self.text, len(keys), *keys, *arguments)

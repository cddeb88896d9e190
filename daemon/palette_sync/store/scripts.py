"""Lua scripts of this package: run by hash, and sent whole if the server does not know the hash."""

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
    """A script's text. Calling it runs it. Redis runs a script atomically: no other command comes in between."""

    text: str
    sha: str

    @classmethod
    def load(cls, name: str) -> Script:
        text = files("palette_sync.store").joinpath(name).read_text(encoding="utf-8")
        # EVALSHA names scripts by SHA-1; this is not used for security.
        return cls(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())

    async def __call__(self, client: Any, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        try:
            return await client.execute_command("EVALSHA", self.sha, len(keys), *keys, *arguments)
        except NoScriptError:
            return await client.execute_command("EVAL", self.text, len(keys), *keys, *arguments)

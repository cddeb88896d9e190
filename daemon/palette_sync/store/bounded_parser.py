"""Answers of Redis, read up to a number of bytes: a huge value does not fill this process's memory."""

from __future__ import annotations

from typing import Any

from redis import exceptions
from redis._parsers import _AsyncHiredisParser
from redis._parsers.socket import SERVER_CLOSED_CONNECTION_ERROR

from palette_sync.store.bounds import BOUNDS


class ReplyTooLarge(exceptions.RedisError):
    """The server's answer is longer than `Bounds.reply`. The rest of it was not read."""


class _BoundedParser(_AsyncHiredisParser):
    """Reads answers, and gives up on one that is too long before it fills the memory.

    The client closes the connection then: what follows on it is the rest of that answer.
    """

    most = BOUNDS.reply
    _received = 0

    async def read_response(self, *arguments: Any, **options: Any) -> Any:
        self._received = 0
        return await super().read_response(*arguments, **options)

    async def read_from_socket(self) -> bool:
        stream: Any = self._stream
        reader: Any = self._reader
        buffer = await stream.read(self._read_size)
        if not isinstance(buffer, bytes) or not buffer:
            raise exceptions.ConnectionError(SERVER_CLOSED_CONNECTION_ERROR)
        self._received += len(buffer)
        if self._received > self.most:
            raise ReplyTooLarge
        reader.feed(buffer)
        return True


def parser(most: int) -> type[_BoundedParser]:
    """Return a class for redis-py's `parser_class`. Its instances raise ReplyTooLarge beyond `most` bytes."""
    return type("_Parser", (_BoundedParser,), {"most": most})

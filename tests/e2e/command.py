"""The installed command, run as its user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMAND = Path(sys.executable).with_name("palette-sync")
# A shell lets what it runs in the background ignore SIGINT, which children inherit; Ctrl-C is for the foreground.
FOREGROUND = (
    sys.executable,
    "-c",
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])",
)


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


def environment(**variables: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    # Coverage of child processes, where the suite runs under it.
    kept |= {name: value for name, value in os.environ.items() if name.startswith(("COV_", "COVERAGE_"))}
    # A verification is due by each cluster's own hour, and a peek may come at any time. Neither must happen in the
    # middle of a test, for example because a fault that is meant for a listing would hit a peek.
    calm = {"PALETTE_SYNC_DEFAULTS__VERIFY_INTERVAL": "3650d", "PALETTE_SYNC_DEFAULTS__PEEK_INTERVAL": "0"}
    return {**kept, **calm, **variables}


def palette_sync(*arguments: str | Path, within: float = 50, **variables: str) -> Ran:
    """Run the command to its end, which comes `within` some seconds."""
    done = subprocess.run(
        [COMMAND, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=within,
        check=False,
        env=environment(**variables),
    )
    return Ran(done.returncode, done.stdout, done.stderr)


@contextmanager
def simulation(out: Path, *arguments: str) -> Iterator[dict[str, Any]]:
    """`palette-sync simulate` until the block ends; yields what simulator.json says."""
    with subprocess.Popen(
        [COMMAND, "simulate", "--out", str(out), *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as process:
        assert process.stdout is not None
        try:
            assert any(line.strip() == "ready" for line in process.stdout), "it ended before it was ready"
            yield json.loads((out / "simulator.json").read_text())
        finally:
            process.send_signal(signal.SIGTERM)
            process.stdout.read()
            assert process.wait(20) == 0

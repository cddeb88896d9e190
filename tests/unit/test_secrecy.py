"""The memory of the process is not for other processes, nor for core files."""

from __future__ import annotations

import subprocess
import sys

import pytest

LOOK = """
import ctypes, resource, sys
from pathlib import Path
from palette_sync.cli.entry import run_command
from palette_sync.cli.exits import Exit

async def work(settings):
    print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), *resource.getrlimit(resource.RLIMIT_CORE))
    return Exit.OK

sys.exit(run_command(Path(sys.argv[1]), work))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="PR_GET_DUMPABLE is Linux's")
def test_a_command_cannot_be_dumped_or_debugged_while_it_works(tmp_path: object) -> None:
    config = f"{tmp_path}/config.toml"
    with open(config, "w") as file:  # noqa: PTH123 - a plain path
        file.write('seal = "none"\n[instances.prod]\nurl = "https://palette.example"\napi_key = "canary"\n')

    ran = subprocess.run([sys.executable, "-c", LOOK, config], capture_output=True, text=True, check=True)

    assert ran.stdout.split() == ["0", "0", "0"]

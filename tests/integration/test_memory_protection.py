"""A process that holds secrets leaves no core file, and no process of its user reads its memory."""

from __future__ import annotations

import subprocess
import sys

import pytest

LOOK = """
import ctypes, resource
from palette_sync.service.memory_protection import protect_memory
before = ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)  # PR_GET_DUMPABLE
protect_memory()
print(before, ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), resource.getrlimit(resource.RLIMIT_CORE))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is a call of Linux")
def test_the_process_is_not_dumpable_and_writes_no_core_file() -> None:
    shown = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, timeout=60, check=True)

    assert shown.stdout.split(maxsplit=2) == ["1", "0", "(0, 0)\n"]

"""The name under which the command was called."""

from __future__ import annotations

import shutil
import sys


def called() -> str:
    """Return the command as it was called, so that printed lines can be copied and run."""
    return "palette-sync" if shutil.which("palette-sync") else sys.argv[0]

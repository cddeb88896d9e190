"""How states look: one colour for each, in every table. By value, because the enumerations take long to import."""

from __future__ import annotations

ACCESS_STATES = {"ready": "green", "degraded": "yellow", "pending": "cyan", "failed": "red"}  # core.model.AccessState
RUNNER_STATES = {  # runner.status.RunnerState
    "leading": "green",
    "standby": "cyan",
    "storeless": "red",
    "starting": "yellow",
    "stopped": "red",
}

"""How states look: one colour for each, in every table."""

from __future__ import annotations

from palette_sync.core.model import AccessState

ACCESS_STATES = {
    AccessState.READY: "green",
    AccessState.DEGRADED: "yellow",
    AccessState.PENDING: "cyan",
    AccessState.FAILED: "red",
}
# By the value of `runner.status.RunnerState`, whose import takes longer than the command that shows it.
RUNNER_STATES = {"leading": "green", "standby": "cyan", "storeless": "red", "starting": "yellow", "stopped": "red"}

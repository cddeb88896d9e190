"""How effects and states look: one colour and one sign for each, in every table."""

from __future__ import annotations

from dataclasses import dataclass

from palette_sync.core.model import AccessState
from palette_sync.reconcile.report import Effect


@dataclass(frozen=True, slots=True)
class EffectStyle:
    """`planned` says what a plan would do."""

    colour: str
    sign: str
    planned: str


EFFECTS = {
    Effect.PUBLISHED: EffectStyle("green", "+", "publish"),
    Effect.UPDATED: EffectStyle("cyan", "~", "update the record"),
    Effect.ROTATED: EffectStyle("blue", "~", "rotate the token"),
    Effect.REPAIRED: EffectStyle("yellow", "~", "repair"),
    Effect.DROPPED: EffectStyle("magenta", "-", "drop the record"),
    Effect.HELD: EffectStyle("yellow", "!", "hold the drop back"),
    Effect.FAILED: EffectStyle("red", "!", "cannot be done"),
}
ACCESS_STATES = {
    AccessState.READY: "green",
    AccessState.DEGRADED: "yellow",
    AccessState.PENDING: "cyan",
    AccessState.FAILED: "red",
}
# By the value of `runner.status.RunnerState`, whose import takes longer than the command that shows it.
RUNNER_STATES = {"leading": "green", "standby": "cyan", "storeless": "red", "starting": "yellow", "stopped": "red"}

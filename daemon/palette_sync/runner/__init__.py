"""One runner per instance: it holds the lease and runs one pass after another, as its mailbox asks.

Nothing is imported before it is used: a command that shows the status needs `RunnerStatus`, and none of the rest.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from palette_sync.runner.instance import Observer, Runner
    from palette_sync.runner.mailbox import Mailbox, PassRequest
    from palette_sync.runner.runtime import InstanceRuntime
    from palette_sync.runner.status import RunnerState, RunnerStatus

__all__ = ["InstanceRuntime", "Mailbox", "Observer", "PassRequest", "Runner", "RunnerState", "RunnerStatus"]
_MODULES = {
    "InstanceRuntime": "runtime",
    "Mailbox": "mailbox",
    "Observer": "instance",
    "PassRequest": "mailbox",
    "Runner": "instance",
    "RunnerState": "status",
    "RunnerStatus": "status",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value

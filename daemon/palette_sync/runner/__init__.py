"""One runner per instance: it holds the lease and runs one pass after another, as its mailbox asks."""

from palette_sync.runner.instance import Observer, Runner
from palette_sync.runner.mailbox import Mailbox, PassRequest
from palette_sync.runner.runtime import InstanceRuntime
from palette_sync.runner.status import RunnerState, RunnerStatus

__all__ = ["InstanceRuntime", "Mailbox", "Observer", "PassRequest", "Runner", "RunnerState", "RunnerStatus"]

"""One runner per instance: a mailbox, the lease, and passes one after another."""

from palette_sync.runner.instance import InstanceRuntime, Observer, Runner
from palette_sync.runner.mailbox import Mailbox, PassRequest
from palette_sync.runner.status import RunnerState, RunnerStatus

__all__ = ["InstanceRuntime", "Mailbox", "Observer", "PassRequest", "Runner", "RunnerState", "RunnerStatus"]

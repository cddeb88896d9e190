"""One runner per instance: a mailbox, the lease, and passes one after another."""

from palette_sync.runner.instance import Observer, Runner, Setting
from palette_sync.runner.mailbox import Mail, Mailbox
from palette_sync.runner.standing import Standing, State

__all__ = ["Mail", "Mailbox", "Observer", "Runner", "Setting", "Standing", "State"]

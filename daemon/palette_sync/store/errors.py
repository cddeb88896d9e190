"""What can go wrong with the store, by meaning. No text holds a password, a value or a server's whole message."""

from __future__ import annotations


class StoreError(Exception):
    """The store cannot be used as it must be; trying again changes nothing by itself."""


class StoreMisconfigured(StoreError):
    """A setting of `[redis]` cannot be used, whatever the server says; nothing was asked of it."""


class StoreUnavailable(StoreError):
    """Redis is away or cannot be written just now. The same call may be made again later."""


class Fenced(StoreError):
    """Another writer holds a newer epoch: this one must stop writing."""


class VersionConflict(StoreError):
    """The snapshot in Redis is not the one that this writer last saw, although no other writer took the lease."""


class LeaseHeld(StoreError):
    """Another process may write this instance."""

    def __init__(self, message: str, *, holder: str) -> None:
        super().__init__(message)
        self.holder = holder


class LeaseLost(StoreError):
    """The lease could not be renewed in time, or somebody else has taken it."""

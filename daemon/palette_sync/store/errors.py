"""What can go wrong with the store, by meaning. No text holds a password, a value or a server's whole message."""

from __future__ import annotations

from typing import ClassVar

from palette_sync.core.reasons import Reason


class StoreError(Exception):
    """The store cannot be used as it must be; trying again changes nothing by itself."""

    reason: ClassVar[Reason] = Reason.STORE_ERROR


class StoreMisconfigured(StoreError):
    """A setting of `[redis]` cannot be used, whatever the server says; nothing was asked of it."""

    reason = Reason.STORE_MISCONFIGURED


class StoreUnavailable(StoreError):
    """Redis is away or cannot be written just now. The same call may be made again later."""

    reason = Reason.STORE_UNAVAILABLE


class Fenced(StoreError):
    """Another writer holds a newer epoch: this one must stop writing."""

    reason = Reason.FENCED


class VersionConflict(StoreError):
    """The snapshot in Redis is not the one that this writer last saw, although no other writer took the lease."""

    reason = Reason.VERSION_CONFLICT


class LeaseHeld(StoreError):
    """Another process may write this instance."""

    reason = Reason.LEASE_HELD

    def __init__(self, message: str, *, holder: str) -> None:
        super().__init__(message)
        self.holder = holder


class LeaseLost(StoreError):
    """The lease could not be renewed in time, or somebody else has taken it."""

    reason = Reason.LEASE_LOST

"""The errors of the store. No text holds a password, a stored value or the server's whole message."""

from __future__ import annotations

from typing import ClassVar

from palette_sync.core.reasons import Reason


class StoreError(Exception):
    """The store cannot be used, and trying again does not help until somebody repairs it."""

    reason: ClassVar[Reason] = Reason.STORE_ERROR


class StoreMisconfigured(StoreError):
    """A setting of `[redis]` is unusable; the server was not contacted."""

    reason = Reason.STORE_MISCONFIGURED


class StoreTooMuch(StoreError):
    """A key holds more than is read (`Bounds`): somebody else writes to Redis."""


class StoreDenied(StoreError):
    """The Redis user may not run this command, or may not touch this key."""


class StoreUnavailable(StoreError):
    """Redis cannot be reached or written at present. The same call may be repeated later."""

    reason = Reason.STORE_UNAVAILABLE


class Fenced(StoreError):
    """Another writer holds a newer epoch: this one must stop writing."""

    reason = Reason.FENCED


class VersionConflict(StoreError):
    """The snapshot in Redis is not the one that this writer wrote last, although its epoch is still in force."""

    reason = Reason.VERSION_CONFLICT


class LeaseHeld(StoreError):
    """Another process holds the lease of this instance."""

    reason = Reason.LEASE_HELD


class LeaseLost(StoreError):
    """The lease expired before it could be renewed, or another process took it."""

    reason = Reason.LEASE_LOST

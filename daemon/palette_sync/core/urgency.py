"""Which due work comes first. Pure."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from palette_sync.core.reasons import Reason

if TYPE_CHECKING:
    from datetime import datetime

    from palette_sync.core.due import Candidate, Due
    from palette_sync.core.model import SealedCredential

LAST_SHARE = 4  # a token with less than a quarter of its life left is about to lapse
_RENEWALS = frozenset({Reason.TOKEN_DUE, Reason.TOKEN_LAPSED})


class Urgency(IntEnum):
    """How urgent work is, the most urgent first."""

    LAPSING = 0  # a token that works and is about to lapse, or that an operator wants to be replaced
    NEW = 1  # a cluster that readers cannot use yet, or cannot use any more
    RENEWAL = 2
    VERIFICATION = 3
    RETRY = 4  # first access that failed before


def urgency(candidate: Candidate, due: Due, now: datetime) -> Urgency:
    credential = candidate.credential
    if due.reason is Reason.ROTATION_ASKED:
        return Urgency.LAPSING  # somebody waits for it
    if due.reason in _RENEWALS and credential is not None and credential.alive(now):
        return Urgency.LAPSING if _about_to_lapse(credential, now) else Urgency.RENEWAL
    if due.issue:
        return Urgency.NEW if candidate.memory.failures == 0 else Urgency.RETRY
    return Urgency.VERIFICATION


def order(candidate: Candidate, due: Due, now: datetime) -> tuple[Urgency, float, str]:
    """Sorts work by urgency; among equals, the token that ends first, then what has not been verified for longest."""
    rank, credential = urgency(candidate, due, now), candidate.credential
    moment = candidate.memory.verified_at
    if rank in {Urgency.LAPSING, Urgency.RENEWAL} and credential is not None:
        moment = credential.expires_at or credential.renew_at
    return rank, moment.timestamp() if moment is not None else 0.0, candidate.key.uid


def _about_to_lapse(credential: SealedCredential, now: datetime) -> bool:
    if credential.expires_at is None:
        return False
    return credential.expires_at - now < (credential.expires_at - credential.issued_at) / LAST_SHARE

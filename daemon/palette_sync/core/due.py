"""Which clusters a pass works on, and why. Everything else costs no request. Pure.

Several reasons may hold at once. The first check that holds gives the reason, so the most telling ones come first.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from palette_sync.core.model import RUNNING, SERVED, AccessState, AuthMode, OidcAuth, ServiceAccountAuth
from palette_sync.core.pause import PauseInForce, pause_in_force
from palette_sync.core.reasons import Reason
from palette_sync.core.rotation import (
    next_verification,
    rests,
    spread,
    token_due,
    verify_due,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from palette_sync.core.model import Cluster, ClusterKey, ClusterMemory, ClusterRecord, SealedCredential
    from palette_sync.core.policy import TokenPolicy

PATIENCE = timedelta(seconds=30)
RENEW_AHEAD = timedelta(seconds=60)  # renewals that fall due within this share a pass
SUSPICION = timedelta(minutes=5)  # within which all tokens are verified after one was refused
SUSPICION_REST = timedelta(minutes=30)


@dataclass(frozen=True, slots=True)
class Candidate:
    """Everything known about one cluster before any request to it.

    `mode` is the configured one, None = `auto`. `desired` is the fingerprint of the configuration that shapes what
    is created in the cluster, `former_desired` the same in the form before `v2`. `ca_pem` is
    the CA that a rule gives to the cluster, None = the one in its kubeconfig. `auto`: the kind of access is found out.
    `token` is the configured life of tokens, None = unknown.
    """

    key: ClusterKey
    cluster: Cluster
    record: ClusterRecord | None
    credential: SealedCredential | None
    memory: ClusterMemory
    mode: AuthMode | None
    desired: str
    former_desired: str | None = None
    ca_pem: str | None = None
    auto: bool = False
    token: TokenPolicy | None = None


@dataclass(frozen=True, slots=True)
class Due:
    """Work on a cluster, and its reason.

    `issue`: a new token is needed whatever the check says. `urgent`: it cannot wait until a failed listing works again,
    because the token would lapse meanwhile. `needs_admin`: the read-only token is not enough for it. `revoke`: once the
    new token is published, the former one is to end.
    """

    reason: Reason
    message: str
    issue: bool = False
    urgent: bool = False
    needs_admin: bool = False
    revoke: bool = False


def due(
    candidate: Candidate,
    *,
    now: datetime,
    verify_interval: timedelta,
    resync: bool = False,
    rotate: bool = False,
    revoke: bool = False,
    ahead: timedelta = timedelta(0),
    suspect_since: datetime | None = None,
) -> Due | None:
    """Return why this cluster is worked on in this pass, or None: nothing is due.

    `resync`: an operator asked for everything to be verified; backoffs are ignored. `rotate`: an operator asked for a
    new token of this cluster; `revoke`: and for the end of the former one. `ahead`: tokens whose renewal is
    due within that time (and within a twelfth of their life) are renewed in this pass too. `suspect_since`: when an API
    server last refused a published token of this instance; all tokens are verified within `SUSPICION` then.
    """
    if waits(candidate, now):
        return None
    if rotate and candidate.credential is not None and has_access(candidate):
        return Due(
            Reason.ROTATION_ASKED, "an operator asked for it", issue=True, urgent=True, needs_admin=True, revoke=revoke
        )
    if not resync and in_backoff(candidate, now) and not _changed(candidate):
        return _verification_in_backoff(candidate, now, verify_interval)
    for check in _CHECKS:
        if found := check(candidate, now):
            return found
    if resync:
        # Whether a legacy Secret is still there may be hidden from the read-only token.
        return Due(Reason.RESYNC, "an operator asked for it", needs_admin=candidate.memory.legacy)
    if verify_due(candidate.key, candidate.memory.verified_at, now, verify_interval):
        return Due(Reason.VERIFY_DUE, "the verification interval has passed")
    if (suspicion := _suspected_at(candidate, suspect_since)) is not None and suspicion <= now:
        return Due(Reason.VERIFY_DUE, "the token of another cluster was refused")
    return _token_due_soon(candidate, now, ahead) if ahead else None


def wakes_at(
    candidate: Candidate, *, now: datetime, verify_interval: timedelta, suspect_since: datetime | None = None
) -> datetime | None:
    """When this cluster will be due without a change in Palette; None = never, or it is due already.

    A paused cluster is due once its pause has ended. A failed cluster that was not retried yet is due now. A renewal is
    due at its exact time; a verification may be up to `PATIENCE` late, so that several share a pass.
    """
    if (pause := paused(candidate, now)) is not None:
        return pause.until
    if waits(candidate, now):
        return None
    memory, credential = candidate.memory, candidate.credential
    if in_backoff(candidate, now):
        begun = _verifiable_since(candidate, now)
        verification = next_verification(candidate.key, begun, verify_interval) if begun is not None else None
        ends = [memory.retry_at, verification + PATIENCE if verification is not None else None]
        return min(moment for moment in ends if moment is not None)
    if memory.failures > 0:
        return now  # its backoff is over; it may have ended during a pass
    moments = [secret.delete_at + PATIENCE for secret in memory.retired]
    if memory.recheck_at is not None:
        moments.append(memory.recheck_at)
    if credential is not None and not isinstance(candidate.record and candidate.record.auth, OidcAuth):
        moments.append(credential.renew_at)
    if (verification := next_verification(candidate.key, memory.verified_at, verify_interval)) is not None:
        moments.append(verification + PATIENCE)
    if (suspicion := _suspected_at(candidate, suspect_since)) is not None:
        moments.append(suspicion)
    return min(moments, default=None)


def suspects(since: datetime | None, now: datetime) -> bool:
    """Whether a token that is refused now makes all others suspect, as one did at `since`. Not before a rest is over,
    because each time all tokens are verified.
    """
    return since is None or now >= since + SUSPICION_REST or since > now


def lapses_at(record: ClusterRecord | None, credential: SealedCredential | None) -> datetime | None:
    """When the token ends that readers use by the record; None = never. The record is not true any more then."""
    if record is None or credential is None or record.access.state not in SERVED or isinstance(record.auth, OidcAuth):
        return None
    return credential.expires_at


def _suspected_at(candidate: Candidate, since: datetime | None) -> datetime | None:
    """When a token is verified because that of another cluster was refused; None = it was verified since, or is new."""
    record, credential, verified_at = candidate.record, candidate.credential, candidate.memory.verified_at
    if since is None or record is None or credential is None or isinstance(record.auth, OidcAuth):
        return None
    if credential.issued_at >= since or (verified_at is not None and verified_at >= since):
        return None
    return since + SUSPICION * spread(candidate.key, "suspicion")


def renews_from(credential: SealedCredential, ahead: timedelta = RENEW_AHEAD) -> datetime:
    """When a pass renews the token at the earliest: `ahead` of `renew_at`, at most a twelfth of its life."""
    if credential.expires_at is not None:
        ahead = min(ahead, (credential.expires_at - credential.issued_at) / 12)
    return credential.renew_at - ahead


def paused(candidate: Candidate, now: datetime) -> PauseInForce | None:
    """The operator's pause of the cluster, or None. No work on it begins meanwhile, whatever is due."""
    return pause_in_force(candidate.record, candidate.cluster.tags, now)


def waits(candidate: Candidate, now: datetime) -> bool:
    """Whether work must wait: an operator paused the cluster, it is paused in Palette, or it has no access yet and
    cannot get it now, because Palette does not report Running, or because it was imported and so has no kubeconfig.
    """
    cluster = candidate.cluster
    return (
        paused(candidate, now) is not None
        or cluster.paused
        or (not has_access(candidate) and (cluster.state != RUNNING or cluster.imported))
    )


def has_access(candidate: Candidate) -> bool:
    """Whether access was ever gained and is published: then it is kept alive in every state but deletion."""
    record = candidate.record
    if record is None or record.server is None:
        return False
    return isinstance(record.auth, OidcAuth) or candidate.credential is not None


def in_backoff(candidate: Candidate, now: datetime) -> bool:
    return rests(candidate.memory, now, candidate.record.access.reason if candidate.record else None)


def _verification_in_backoff(candidate: Candidate, now: datetime, interval: timedelta) -> Due | None:
    """A pause after a failure delays no verification of a token that works, unless the API server hung.

    While a new token is due, the pause counts: every attempt to issue one ends with a look at the token.
    """
    begun = _verifiable_since(candidate, now)
    if begun is None or not verify_due(candidate.key, begun, now, interval):
        return None
    return Due(Reason.VERIFY_DUE, "the verification interval has passed")


def _verifiable_since(candidate: Candidate, now: datetime) -> datetime | None:
    """When a token was last looked at that may be verified in the pause after a failure; None = it waits."""
    memory, record = candidate.memory, candidate.record
    if memory.hung or memory.tried_at is None or record is None or isinstance(record.auth, OidcAuth):
        return None
    if not has_access(candidate) or _token_due(candidate, now):
        return None
    return memory.tried_at if memory.verified_at is None else max(memory.verified_at, memory.tried_at)


def _changed(candidate: Candidate) -> bool:
    return _configuration_changed(candidate, None) is not None or _state_changed(candidate, None) is not None


def _first_access(candidate: Candidate, _now: datetime) -> Due | None:
    if candidate.record is None:
        return Due(Reason.NEW, "not published yet", issue=True)
    if not has_access(candidate):
        return Due(Reason.NO_ACCESS, "no working access yet", issue=True)
    return None


def _mode_changed(candidate: Candidate, _now: datetime) -> Due | None:
    auth = candidate.record.auth if candidate.record else None
    if candidate.mode is AuthMode.OIDC and isinstance(auth, ServiceAccountAuth):
        return Due(Reason.MODE_CHANGED, "configured for OIDC now")
    if candidate.mode is AuthMode.SERVICE_ACCOUNT and isinstance(auth, OidcAuth):
        return Due(Reason.MODE_CHANGED, "configured for a service account now", issue=True)
    return None


def _configuration_changed(candidate: Candidate, _now: datetime | None) -> Due | None:
    known = candidate.memory.desired
    if known not in (None, candidate.desired, candidate.former_desired):
        return Due(
            Reason.CONFIG_CHANGED, "the configured access differs from what the cluster was given", needs_admin=True
        )
    return None


def _state_changed(candidate: Candidate, _now: datetime | None) -> Due | None:
    record, cluster = candidate.record, candidate.cluster
    if record is None:
        return None
    before, after = (record.palette.state, record.palette.health), (cluster.state, cluster.health)
    if before == after:
        return None
    return Due(Reason.STATE_CHANGED, f"Palette reports {_state(*after)}, before {_state(*before)}")


def _token_due(candidate: Candidate, now: datetime) -> Due | None:
    credential = candidate.credential
    if credential is None or isinstance(candidate.record and candidate.record.auth, OidcAuth):
        return None
    if not credential.alive(now):
        return Due(Reason.TOKEN_LAPSED, "the token has expired", issue=True, urgent=True)
    if token_due(issued_at=credential.issued_at, renew_at=credential.renew_at, now=now):
        return Due(Reason.TOKEN_DUE, "the token has reached its renewal time", issue=True, urgent=True)
    return None


def _life_shortened(candidate: Candidate, now: datetime) -> Due | None:
    """A token that lives longer than is configured by now. What an API server grants beyond a request is no reason."""
    credential, policy, requested = candidate.credential, candidate.token, candidate.memory.validity
    if credential is None or policy is None or isinstance(candidate.record and candidate.record.auth, OidcAuth):
        return None
    if credential.expires_at is None:
        shortened = now >= credential.issued_at + policy.rotate_every
    else:
        shortened = requested is not None and policy.validity < requested
        shortened = shortened and credential.expires_at - now > policy.validity
    return Due(Reason.TOKEN_DUE, "tokens live shorter by the configuration now", issue=True) if shortened else None


def _recheck(candidate: Candidate, now: datetime) -> Due | None:
    again = candidate.memory.recheck_at
    if again is not None and again <= now:
        return Due(Reason.VERIFY_DUE, "what the API server's token cache hid would show now")
    return None


def overdue(memory: ClusterMemory | None, now: datetime) -> bool:
    """Whether a replaced Secret is to be deleted by now, and has not been deleted."""
    return memory is not None and any(secret.delete_at <= now for secret in memory.retired)


def asks_again(due: Due, *, secrets_seen: bool) -> bool:
    """Whether a token that was accepted is verified again once the API server's token cache has passed.

    Where something happened just now, the token's Secret may have been deleted with it. A scheduled verification comes
    too seldom at such a moment to double all of them.
    """
    return not secrets_seen and due.reason in _PROMPTED


_PROMPTED = frozenset({Reason.RESYNC, Reason.STATE_CHANGED, Reason.CONFIG_CHANGED, Reason.RETRY_DUE})


def _token_due_soon(candidate: Candidate, now: datetime, ahead: timedelta) -> Due | None:
    credential = candidate.credential
    if credential is None or now < renews_from(credential, ahead):
        return None
    return _token_due(candidate, max(now, credential.renew_at))


def _overlap_over(candidate: Candidate, now: datetime) -> Due | None:
    if overdue(candidate.memory, now):
        return Due(Reason.OVERLAP_OVER, "the overlap of a replaced Secret is over", needs_admin=True)
    return None


def _retry(candidate: Candidate, _now: datetime) -> Due | None:
    """Reached only when the backoff is over: what failed is tried again before its verification is due."""
    record = candidate.record
    failed = record is not None and record.access.state is not AccessState.READY
    if candidate.memory.failures > 0 or failed:
        return Due(Reason.RETRY_DUE, f"attempt {candidate.memory.failures + 1} after a failure")
    return None


_CHECKS: tuple[Callable[[Candidate, datetime], Due | None], ...] = (
    _first_access,  # nothing published, or nothing that works
    _mode_changed,  # the operator moved the cluster to the other kind of authentication
    _configuration_changed,  # the operator changed rules or names
    _token_due,  # invariant 4, and tokens from the future after a clock leap
    _life_shortened,  # the operator shortened the life of tokens
    _state_changed,  # Palette reports another state or health
    _overlap_over,  # secret mode: the old generation may go
    _retry,  # the backoff has passed
    _recheck,  # the API server's token cache has passed
)


def _state(state: str, health: str) -> str:
    return f"{state}/{health}" if health else state

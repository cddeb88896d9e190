"""The clusters that a pass may work on: all that are listed or published, with everything known about them. Pure.

The same view decides what is due now and when something will be due next, so that the two never disagree.
"""

from __future__ import annotations

import heapq
from dataclasses import replace
from typing import TYPE_CHECKING

from palette_sync.core.due import PATIENCE, Candidate, Due, due, in_backoff, lapses_at, waits, wakes_at
from palette_sync.core.fold import cluster_of
from palette_sync.core.model import AuthMode, ClusterKey, ClusterMemory, OidcAuth, ca_pem_of
from palette_sync.core.policy import plain_fingerprint
from palette_sync.core.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime, timedelta

    from palette_sync.core.model import Cluster, ClusterRecord, InstanceState
    from palette_sync.core.policy import InstancePolicy


class Candidates:
    """One instance at `now`. `rows` are the clusters as Palette listed them last, by uid; a process starts without any.
    `suspect_since`: when an API server last refused a published token.

    Credentials of a state that is not trusted are ignored.
    """

    def __init__(
        self,
        policy: InstancePolicy,
        state: InstanceState,
        rows: Mapping[str, Cluster],
        *,
        now: datetime,
        suspect_since: datetime | None = None,
    ) -> None:
        self._policy = policy
        self._state = state
        self._rows = rows
        self._now = now
        self._suspect_since = suspect_since
        self._fingerprints = {
            (mode, auto): policy.fingerprint(mode, auto=auto) for mode in AuthMode for auto in (False, True)
        }
        self._former_fingerprints = {mode: policy.former_fingerprint(mode) for mode in AuthMode}

    def listed(self, cluster: Cluster) -> Candidate:
        """A cluster as Palette lists it."""
        record = self._state.records.get(cluster.uid)
        mode, ca_pem = self._policy.mode_of(cluster), self._policy.ca_of(cluster)
        auto = mode is None
        return Candidate(
            key=ClusterKey(self._policy.instance, cluster.uid),
            cluster=cluster,
            record=record,
            credential=self._state.credentials.get(cluster.uid) if self._state.trusted else None,
            memory=self._state.memory.get(cluster.uid, ClusterMemory()),
            mode=mode,
            desired=self._policy.with_cloud(
                self._fingerprint(mode or mode_in_use(record), ca_pem, auto=auto), cluster, record
            ),
            former_desired=None if ca_pem or auto else self._former_fingerprints[mode or mode_in_use(record)],
            ca_pem=ca_pem,
            auto=auto,
            token=self._policy.token,
        )

    def published(self, uid: str) -> Candidate:
        """A published cluster that was not listed just now: as it was last listed, else rebuilt from its record."""
        row = self._rows.get(uid)
        if row is not None:
            return self.listed(row)
        record = self._state.records[uid]
        # The record's name is not Palette's, so no rule can be applied; the kind of access stays as it is.
        mode = mode_in_use(record)
        ca_pem = self._ca_in_use(record)
        listed = self.listed(cluster_of(record))
        found_out = self._fingerprint(mode, ca_pem, auto=True)
        auto = plain_fingerprint(listed.memory.desired) == found_out
        desired = found_out if auto else self._fingerprint(mode, ca_pem, auto=False)
        return replace(
            listed,
            mode=mode,
            desired=self._policy.with_cloud(desired, listed.cluster, record),
            former_desired=None if ca_pem or auto else self._former_fingerprints[mode],
            ca_pem=ca_pem,
            auto=auto,
        )

    def _fingerprint(self, mode: AuthMode, ca_pem: str | None, *, auto: bool) -> str:
        if ca_pem is None:
            return self._fingerprints[mode, auto]
        return self._policy.fingerprint(mode, ca_pem, auto=auto)

    def _ca_in_use(self, record: ClusterRecord) -> str | None:
        """The CA that a rule gave to a published cluster: one of the rules' CAs with which the record's CA begins."""
        published = ca_pem_of(record.server) if record.server else ""
        return next((rule.pem for rule in self._policy.ca_rules if published.startswith(rule.pem)), None)

    def due(
        self, candidate: Candidate, *, resync: bool, ahead: timedelta, rotate: bool = False, revoke: bool = False
    ) -> Due | None:
        return due(
            candidate,
            now=self._now,
            verify_interval=self._policy.verify_interval,
            resync=resync,
            rotate=rotate,
            revoke=revoke,
            ahead=ahead,
            suspect_since=self._suspect_since,
        )

    def issuers_due(self, candidates: Iterable[Candidate]) -> dict[str, Due]:
        """For each issuer whose metadata has expired, one cluster by uid: work on it fetches the metadata again."""
        chosen: dict[str, str] = {}
        for candidate in candidates:
            issuer = _issuer_of(candidate)
            if issuer is not None and issuer not in chosen and not self._rests(candidate):
                known = self._state.issuers.get(issuer)
                if known is None or known.valid_until is None or self._now >= known.valid_until:
                    chosen[issuer] = candidate.cluster.uid
        return {uid: Due(Reason.ISSUER_DUE, "the metadata of its issuer has expired") for uid in chosen.values()}

    def wakes(self, most: int) -> list[tuple[datetime, str]]:
        """The first moments of `all_wakes`."""
        return heapq.nsmallest(most, self.all_wakes())

    def all_wakes(self) -> Iterator[tuple[datetime, str]]:
        """Yield when published clusters and issuers will be due by themselves, or their records change, with the uid or
        the issuer.

        The order is undefined, and a time may be past. Iterating over thousands takes a while.
        """
        issuers: set[str] = set()
        for uid in self._state.records:
            candidate = self.published(uid)
            moment = wakes_at(
                candidate,
                now=self._now,
                verify_interval=self._policy.verify_interval,
                suspect_since=self._suspect_since,
            )
            if moment is not None:
                yield moment, uid
            if (end := lapses_at(candidate.record, candidate.credential)) is not None:
                yield end, uid
            if (issuer := _issuer_of(candidate)) is not None and not self._rests(candidate):
                issuers.add(issuer)
        for issuer in issuers:
            known = self._state.issuers.get(issuer)
            if known is not None and known.valid_until is not None:
                yield known.valid_until + PATIENCE, issuer

    def _rests(self, candidate: Candidate) -> bool:
        return waits(candidate, self._now) or in_backoff(candidate, self._now)


def mode_in_use(record: ClusterRecord | None) -> AuthMode:
    return AuthMode.OIDC if record and isinstance(record.auth, OidcAuth) else AuthMode.SERVICE_ACCOUNT


def _issuer_of(candidate: Candidate) -> str | None:
    auth = candidate.record.auth if candidate.record else None
    return auth.issuer_url if isinstance(auth, OidcAuth) else None

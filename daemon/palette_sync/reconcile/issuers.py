"""OIDC issuers of one instance: each is fetched once while its metadata is valid."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import structlog

from palette_sync.core.model import IssuerMetadata
from palette_sync.oidc import IssuerError, fetch_issuer

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from palette_sync.core.network import NetworkPolicy
    from palette_sync.core.policy import OidcPolicy

log = structlog.get_logger(__name__)

RETRY = timedelta(minutes=5)


class Issuers:
    """`known` comes from the store; `changed` holds what must be written back."""

    def __init__(
        self, known: Mapping[str, IssuerMetadata], *, now: datetime, policy: OidcPolicy, network: NetworkPolicy
    ) -> None:
        self._known = dict(known)
        self._now = now
        self._policy = policy
        self._network = network
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._tried: dict[str, IssuerError] = {}
        self.changed: dict[str, IssuerMetadata] = {}

    async def get(self, issuer: str, ca_pem: str | None) -> IssuerMetadata:
        """Return checked metadata; fetch it if the known metadata has expired.

        Raises IssuerError if the issuer was never fetched successfully; otherwise the old metadata stays in use.
        """
        async with self._turns[issuer]:
            known = self._known.get(issuer)
            if known is not None and self._valid(known):
                return known
            if issuer not in self._tried:
                try:
                    fetched = await fetch_issuer(
                        issuer,
                        ca_pem=ca_pem,
                        now=self._now,
                        refresh_interval=self._policy.refresh_interval,
                        network=self._network,
                        keys_allowed=partial(self._policy.issuers.allows_keys, issuer=issuer),
                    )
                except IssuerError as error:
                    if error.detail:
                        log.info("issuer_not_reached", issuer=issuer, reason=error.detail)
                    self._tried[issuer] = error
                    # The old metadata stays in use; the next attempt comes after a pause.
                    again = self._now + RETRY if known is not None and known.fetched_at is not None else None
                    self._remember(replace(known or IssuerMetadata(issuer), error=str(error), valid_until=again))
                else:
                    self._remember(fetched)
                    return fetched
            if known is None or known.fetched_at is None:
                raise self._tried[issuer]
            return known

    def put_off(self, issuer: str, reason: str) -> None:
        """The cluster that was to refresh the issuer failed earlier; do not try the other clusters at once."""
        known = self._known.get(issuer)
        if known is not None and known.fetched_at is not None and not self._valid(known):
            self._remember(replace(known, error=reason, valid_until=self._now + RETRY))

    def _valid(self, known: IssuerMetadata) -> bool:
        return known.valid_until is not None and self._now < known.valid_until

    def _remember(self, metadata: IssuerMetadata) -> None:
        self._known[metadata.issuer] = metadata
        self.changed[metadata.issuer] = metadata
